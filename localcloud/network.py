"""The VPC: a routed network in the cloud's own network namespace.

Every interface of a machine is one end of a veth pair. The other end stays in the cloud's namespace, with a
host route to the interface's address and proxy ARP, so that machines of one subnet reach each other through
the router too, and one nftables ruleset sees all traffic, as security groups do.

Load balancers have no namespace: their addresses are the router's own, filtered on input and output.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path

from localcloud import internet
from localcloud.addresses import DEVELOPER, GATEWAY, METADATA, OPERATOR, OUTSIDE, RESOLVER
from localcloud.aws.ports import Firewall, Rule

MTU = 9001  # of every interface in a VPC

_OUTSIDE_NAMESPACE = "outside"
_OUTSIDE_LINK = "outside"
_OUTSIDE_ADDRESSES = (OUTSIDE, DEVELOPER)  # the first is the default source


class NetworkError(Exception):
    """A command of iproute2 or nftables failed."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A network interface of a machine.

    Attributes:
        name: Its name inside the machine.
        address: Its private address.
        mac: Its hardware address.
        namespace: The network namespace of the machine.
    """

    name: str
    address: IPv4Address
    mac: str
    namespace: str

    @property
    def outer(self) -> str:
        """The name of the router's end: unique, since the address is, and at most 15 characters long."""
        return f"v{int(self.address):08x}"


def connect(link: Link) -> None:
    """Add an interface to a machine, running or not.

    Raises:
        NetworkError: It could not be added.
    """
    # The kernel may not be done with the machine that had this address before.
    disconnect(link)
    _ip(
        f"link add {link.outer} mtu {MTU} type veth"
        f" peer name {link.name} netns {link.namespace} address {link.mac} mtu {MTU}",
        f"link set {link.outer} up",
        f"route replace {link.address}/32 dev {link.outer}",
    )
    # rp_filter: an address counts only on its own interface, as with EC2's source/destination check.
    _sysctl({"proxy_arp": "1", "rp_filter": "1", "accept_redirects": "0", "send_redirects": "0"}, link.outer)
    Path(f"/proc/sys/net/ipv4/neigh/{link.outer}/proxy_delay").write_text("0")


def disconnect(link: Link) -> None:
    """Take an interface away from a machine. One that is gone already is no error."""
    subprocess.run(["ip", "link", "delete", link.outer], capture_output=True, check=False)


def connected(link: Link) -> bool:
    """Tell whether the interface exists."""
    return Path(f"/sys/class/net/{link.outer}").exists()


def add_namespace(name: str) -> None:
    """Make the network namespace of a machine.

    Raises:
        NetworkError: It exists already.
    """
    _ip(f"netns add {name}")


