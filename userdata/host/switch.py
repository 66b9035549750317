"""The switch that os-autoinst asks to put a guest's tap device into its cluster's VLAN.

Fedora packages one (os-autoinst-openvswitch); this one provides the same D-Bus interface on Debian. Its
answers are made here, the bus is in :mod:`userdata.host.switch_bus`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import product
from typing import Any

from userdata.host.commands import run
from userdata.host.errors import HostError

NAME = "org.opensuse.os_autoinst.switch"
PATH = "/switch"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
VLANS = range(1, 4095)
# In the address by which the host knows a guest: the bits that its tap device determines, not the guest.
GUEST_MASK = IPv4Address("255.255.255.0")
FORGOTTEN_SECONDS = 3600

_TAP = re.compile(r"tap[0-9]+", re.ASCII)
# Open vSwitch's names for protocols, and for their sender and target fields.
_ARP = ("arp", "0x806", "NXM_OF_ARP_SPA[]", "NXM_OF_ARP_TPA[]")
_IP = ("ip", "0x800", "NXM_OF_IP_SRC[]", "NXM_OF_IP_DST[]")

# os-autoinst reads the types from here.
INTROSPECTION = f"""\
<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node name="{PATH}">
  <interface name="{NAME}">
    <method name="set_vlan">
      <arg type="s" direction="in"/>
      <arg type="u" direction="in"/>
      <arg type="i" direction="out"/>
      <arg type="s" direction="out"/>
    </method>
    <method name="unset_vlan">
      <arg type="s" direction="in"/>
      <arg type="u" direction="in"/>
      <arg type="i" direction="out"/>
      <arg type="s" direction="out"/>
    </method>
    <method name="show">
      <arg type="i" direction="out"/>
      <arg type="s" direction="out"/>
    </method>
  </interface>
  <interface name="{INTROSPECTABLE}">
    <method name="Introspect">
      <arg type="s" direction="out"/>
    </method>
  </interface>
</node>
"""


@dataclass(frozen=True)
class Call:
    """A method call as it comes from the bus."""

    interface: str | None
    member: str
    signature: str
    body: Sequence[Any]


@dataclass(frozen=True)
class Reply:
    """An answer; ``error`` is the D-Bus error's name, or None."""

    signature: str
    body: tuple[Any, ...]
    error: str | None = None


class Switch:
    """The interface's three methods; each returns a code (0: done) and a text.

    Args:
        bridge: the Open vSwitch bridge.
        command: runs a program; see :func:`userdata.host.commands.run`.
    """

    def __init__(self, bridge: str, command: Callable[[Sequence[str]], str] = run) -> None:
        self._bridge = bridge
        self._command = command

    def set_vlan(self, tap: str, vlan: int) -> tuple[int, str]:
        """Puts a tap device into a VLAN; its frames may carry VLAN tags of their own."""
        if refusal := self._refusal(tap, vlan):
            return 1, refusal
        return self._try(
            ["ovs-vsctl", "set", "port", tap, f"tag={vlan}", "vlan_mode=dot1q-tunnel"],
            ["ip", "link", "set", "dev", tap, "up"],
        )

    def unset_vlan(self, tap: str, vlan: int) -> tuple[int, str]:
        """Takes a tap device out of a VLAN."""
        if refusal := self._refusal(tap, vlan):
            return 1, refusal
        return self._try(["ovs-vsctl", "remove", "port", tap, "tag", str(vlan)])

    def show(self) -> tuple[int, str]:
        """Shows Open vSwitch's configuration."""
        return self._try(["ovs-vsctl", "show"])

    def answer(self, call: Call) -> Reply:
        """Answers a method call."""
        if (call.interface or INTROSPECTABLE, call.member) == (INTROSPECTABLE, "Introspect"):
            return Reply("s", (INTROSPECTION,))
        if call.interface in (None, NAME):
            match call.member, call.signature, tuple(call.body):
                case "set_vlan", "su", (tap, vlan):
                    return Reply("is", self.set_vlan(tap, vlan))
                case "unset_vlan", "su", (tap, vlan):
                    return Reply("is", self.unset_vlan(tap, vlan))
                case "show", "", ():
                    return Reply("is", self.show())
        text = f"no method {call.member}({call.signature}); there are set_vlan(su), unset_vlan(su) and show()"
        return Reply("s", (text,), error="org.freedesktop.DBus.Error.UnknownMethod")

    def _refusal(self, tap: str, vlan: int) -> str | None:
        if not _TAP.fullmatch(tap):
            return f"{tap!r} is not a tap device: allowed is 'tap' with a number"
        if vlan not in VLANS:
            return f"there is no VLAN {vlan}: allowed are {VLANS.start} to {VLANS.stop - 1}"
        try:
            ports = self._command(["ovs-vsctl", "list-ports", self._bridge]).split()
        except HostError as error:
            return str(error)
        return None if tap in ports else f"{tap} is not on the bridge {self._bridge}"

    def _try(self, *commands: Sequence[str]) -> tuple[int, str]:
        try:
            return 0, "".join(self._command(command) for command in commands)
        except HostError as error:
            return 1, str(error)


