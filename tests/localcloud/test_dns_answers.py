from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from dnslib import RCODE, DNSRecord

from localcloud.aws.ports import Record, Zone
from localcloud.dns import Names, is_known, reply, visible


def record(name: str, kind: str, *values: str) -> Record:
    return Record(name=name, type=kind, ttl=60, values=values)


PRIVATE = Zone(
    id="Z1",
    name="local.openqa.internal.",
    vpcs=("vpc-1",),
    records=(
        record("webui.local.openqa.internal.", "A", "10.99.128.20"),
        record("alias.local.openqa.internal.", "CNAME", "webui.local.openqa.internal"),
        record("loop.local.openqa.internal.", "CNAME", "loop.local.openqa.internal."),
        record("a.deep.local.openqa.internal.", "TXT", '"some text"'),
    ),
)
PUBLIC = Zone(
    id="Z2", name="openqa.internal.", vpcs=(), records=(record("openqa.internal.", "A", "192.0.2.1"),)
)
NAMES = Names(
    zones=(PUBLIC, PRIVATE),
    hosts={"ip-10-99-1-5.ec2.internal.": (IPv4Address("10.99.1.5"),)},
)


def ask(name: str, kind: str = "A") -> tuple[str, list[str]]:
    answer = reply(NAMES, DNSRecord.question(name, kind))
    return RCODE[answer.header.rcode], [str(line.rdata) for line in answer.rr]


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("webui.local.openqa.internal", "A", ["10.99.128.20"]),
        ("WebUI.Local.openqa.internal", "A", ["10.99.128.20"]),
        ("alias.local.openqa.internal", "A", ["webui.local.openqa.internal.", "10.99.128.20"]),
        ("alias.local.openqa.internal", "CNAME", ["webui.local.openqa.internal."]),
        ("a.deep.local.openqa.internal", "TXT", ['"some text"']),
        ("openqa.internal", "A", ["192.0.2.1"]),
        ("ip-10-99-1-5.ec2.internal", "A", ["10.99.1.5"]),
        ("secretsmanager.us-east-1.amazonaws.com", "A", ["198.18.0.1"]),
        ("bucket.s3.us-east-1.amazonaws.com", "A", ["198.18.0.1"]),
        # Names that exist, but not with this type.
        ("webui.local.openqa.internal", "AAAA", []),
        ("deep.local.openqa.internal", "A", []),
        ("sts.amazonaws.com", "AAAA", []),
    ],
)
def test_known_names(name: str, kind: str, values: list[str]) -> None:
    assert ask(name, kind) == ("NOERROR", values)


@pytest.mark.parametrize(
    "name",
    [
        "www.debian.org",
        "nothing.local.openqa.internal",
        "notamazonaws.com",
        "ip-10-99-1-6.ec2.internal",
        "com",
    ],
)
def test_everything_else_does_not_exist(name: str) -> None:
    assert ask(name) == ("NXDOMAIN", [])


def test_a_circle_of_aliases_ends() -> None:
    code, values = ask("loop.local.openqa.internal")
    assert code == "NOERROR"
    assert len(values) < 10


def test_a_private_zone_is_seen_from_its_networks_alone() -> None:
    assert visible((PRIVATE, PUBLIC), "vpc-1") == (PRIVATE, PUBLIC)
    assert visible((PRIVATE, PUBLIC), "vpc-2") == (PUBLIC,)
    assert visible((PRIVATE, PUBLIC), None) == (PUBLIC,)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("no.such.name.local.openqa.internal.", True),
        ("WebUI.local.openqa.internal.", True),
        ("ip-10-99-1-5.ec2.internal.", True),
        ("sts.amazonaws.com.", True),
        ("example.org.", False),
        ("myopenqa.internal.", False),
    ],
)
def test_whose_names_are_passed_on(name: str, own: bool) -> None:
    assert is_known(NAMES, name) is own
