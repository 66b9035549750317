from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network

from localcloud.aws.ports import Rule
from localcloud.network import Link, ruleset
from tests.localcloud.samples import firewall, rule
from tests.prerequisites import missing

DATABASE = firewall("10.99.128.10", rule("tcp", 5432, "10.99.128.20/32"), egress=())
WEBUI = firewall(
    "10.99.128.20", rule("tcp", 80, "10.99.0.9/32", "10.99.1.0/24"), rule("tcp", 873, "10.99.1.5/32")
)
EVERYTHING = Rule(protocol="all", first_port=0, last_port=65535, peers=(IPv4Network("0.0.0.0/0"),))
SAMPLE = ruleset(firewalls=(WEBUI, DATABASE), hop_limits={})


def chain(name: str, rules: str = SAMPLE) -> list[str]:
    lines = iter(rules.splitlines())
    next(line for line in lines if line.startswith(f"chain {name} "))
    return [line.strip() for line in iter(lines.__next__, "}")]


def test_what_a_group_lets_in_and_out() -> None:
    assert chain("in-10-99-128-20") == [
        "ip saddr { 10.99.0.9/32, 10.99.1.0/24 } tcp dport 80-80 accept",
        "ip saddr { 10.99.1.5/32 } tcp dport 873-873 accept",
        "drop",
    ]
    assert chain("out-10-99-128-20") == ["ip daddr { 0.0.0.0/0 } goto destination", "drop"]
    assert chain("out-10-99-128-10") == ["drop"]


def test_both_ends_have_a_say() -> None:
    assert chain("connection")[-2:] == [
        "ip saddr vmap { 10.99.128.10 : goto out-10-99-128-10, 10.99.128.20 : goto out-10-99-128-20 }",
        "drop",
    ]
    assert chain("destination")[-2:] == [
        "ip daddr vmap { 10.99.128.10 : goto in-10-99-128-10, 10.99.128.20 : goto in-10-99-128-20 }",
        "drop",
    ]


def test_kinds_of_rules() -> None:
    rules = (
        EVERYTHING,
        Rule(protocol="udp", first_port=0, last_port=65535, peers=(IPv4Network("10.0.0.0/8"),)),
        rule("udp", 53, "10.0.0.0/8", "10.1.0.0/16"),
        rule("icmp", 0, "10.0.0.0/8"),
        Rule(protocol="47", first_port=0, last_port=65535, peers=(IPv4Network("10.99.1.6/32"),)),
        rule("tcp", 22),
    )
    text = ruleset(firewalls=(firewall("10.99.1.5", *rules),), hop_limits={})
    assert chain("in-10-99-1-5", text) == [
        "ip saddr { 0.0.0.0/0 } accept",
        "ip saddr { 10.0.0.0/8 } meta l4proto udp accept",
        "ip saddr { 10.0.0.0/8 } udp dport 53-53 accept",
        "ip saddr { 10.0.0.0/8 } meta l4proto icmp accept",
        "ip saddr { 10.99.1.6/32 } meta l4proto 47 accept",
        "drop",
    ]


def test_replies_of_the_metadata_service_go_as_far_as_the_instance_allows() -> None:
    limits = {IPv4Address("10.99.1.5"): 2, IPv4Address("10.99.1.6"): 1}
    text = ruleset(firewalls=(), hop_limits=limits)
    assert "ip saddr 169.254.169.254 ip daddr 10.99.1.5 ip ttl set 2" in text
    assert "10.99.1.6" not in text


def test_order_of_the_firewalls_does_not_matter() -> None:
    assert ruleset(firewalls=(DATABASE, WEBUI), hop_limits={}) == SAMPLE


def test_names_of_links_are_short_and_unique() -> None:
    names = {
        Link(name="ens5", address=IPv4Address(address), mac="", namespace="i-1").outer
        for address in ("10.99.1.5", "10.99.15.1", "255.255.255.255")
    }
    assert len(names) == 3
    assert max(map(len, names)) <= 15


def test_nftables_takes_the_rules() -> None:
    if os.geteuid() != 0 or not shutil.which("nft"):
        missing("nftables checks rules only for root, with nft installed")
    limits = {IPv4Address("10.99.1.5"): 2}
    gre = Rule(protocol="47", first_port=0, last_port=65535, peers=(IPv4Network("10.99.1.6/32"),))
    everything = firewall("10.99.1.5", EVERYTHING, rule("icmp", 0, "10.0.0.0/8", "10.1.0.0/16"), gre)
    for text in (
        ruleset(firewalls=(), hop_limits={}),
        ruleset(firewalls=(WEBUI, DATABASE, everything), hop_limits=limits),
    ):
        done = subprocess.run(
            ["unshare", "--net", "nft", "--file", "-"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.stderr == ""
        assert done.returncode == 0