def delete_namespace(name: str) -> None:
    """Remove a machine's network namespace with all interfaces in it. A missing one is no error."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def set_up() -> None:
    """Prepare the cloud's namespace: forwarding, AWS's own addresses, and addresses outside the VPC.

    Raises:
        NetworkError: A part could not be set up.
    """
    apply_rules(ruleset(firewalls=(), hop_limits={}))
    _ip("link set lo up")
    own_addresses([METADATA, RESOLVER, GATEWAY])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    add_namespace(_OUTSIDE_NAMESPACE)
    _ip(
        f"link add {_OUTSIDE_LINK} type veth peer name eth0 netns {_OUTSIDE_NAMESPACE}",
        f"link set {_OUTSIDE_LINK} up",
        *(f"route add {address}/32 dev {_OUTSIDE_LINK}" for address in _OUTSIDE_ADDRESSES),
    )
    _sysctl({"proxy_arp": "1", "rp_filter": "1"}, _OUTSIDE_LINK)
    _ip(
        f"-n {_OUTSIDE_NAMESPACE} link set lo up",
        f"-n {_OUTSIDE_NAMESPACE} link set eth0 up",
        *(f"-n {_OUTSIDE_NAMESPACE} address add {address}/24 dev eth0" for address in _OUTSIDE_ADDRESSES),
        f"-n {_OUTSIDE_NAMESPACE} route add default dev eth0",
    )


def own_addresses(addresses: Iterable[IPv4Address]) -> None:
    """Make these addresses the router's own: load balancers, the first address of each subnet.

    Raises:
        NetworkError: One could not be added.
    """
    for address in addresses:
        _ip(f"address replace {address}/32 dev lo")


def ruleset(
    *, firewalls: Iterable[Firewall], hop_limits: Mapping[IPv4Address, int], way_out: bool = False
) -> str:
    """The nftables rules that do what the security groups say.

    A new connection passes when the groups of its source let it out and those of its destination let it in;
    whatever is not an interface of the VPC has no groups. The metadata service and the resolver are open to
    every machine, as on AWS.

    Args:
        firewalls: The rules in force, one entry for each interface of a machine or load balancer.
        hop_limits: How far replies of the metadata service travel, where it is more than one hop.
        way_out: What the rules let out to the internet really goes there.
    """
    walls = sorted(firewalls, key=lambda wall: wall.address)
    own = ", ".join(str(wall.address) for wall in walls)
    outside = ", ".join(str(address) for address in _OUTSIDE_ADDRESSES)
    out = [f"{wall.address} : goto {_chain('out', wall)}" for wall in walls]
    into = [f"{wall.address} : goto {_chain('in', wall)}" for wall in walls]
    lines = [
        "table inet cloud",
        "delete table inet cloud",
        "table inet cloud {",
        "chain forward { type filter hook forward priority filter; policy drop; goto connection; }",
        "chain input { type filter hook input priority filter; policy drop;",
        '  iifname "lo" accept',
        f"  ip saddr {{ {outside} }} goto connection",
        f"  ip daddr {METADATA} tcp dport 80 accept",
        f"  ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 accept",
        "  goto connection",
        "}",
        "chain output { type filter hook output priority filter; policy accept;",
        *(
            f"  ip saddr {METADATA} ip daddr {address} ip ttl set {hops}"
            for address, hops in sorted(hop_limits.items())
            if hops > 1
        ),
        f"  ip saddr {OPERATOR} ip daddr != {OPERATOR} goto connection",
        *([f"  ip saddr {{ {own} }} goto connection"] if own else []),
        "}",
        "chain connection {",
        "  ct state established,related accept",
        "  ct state invalid drop",
        f"  ip saddr {{ {OPERATOR}, {outside} }} goto destination",
        *([f"  ip saddr vmap {{ {', '.join(out)} }}"] if out else []),
        "  drop",
        "}",
        "chain destination {",
        f"  ip daddr {GATEWAY} tcp dport 443 accept",
        f"  ip daddr {{ {outside} }} accept",
        *([f'  oifname "{internet.LINK}" accept'] if way_out else []),
        *([f"  ip daddr vmap {{ {', '.join(into)} }}"] if into else []),
        "  drop",
        "}",
    ]
    if way_out:
        lines += [
            "chain translation { type nat hook postrouting priority srcnat; policy accept;",
            f'  oifname "{internet.LINK}" masquerade',
            "}",
        ]
    for wall in walls:
        lines += [f"chain {_chain('out', wall)} {{"]
        lines += [f"  {match} goto destination" for rule in wall.egress for match in _match("daddr", rule)]
        lines += ["  drop", "}", f"chain {_chain('in', wall)} {{"]
        lines += [f"  {match} accept" for rule in wall.ingress for match in _match("saddr", rule)]
        lines += ["  drop", "}"]
    return "\n".join([*lines, "}", ""])


def apply_rules(rules: str) -> None:
    """Put a ruleset in force, in one step; existing connections stay.

    Raises:
        NetworkError: nftables refuses it.
    """
    _run(["nft", "-f", "-"], rules)


def _chain(direction: str, wall: Firewall) -> str:
    return f"{direction}-{wall.address}".replace(".", "-")


def _match(side: str, rule: Rule) -> list[str]:
    """The nftables expressions of a rule; none for a rule whose peers are a group without members."""
    if not rule.peers:
        return []
    peers = f"ip {side} {{ {', '.join(str(peer) for peer in _merged(rule.peers))} }}"
    ports = f"{rule.first_port}-{rule.last_port}"
    whole = (rule.first_port, rule.last_port) == (0, 65535)
    match rule.protocol:
        case "tcp" | "udp" as protocol:
            return [f"{peers} meta l4proto {protocol}" if whole else f"{peers} {protocol} dport {ports}"]
        case "all":
            return [peers]
        case name_or_number:
            return [f"{peers} meta l4proto {name_or_number}"]


def _merged(networks: Iterable[IPv4Network]) -> list[IPv4Network]:
    """The same addresses without overlaps, which an nftables set refuses."""
    return list(collapse_addresses(networks))


def _sysctl(values: Mapping[str, str], link: str) -> None:
    for name, value in values.items():
        Path(f"/proc/sys/net/ipv4/conf/{link}/{name}").write_text(value)


def _ip(*commands: str) -> None:
    for command in commands:
        _run(["ip", *command.split()])


def _run(command: list[str], text: str | None = None) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise NetworkError(f"{' '.join(command)}: {reason}")
