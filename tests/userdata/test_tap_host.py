"""The tap network and its switch: what is decided, and what the switch refuses."""

from __future__ import annotations

import json
import xml.etree.ElementTree
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import catalogue
from tests.userdata import machine
from userdata.host import __main__ as main
from userdata.host import ready, switch, tap
from userdata.host.errors import HostError
from userdata.host.signals import Signals
from userdata.host.switch import INTROSPECTABLE, NAME, Call, Switch
from userdata.host.tap import TapNetwork

NETWORK = TapNetwork(IPv4Interface("172.16.2.2/15"))
OPENSUSE = TapNetwork(IPv4Interface("10.0.2.2/15"))
PORTS = "".join(f"{name}\n" for name in tap.devices(2))
ADDRESSES = json.dumps([{"ifname": "br0", "addr_info": [{"local": "172.16.2.2", "prefixlen": 15}]}])
FLOWS = "cookie=0x0, priority=100,arp,arp_tpa=172.16.2.2 actions=…"


@pytest.mark.parametrize(
    ("network", "rewrite", "mac"),
    [(NETWORK, "172.17.0.0", "02:00:ac:10:02:02"), (OPENSUSE, "10.1.0.0", "02:00:0a:00:02:02")],
)
def test_all_of_the_network_follows_from_the_hosts_address(
    network: TapNetwork, rewrite: str, mac: str
) -> None:
    assert (str(network.rewrite), network.mac) == (rewrite, mac)


def test_bridge_and_workers_have_the_address_that_the_document_says() -> None:
    made = tap.commands(OPENSUSE, workers=1, kernel_datapath=True, existing=[])
    assert ["ip", "address", "replace", "10.0.2.2/15", "dev", "br0"] in made
    assert 'other_config:hwaddr="02:00:0a:00:02:02"' in [word for command in made for word in command]
    assert tap.settings(OPENSUSE, kernel_datapath=True, mesh=True) == {"QEMU_HOST_IP": "10.0.2.2"}


def test_a_host_without_taps_has_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="the key 'tap_address' is missing"):
        tap.network_of(machine.host(tmp_path, "worker-vde").document)


def test_each_worker_has_the_devices_that_os_autoinst_looks_for() -> None:
    assert tap.devices(2) == ("tap0", "tap1", "tap64", "tap65", "tap128", "tap129")


def test_devices_that_are_there_are_not_made_again() -> None:
    taps = list(tap.devices(2))
    made = tap.commands(NETWORK, workers=2, kernel_datapath=True, existing=["lo", "ens5", taps[0]])
    assert [command[4] for command in made if command[:3] == ["ip", "tuntap", "add"]] == taps[1:]
    ports = next(command for command in made if command[0] == "ovs-vsctl")
    assert [ports[at + 2] for at, word in enumerate(ports) if word == "add-port"] == taps


@pytest.mark.parametrize(("kernel", "datapath"), [(True, "system"), (False, "netdev")])
def test_the_kernel_decides_the_datapath(kernel: bool, datapath: str) -> None:
    words = [w for c in tap.commands(NETWORK, workers=1, kernel_datapath=kernel, existing=[]) for w in c]
    assert f"datapath_type={datapath}" in words
    for mesh in (False, True):
        assert ("NICMODEL" in tap.settings(NETWORK, kernel_datapath=kernel, mesh=mesh)) is not kernel


def test_only_a_mesh_lets_clusters_span_hosts() -> None:
    alone, meshed = (tap.settings(NETWORK, kernel_datapath=True, mesh=mesh) for mesh in (False, True))
    assert alone == {**meshed, "PARALLEL_ONE_HOST_ONLY": "1"}


def test_the_uplink_is_the_best_default_route() -> None:
    routes = [
        {"dst": "default", "dev": "ens6", "metric": 1024},
        {"dst": "default", "dev": "ens5", "metric": 100},
    ]
    assert tap.uplink(json.dumps(routes)) == "ens5"
    assert tap.uplink(json.dumps([{"dst": "default", "dev": "ens5"}, *routes[:1]])) == "ens5"
    for nothing in ("", "[]"):
        with pytest.raises(HostError, match="no default route"):
            tap.uplink(nothing)