def flows(*, taps: Sequence[str], address: IPv4Address, rewrite: IPv4Address, mac: str) -> tuple[str, ...]:
    """Returns the bridge's OpenFlow rules: guests reach the host, whatever their VLANs and addresses.

    Clusters use the same addresses at the same time, and a guest may claim another's hardware address. So the
    host knows each guest by ``rewrite``, the number of its tap device, and the last 8 bits of its hardware
    address, of which a guest has several if it runs machines itself. A packet for the host gets that as its
    source, and leaves a rule in table 1 that restores the original destination and port in replies: no guest
    gets another's replies, or more than 256 such rules per protocol.

    Args:
        taps: the guests' devices, none with a number above 255.
        address: the host's address on the bridge.
        rewrite: the guests' network as the host knows it, ending in 16 zero bits.
        mac: the bridge's hardware address.
    """
    toward_host = ((f"arp_tpa={address}", _ARP), (f"dl_dst={mac}", _IP))
    return (
        "table=0,priority=0,actions=NORMAL",
        "table=0,priority=200,in_port=LOCAL,actions=resubmit(,1)",
        *(
            _toward_host(tap, match, protocol, rewrite)
            for tap, (match, protocol) in product(taps, toward_host)
        ),
    )


def install_flows(*, bridge: str, address: IPv4Address, rewrite: IPv4Address, mac: str) -> None:
    """Adds the rules to the bridge, all at once, next to those of :mod:`userdata.host.mesh`.

    Raises:
        HostError: Open vSwitch refused.
    """
    taps = [port for port in run(["ovs-vsctl", "list-ports", bridge]).split() if _TAP.fullmatch(port)]
    rules = flows(taps=taps, address=address, rewrite=rewrite, mac=mac)
    run(["ovs-ofctl", "--bundle", "add-flows", bridge, "-"], stdin="\n".join(rules) + "\n")


def _toward_host(tap: str, match: str, protocol: tuple[str, str, str, str], rewrite: IPv4Address) -> str:
    name, kind, sender, target = protocol
    known = int(rewrite) + (int(tap.removeprefix("tap")) << 8)
    reply = (
        f"table=1,priority=100,idle_timeout={FORGOTTEN_SECONDS},in_port=LOCAL,eth_type={kind},"
        f"{target}={sender},load:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],load:NXM_NX_REG0[]->{target},"
        "output:NXM_OF_IN_PORT[]"
    )
    bits = sender.replace("[]", "[0..7]")
    return (
        f'table=0,priority=100,in_port="{tap}",{name},{match},actions=move:{sender}->NXM_NX_REG0[],'
        f"load:{known:#x}->{sender},move:NXM_OF_ETH_SRC[0..7]->{bits},learn({reply}),LOCAL"
    )