@pytest.mark.parametrize(
    ("ports", "addresses", "flows", "wrong"),
    [
        (PORTS, ADDRESSES, FLOWS, []),
        (PORTS.replace("tap1\n", "tap10\n"), ADDRESSES, FLOWS, ["tap1 is not on the bridge"]),
        (PORTS, ADDRESSES.replace("172.16", "10.0"), FLOWS, ["the bridge does not have the address"]),
        (PORTS, "[]", FLOWS, ["the bridge does not have the address 172.16.2.2/15"]),
        (PORTS, ADDRESSES, FLOWS.replace("172.16", "10.0"), ["guests cannot reach the host"]),
        (PORTS, ADDRESSES, "actions=NORMAL", ["guests cannot reach the host"]),
    ],
)
def test_what_is_wrong_is_told(ports: str, addresses: str, flows: str, wrong: list[str]) -> None:
    found = tap.problems(NETWORK, workers=2, ports=ports, addresses=addresses, flows=flows)
    assert len(found) == len(wrong)
    assert all(text.startswith(start) for text, start in zip(found, wrong, strict=True))


@pytest.mark.parametrize("broken", ["ovs-vsctl list-ports", "ip -json address", "ovs-ofctl dump-flows"])
def test_a_host_that_has_only_tap2_is_not_ready_without_its_network(
    tmp_path: Path, programs: machine.Programs, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "worker-tap")
    assert host.document.worker and "tap" not in host.document.worker.classes
    programs.answers |= {
        "ovs-vsctl list-ports": "\n".join(tap.devices(3)),
        "ip -json address": ADDRESSES,
        "ovs-ofctl dump-flows": FLOWS,
    }
    tap.check(host)
    programs.answers[broken] = ""
    with pytest.raises(HostError, match="tap network: "):
        tap.check(host)
    with pytest.raises(HostError, match="the last check said: tap network"):
        ready.await_ready(host, hold=lambda: None, seconds=0, sleep=lambda _: None)


def test_a_host_whose_network_broke_asks_to_be_replaced(
    tmp_path: Path, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "worker-tap")
    told: list[str] = []
    monkeypatch.setattr(tap, "CHECK_SECONDS", 0)
    monkeypatch.setattr(main, "this_host", lambda *_: host)
    monkeypatch.setattr(Signals, "unhealthy", lambda _: told.append("unhealthy"))
    assert main.main(["check-tap"], host.layout) == 1
    assert told == ["unhealthy"]


class Bridge:
    """A bridge with two taps and another port; notes the commands."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.calls: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        line = " ".join(arguments)
        if self.broken and self.broken in line:
            raise HostError(f"{line}: exit code 1: no")
        if line == "ovs-vsctl list-ports br0":
            return "tap0\ntap64\nens5\n"
        self.calls.append(line)
        return "state\n" if line == "ovs-vsctl show" else ""


def test_a_tap_goes_into_its_vlan_and_out() -> None:
    bridge = Bridge()
    served = Switch("br0", bridge)
    assert served.set_vlan("tap64", 7) == (0, "")
    assert served.unset_vlan("tap64", 7) == (0, "")
    assert served.show() == (0, "state\n")
    assert bridge.calls == [
        "ovs-vsctl set port tap64 tag=7 vlan_mode=dot1q-tunnel",
        "ip link set dev tap64 up",
        "ovs-vsctl remove port tap64 tag 7",
        "ovs-vsctl show",
    ]


@pytest.mark.parametrize(
    ("name", "vlan", "reason"),
    [
        ("ens5", 1, "'ens5' is not a tap device: allowed is 'tap' with a number"),
        ("tap0\n", 1, "is not a tap device"),
        ("tap٣", 1, "is not a tap device"),
        ("tap0 -- del-br br0", 1, "is not a tap device"),
        ("tap1", 1, "tap1 is not on the bridge br0"),
        ("tap0", 0, "there is no VLAN 0: allowed are 1 to 4094"),
        ("tap0", 4095, "there is no VLAN 4095"),
    ],
)
def test_what_is_no_tap_of_the_bridge_is_refused(name: str, vlan: int, reason: str) -> None:
    bridge = Bridge()
    served = Switch("br0", bridge)
    for code, text in (served.set_vlan(name, vlan), served.unset_vlan(name, vlan)):
        assert code == 1
        assert reason in text
    assert bridge.calls == []


@given(name=st.text(), vlan=st.integers(min_value=0, max_value=2**32 - 1))
def test_only_taps_of_the_bridge_ever_change(name: str, vlan: int) -> None:
    bridge = Bridge()
    Switch("br0", bridge).set_vlan(name, vlan)
    assert name in ("tap0", "tap64") or bridge.calls == []


def test_open_vswitchs_refusal_is_passed_on() -> None:
    assert Switch("br0", Bridge("set port")).set_vlan("tap0", 1)[0] == 1
    assert Switch("br0", Bridge("list-ports")).set_vlan("tap0", 1)[0] == 1


@pytest.mark.parametrize("interface", [None, NAME])
def test_calls_from_the_bus(interface: str | None) -> None:
    served = Switch("br0", Bridge())
    reply = served.answer(Call(interface, "set_vlan", "su", ("tap0", 3)))
    assert (reply.signature, reply.body, reply.error) == ("is", (0, ""), None)
    assert served.answer(Call(interface, "unset_vlan", "su", ("tap0", 3))).body == (0, "")
    assert served.answer(Call(interface, "show", "", ())).body == (0, "state\n")
    for member, signature, body in (("set_vlan", "s", ("tap0",)), ("delete", "", ())):
        wrong = served.answer(Call(interface, member, signature, body))
        assert wrong.error == "org.freedesktop.DBus.Error.UnknownMethod"
        assert wrong.signature == "s"


def test_the_bus_is_told_the_types() -> None:
    text = Switch("br0", Bridge()).answer(Call(INTROSPECTABLE, "Introspect", "", ())).body[0]
    methods = {
        method.get("name"): "".join(arg.get("type", "") for arg in method.findall("arg"))
        for interface in xml.etree.ElementTree.fromstring(text).findall("interface")
        for method in interface.findall("method")
    }
    assert methods == {"set_vlan": "suis", "unset_vlan": "suis", "show": "is", "Introspect": "s"}


def test_guests_of_all_vlans_reach_the_host_under_names_of_their_own() -> None:
    rules = switch.flows(
        taps=["tap0", "tap64"],
        address=IPv4Address("10.0.2.2"),
        rewrite=IPv4Address("10.1.0.0"),
        mac="02:00:0a:00:02:02",
    )
    assert rules[2] == (
        'table=0,priority=100,in_port="tap0",arp,arp_tpa=10.0.2.2,actions='
        "move:NXM_OF_ARP_SPA[]->NXM_NX_REG0[],load:0xa010000->NXM_OF_ARP_SPA[],"
        "move:NXM_OF_ETH_SRC[0..7]->NXM_OF_ARP_SPA[0..7],"
        "learn(table=1,priority=100,idle_timeout=3600,in_port=LOCAL,eth_type=0x806,"
        "NXM_OF_ARP_TPA[]=NXM_OF_ARP_SPA[],load:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
        "load:NXM_NX_REG0[]->NXM_OF_ARP_TPA[],output:NXM_OF_IN_PORT[]),LOCAL"
    )
    assert all("dl_dst=02:00:0a:00:02:02" in rule for rule in (rules[3], rules[5]))
    assert all('in_port="tap64"' in rule and "load:0xa014000->" in rule for rule in rules[4:])


def test_no_tap_device_has_more_addresses_than_there_are() -> None:
    """What is above their network's 16 bits would be another's."""
    assert max(int(name.removeprefix("tap")) for name in tap.devices(catalogue.MAX_WORKERS)) < 256


@pytest.mark.parametrize(
    ("name", "guest"), [("worker-tap", "255.255.255.0"), ("worker-tap-fedora", "255.255.255.255")]
)
def test_connections_are_counted_by_what_a_guest_cannot_choose(
    tmp_path: Path, programs: machine.Programs, name: str, guest: str
) -> None:
    programs.answers |= {
        "ip -json link": "[]",
        "ip -json route": json.dumps([{"dst": "default", "dev": "ens5"}]),
    }
    tap.set_up(machine.host(tmp_path, name))
    (call,) = programs.started("nft")
    assert call[1:4] == ("--define=uplink=ens5", f"--define=guest={guest}", "--file")
