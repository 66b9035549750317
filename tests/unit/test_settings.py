"""Environment files: those shipped load, and every mistake is told in one line."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

import settings
from fleet import catalogue
from settings import (
    Architecture,
    Content,
    Environment,
    Fleet,
    Network,
    SettingsError,
    content,
    load,
    names,
    reading,
)
from settings.fields import Settings, Text
from settings.messages import Build
from settings.model import FLEETS
from settings.problem import allowed
from tests.environments import SHIPPED

BASE = """
kind = "dev"
account = "111122223333"
region = "us-east-1"
trusted = ["203.0.113.0/24"]

[network]
cidr = "10.40.0.0/16"
availability_zones = ["us-east-1a", "us-east-1b"]
zone = "us-east-1a"

[image]
x86_64 = "/aws/service/debian/release/13/latest/amd64"

[domain]
name = "openqa.example.org"
hosted_zone = "example.org"
hosted_zone_id = "Z00000000EXAMPLE"

[sign_in]
method = "OAuth2"
provider = "fedora"
id_from = "id"

[database]
instance_type = "t3.medium"
address = "10.40.128.10"
volume_gib = 20

[webui]
instance_type = "t3.large"
address = "10.40.128.20"
volume_gib = 100

[content]
profile = "sample"

[[fleets]]
name = "nested"
architecture = "x86_64"
classes = ["qemu_x86_64"]
instance_types = ["m8i.2xlarge"]
virtualization = "nested"
max = 2

[[fleets]]
name = "metal"
architecture = "x86_64"
classes = ["qemu_x86_64"]
instance_types = ["m5.metal"]
virtualization = "metal"
"""

PAGES = tuple(
    Path(content.__file__).parents[1] / "docs" / f"{name}.md" for name in ("operating", "content", "backups")
)
SAMPLE = Path(content.__file__).parents[1] / "userdata" / "content" / "sample"
DATABASE = 'instance_type = "t3.medium"\naddress = "10.40.128.10"\nvolume_gib = 20\n'
RDS = '[database.rds]\ninstance_class = "db.t4g.medium"\nvolume_gib = 20\n'

OWN_GROUPS = 'tests = "https://example.org/tests.git"\nloader = "openqa"\ntemplates = ["groups/*.yaml"]'

Edit = tuple[str, str] | str  # what stands in BASE and what to put there, or text to put in front


def write(directory: Path, *edits: Edit, name: str = "here") -> Path:
    text = BASE
    for edit in edits:
        if isinstance(edit, str):
            text = f"{edit}\n{text}"
        else:
            assert edit[0] in text, f"{edit[0]!r} is not in BASE"
            text = text.replace(*edit, 1)
    folder = directory / "environments"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text)
    return folder


def refusal(directory: Path, *edits: Edit) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load("here", write(directory, *edits))
    return str(caught.value).replace(f"{directory}/", "").splitlines()


def test_base_loads(tmp_path: Path) -> None:
    environment = load("here", write(tmp_path))
    assert environment.name == "here"
    assert environment.disposable


@pytest.mark.parametrize("name", names())
def test_environments_load(name: str) -> None:
    environment = load(name)
    assert environment.name == name
    assert environment.disposable == (environment.kind in ("local", "dev"))
    for fleet in environment.fleets:
        assert all(fleet.workers(kind) >= 1 for kind in fleet.instance_types)


def test_environments_that_are_shipped() -> None:
    assert set(SHIPPED) <= set(names())
    assert load("fedora").os == "fedora"


@pytest.mark.parametrize(("name", "tap"), [("production", "nested"), ("fedora", "metal")])
def test_all_kinds_of_fleets_are_shipped(name: str, tap: str) -> None:
    kinds = [
        (one.architecture, one.virtualization, one.network, sorted({"tap", "tap2"} & set(one.classes)))
        for one in load(name).fleets
    ]
    assert sorted(kinds) == sorted(
        [
            ("x86_64", "nested", "user", []),
            ("x86_64", "metal", "user", []),
            ("x86_64", tap, "tap", ["tap"]),
            ("x86_64", tap, "tap", ["tap2"]),
            ("aarch64", "metal", "tap", ["tap", "tap2"]),
        ]
    )


@pytest.mark.parametrize("name", ["", "nowhere", "../environments/dev", "dev.toml", "\0", "\ud800"])
def test_unknown_environment_lists_those_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match=f"allowed: {', '.join(names())}") as caught:
        load(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["nowhere", "here.toml"])
def test_a_folder_that_is_none_is_told(tmp_path: Path, place: str) -> None:
    folder = write(tmp_path) / place
    with pytest.raises(SettingsError) as caught:
        load("here", folder)
    assert str(caught.value).startswith(f"{folder}: there is no such folder; allowed: one with NAME.toml")


def test_no_environments_at_all(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"allowed: none, .* holds no \*\.toml"):
        load("here", tmp_path)


TAP: Edit = ('classes = ["qemu_x86_64"]\n', 'classes = ["qemu_x86_64", "tap"]\nnetwork = "tap"\n')
FEDORA_TESTS: Edit = ('profile = "sample"', 'profile = "fedora"')
ARM_FLEET: Edit = ('architecture = "x86_64"', 'architecture = "aarch64"')
OPENSUSE_TAPS: Edit = ("[content]", '[content]\ntap_address = "10.0.2.2/15"')
ARM_IMAGE: Edit = ("[image]", '[image]\naarch64 = "/aws/service/debian/release/13/latest/arm64"')
CUSTOM = """provider = "custom"
authorize_url = "https://id.example.org/authorize"
token_url = "https://id.example.org/token"
user_url = "https://id.example.org/user"
token_scope = "openid"
token_label = "Bearer"
nickname_from = "name"
unique_name = "example"
"""


def set_to(key: str, old: str, new: str) -> Edit:
    return (f"{key} = {old}", f"{key} = {new}")


LOCAL = (set_to("kind", '"dev"', '"local"'), set_to("account", '"111122223333"', '"123456789012"'))
CHINA = (
    set_to("region", '"us-east-1"', '"cn-north-1"'),
    set_to("availability_zones", '["us-east-1a", "us-east-1b"]', '["cn-north-1a", "cn-north-1b"]'),
    ('zone = "us-east-1a"', 'zone = "cn-north-1a"'),
)

# What is edited, and what the one line about it says: key with value, and what is allowed.
REFUSALS: dict[str, tuple[list[Edit], list[str]]] = {
    "toml syntax": (["kind = = 1"], ["not valid TOML", "line 1"]),
    "missing key": ([('region = "us-east-1"\n', "")], ["region is missing", "an AWS region"]),
    "missing choice": ([('kind = "dev"\n', "")], ["kind is missing", '"local" or "dev" or "production"']),
    "umlauts": ([('["qemu_x86_64"]', '["größe"]')], ['fleets.nested.classes.1 = "größe"; ']),
    "what cannot be printed": (
        [set_to("region", '"us-east-1"', r'"a\n\u0000\u007f\u2028\u202e\U000e0001\u00a0b"')],
        [r'region = "a\n\u0000\u007f\u2028\u202e\udb40\udc01\u00a0b"; '],
    ),
    "a key that cannot be printed": (['"a\\u2028" = 1'], [r'here.toml: "a\u2028" = 1: unknown key']),
    "missing table": (
        [('[content]\nprofile = "sample"\n', "")],
        ["content is missing; allowed: a table [content] with profile, distri, tests"],
    ),
    "missing key of a table": (
        [('zone = "us-east-1a"\n', "")],
        ["network.zone is missing", "availability_zones"],
    ),
    "missing key of a fleet": (
        [('classes = ["qemu_x86_64"]\n', "")],
        ["fleets.nested.classes is missing", "a list of worker classes"],
    ),
    "unknown key": (["colour = 1"], ["colour = 1: unknown key", "allowed: kind, account, region"]),
    "unknown key of a table": (
        [("[network]", "[network]\ncolour = 1")],
        ["network.colour = 1: unknown key", "cidr, availability_zones, zone, egress"],
    ),
    "unknown key of a fleet": (
        [("max = 2", "max = 2\nmaximum = 2")],
        ["fleets.nested.maximum = 2: unknown key", "allowed: name, architecture"],
    ),
    "unknown table": ([("[content]", "[colour]\n[content]")], ["colour = {}: unknown key", "content"]),
    "misspelt key": (["pubilc = true"], ["pubilc = true: unknown key, perhaps public; allowed: kind"]),
    "misspelt key of a fleet": (
        [("max = 2", "max = 2\nspot_shares = 0.5")],
        ["fleets.nested.spot_shares = 0.5: unknown key, perhaps spot_share; allowed: name"],
    ),
    "misspelt table": (
        [("[content]", "[backup]\n[content]")],
        ["backup = {}: unknown key, perhaps backups; allowed: kind"],
    ),
    "key of the file below a table": (
        [("max = 2", 'max = 2\nos = "fedora"')],
        ['fleets.nested.os = "fedora": unknown key in this table; a key of the file itself stands above all'],
    ),
    "name in the file": (['name = "other"'], ['name = "other": unknown key', "kind"]),
    "table for text": ([set_to("region", '"us-east-1"', "{}")], ["region = {}", "an AWS region"]),
    "text for a table": (
        [('[content]\nprofile = "sample"\n', ""), 'content = "sample"'],
        ['content = "sample"', "allowed: a table [content] with profile"],
    ),
    "text for a switch": (['public = "yes"'], ['public = "yes"', "true or false"]),
    "kind": ([set_to("kind", '"dev"', '"test"')], ['kind = "test"', '"local" or "dev" or "production"']),
    **{
        f"content, {name}": ([('profile = "sample"\n', f'profile = "sample"\n{text}\n')], said)
        for name, (text, said) in {
            "address": (
                'tests = "git@example.org:tests.git"',
                ['content.tests = "git@example.org:tests.git"', "https:// address of a git repository"],
            ),
            "address without TLS": (
                'tests = "http://example.org/tests.git"',
                [
                    'content.tests = "http://example.org/tests.git"',
                    "anyone on the way",
                    "an https:// address",
                ],
            ),
            "templates of their own for another loader": (
                'tests = "https://example.org/own.git"\n'
                'templates_repository = "https://example.org/groups.git"',
                [
                    "content.templates_repository",
                    "takes them from the tests' repository",
                    'loader = "openqa"',
                ],
            ),
            "needles alone": (
                'needles = "https://example.org/needles.git"',
                ["content.needles", "the sample's needles", "nothing without content.tests"],
            ),
            "ref": ('tests_ref = "--upload-pack=x"', ['tests_ref = "--upload-pack=x"', "a branch, a tag"]),
            "packages": (
                'worker_packages = ["libxml-libxml-perl", "--allow-downgrades"]',
                ['content.worker_packages.2 = "--allow-downgrades"', "such as", "libxml-libxml-perl"],
            ),
            "distribution": ('distri = "../x"', ['content.distri = "../x"', "lowercase letters"]),
            **{
                f"tap address {address}": (
                    f"tap_address = {address}",
                    [f"content.tap_address = {address}", *told],
                )
                for address, told in {
                    "10": ["an IPv4 address with the prefix of its network"],
                    '"10.0.2.2"': ["; allowed: an IPv4 address with the prefix of its network"],
                    '"10.0.2.2/33"': ["an IPv4 address with the prefix of its network", "10.0.2.2/15"],
                    '"fe80::2/15"': ["an IPv4 address with the prefix of its network"],
                    '"11.0.2.2/15"': ["not in a private network", "inside 10.0.0.0/8"],
                    '"10.0.2.2/24"': ["half of the network", "an address with prefix 15"],
                    '"10.1.2.2/15"': [
                        "the host knows guests by those of 10.1.0.0/16",
                        "10.0.0.1 to 10.0.255.255",
                    ],
                    '"10.0.0.0/15"': ["10.0.0.0 is not a host's", "10.0.0.1 to 10.0.255.255 with prefix 15"],
                }.items()
            },
            "loader": ('loader = "perl"', ['content.loader = "perl"', '"fifloader" or "openqa"']),
            "templates outside": (
                'templates = ["../x.json"]',
                ['content.templates.1 = "../x.json"', ".json or .yaml"],
            ),
            "templates of nothing": (
                'templates = ["x.yaml"]',
                ["content.templates", "no repository to take them from", "nothing without content.tests"],
            ),
            "nothing to load": (
                'tests = "https://example.org/tests.git"\nloader = "openqa"',
                ["content.templates = []", 'loader "openqa" has nothing to load', "one file or more"],
            ),
            "a file for another loader": (
                'tests = "https://example.org/tests.git"\nloader = "fifloader"\ntemplates = ["a.yaml"]',
                ['content.templates = "a.yaml"', 'not a file for loader "fifloader"', "end in .json"],
            ),
            "a file in Fedora's format": (
                'tests = "https://example.org/tests.git"\nloader = "openqa"\ntemplates = ["a.fif.json"]',
                ['content.templates = "a.fif.json"', 'allowed: loader = "fifloader", or'],
            ),
            "more distributions without tests": (
                'more_distris = ["other"]',
                [
                    'content.more_distris = "other": the sample\'s tests are only for itself',
                    "without content.tests",
                ],
            ),
            "more distributions, the first": (
                f'{OWN_GROUPS}\ndistri = "own"\nmore_distris = ["own", "x"]',
                ['content.more_distris = "own": it has tests already', "any but own and sample"],
            ),
            "more distributions, twice": (
                f'{OWN_GROUPS}\ndistri = "own"\nmore_distris = ["x", "x"]',
                ['content.more_distris = "x": listed twice'],
            ),
            **{
                f"group names, {name}": (f"{OWN_GROUPS}\ngroup_names = {{ {names} }}", said)
                for name, (names, said) in {
                    "no file": (
                        '"groups/two.yaml" = "Two", "one.yaml" = "One"',
                        [
                            'content.group_names."one.yaml" = "One": not a file of',
                            'files of ["groups/*.yaml"]',
                        ],
                    ),
                    "in a folder below": (
                        '"groups/more/one.yaml" = "One"',
                        ['content.group_names."groups/more/one.yaml" = "One": not a file of content.'],
                    ),
                    "tables": (
                        '"groups/one.json" = "One"',
                        ['content.group_names."groups/one.json" = "One"', "files that end in .yaml"],
                    ),
                    "one for two": (
                        '"groups/one.yaml" = "A", "groups/two.yaml" = "A"',
                        ['content.group_names."groups/two.yaml" = "A": groups/one.yaml has it too'],
                    ),
                    "no name": (
                        '"groups/one.yaml" = ""',
                        ['content.group_names."groups/one.yaml" = ""', "(one line without =)", "Example 1.0"],
                    ),
                }.items()
            },
            "group names, another loader": (
                'tests = "https://example.org/tests.git"\ngroup_names = { "one.yaml" = "One" }',
                [
                    'content.group_names."one.yaml" = "One": loader "scenarios" makes no job groups',
                    'loader = "openqa"',
                ],
            ),
            "refresh": ("refresh_minutes = 0", ["content.refresh_minutes = 0", "from 1 to 360"]),
            "limit": (
                'asset_limits = { "a group" = -1 }',
                ['content.asset_limits."a group" = -1', "whole numbers of GB"],
            ),
            "classes": ("classes = { tap = 0 }", ["content.classes.tap = 0", "{ tap = 6 }"]),
            "a class that is none": (
                'classes = { "größe" = 6 }',
                ['content.classes."größe" = 6: the table takes no such key; allowed: a table of'],
            ),
            **{
                f"a class that is called like a key, {name}": (
                    f"classes = {{ {name} = 0 }}",
                    [f"content.classes.{name} = 0; allowed: a table of worker classes"],
                )
                for name in ("tests", "profile")
            },
            "cloudinit": ('cloudinit = "yes"', ['content.cloudinit = "yes"', "true or false"]),
        }.items()
    },
    "backups, days": (
        [("[content]", "[backups]\nkeep_days = 0\n[content]")],
        ["backups.keep_days = 0", "from 1 to 3650"],
    ),
    "backups, lock": (
        [("[content]", "[backups]\nkeep_days = 7\nobject_lock_days = 8\n[content]")],
        ["backups.object_lock_days = 8: more than backups.keep_days = 7", "1 to 7"],
    ),
    "backups, destination": (
        [("[content]", '[backups]\nreplicate_to = "elsewhere"\n[content]')],
        ['backups.replicate_to = "elsewhere"', "the ARN of a bucket"],
    ),
    "backups, hours": (
        [("[content]", "[backups]\nsnapshot_hours = 5\n[content]")],
        ["backups.snapshot_hours = 5", "1, 2, 3, 4, 6, 8, 12 or 24 hours"],
    ),
    "backups, snapshots": (
        [("[content]", "[backups]\nsnapshots = 1001\n[content]")],
        ["backups.snapshots = 1001", "0 (none are taken) to 1000"],
    ),
    "os": (['os = "windows"'], ['os = "windows"', '"debian" or "fedora"']),
    "account": ([set_to("account", '"111122223333"', '"1234"')], ['account = "1234"', "12 digits"]),
    "account, number": (
        [set_to("account", '"111122223333"', "111122223333")],
        ["account = 111122223333", "12 digits, in quotes"],
    ),
    "region": ([set_to("region", '"us-east-1"', '"Virginia"')], ['region = "Virginia"', "us-east-1"]),
    "cidr, host bits": (
        [set_to("cidr", '"10.40.0.0/16"', '"10.40.0.1/16"')],
        ['network.cidr = "10.40.0.1/16"', "host bits are zero"],
    ),
    "cidr, number": ([set_to("cidr", '"10.40.0.0/16"', "10")], ["network.cidr = 10", "an IPv4 range"]),
    "cidr, too large": (
        [set_to("cidr", '"10.40.0.0/16"', '"10.64.0.0/15"')],
        ['network.cidr = "10.64.0.0/15"', "at most a /16", "from /16 to /23"],
    ),
    "cidr, too small": (
        [set_to("cidr", '"10.40.0.0/16"', '"10.40.0.0/24"')],
        ['network.cidr = "10.40.0.0/24"', "from /16 to /23"],
    ),
    "cidr, public": (
        [set_to("cidr", '"10.40.0.0/16"', '"203.0.112.0/20"')],
        ['network.cidr = "203.0.112.0/20"', "not a private range", "10.0.0.0/8"],
    ),
    **{
        f"cidr, {reserved}": (
            [set_to("cidr", '"10.40.0.0/16"', f'"{ours}"')],
            [f'network.cidr = "{ours}": overlaps {reserved}', "a range clear of 172.16.0.0/15"],
        )
        for ours, reserved in {
            "172.16.0.0/16": "172.16.0.0/15",
            "172.17.128.0/20": "172.16.0.0/15",
            "10.0.0.0/16": "10.0.2.0/24",
            "10.1.4.0/22": "10.1.0.0/16",
            "10.88.0.0/16": "10.88.0.0/16",
            "192.168.0.0/16": "192.168.122.0/24",
        }.items()
    },
    "cidr, another network of taps": (
        [OPENSUSE_TAPS, set_to("cidr", '"10.40.0.0/16"', '"10.0.128.0/20"')],
        ['network.cidr = "10.0.128.0/20": overlaps 10.0.0.0/15, the tap network', "clear of 10.0.0.0/15"],
    ),
    "one zone": (
        [set_to("availability_zones", '["us-east-1a", "us-east-1b"]', '["us-east-1a"]')],
        ['network.availability_zones = ["us-east-1a"]', "two or more different zones"],
    ),
    "one zone twice": (
        [set_to("availability_zones", '["us-east-1a", "us-east-1b"]', '["us-east-1a", "us-east-1a"]')],
        ["network.availability_zones", "one of them twice", "two or more different zones"],
    ),
    "cidr, everything": (
        [set_to("cidr", '"10.40.0.0/16"', '"0.0.0.0/0"')],
        ['network.cidr = "0.0.0.0/0": a VPC is at most a /16', "from /16 to /23"],
    ),
    "no zones": (
        [set_to("availability_zones", '["us-east-1a", "us-east-1b"]', "[]")],
        ["network.availability_zones = []", "two or more different zones"],
    ),
    "zone of another region": (
        [set_to("availability_zones", '["us-east-1a", ', '["us-east-1a", "eu-west-1a", ')],
        ['network.availability_zones = "eu-west-1a"', "us-east-1a to us-east-1h"],
    ),
    "zone that is none": (
        [set_to("availability_zones", '["us-east-1a", ', '["us-east-1a", "us-east-1-bos-1a", ')],
        ['network.availability_zones = "us-east-1-bos-1a"', "us-east-1a to us-east-1h"],
    ),
    "hosts' zone": (
        [set_to("zone", '"us-east-1a"\n', '"us-east-1f"\n')],
        ['network.zone = "us-east-1f"', "us-east-1a, us-east-1b"],
    ),
    "egress": (
        [("[network]", '[network]\negress = "vpn"')],
        ['network.egress = "vpn"', '"nat" or "public-ip"'],
    ),
    "address, form": (
        [set_to("address", '"10.40.128.10"', '"10.40.128.300"')],
        ['database.address = "10.40.128.300"', "an IPv4 address in quotes"],
    ),
    "address of the public subnet": (
        [set_to("address", '"10.40.128.10"', '"10.40.0.10"')],
        ['database.address = "10.40.0.10"', "10.40.128.0/20", "10.40.128.4 to 10.40.143.254"],
    ),
    "address of another zone": (
        [set_to("address", '"10.40.128.20"', '"10.40.144.20"')],
        ['webui.address = "10.40.144.20"', "10.40.128.4 to 10.40.143.254"],
    ),
    **{
        f"reserved address {address}": (
            [set_to("address", '"10.40.128.20"', f'"{address}"')],
            [f'webui.address = "{address}"', "10.40.128.4 to 10.40.143.254"],
        )
        for address in ("10.40.128.0", "10.40.128.1", "10.40.128.2", "10.40.128.3", "10.40.143.255")
    },
    "one address twice": (
        [set_to("address", '"10.40.128.20"', '"10.40.128.10"')],
        ['webui.address = "10.40.128.10"', "the database host's address", "two different addresses"],
    ),
    "ami": (
        [set_to("x86_64", '"/aws/service/debian/release/13/latest/amd64"', '"debian-13"')],
        ['image.x86_64 = "debian-13"', "an AMI id", "SSM parameter"],
    ),
    "ami, short": (
        [set_to("x86_64", '"/aws/service/debian/release/13/latest/amd64"', '"ami-123"')],
        ['image.x86_64 = "ami-123"', "8 or 17 hex digits"],
    ),
    "domain outside its zone": (
        [set_to("name", '"openqa.example.org"', '"openqa.example.com"')],
        ['domain.name = "openqa.example.com"', "a name that ends in .example.org"],
    ),
    "domain that only ends alike": (
        [set_to("name", '"openqa.example.org"', '"badexample.org"')],
        ['domain.name = "badexample.org"', "a name that ends in .example.org"],
    ),
    "domain, form": (
        [set_to("name", '"openqa.example.org"', '"https://openqa.example.org"')],
        ["domain.name", "a DNS name"],
    ),
    "hosted zone id": (
        [set_to("hosted_zone_id", '"Z00000000EXAMPLE"', '"example.org"')],
        ['domain.hosted_zone_id = "example.org"', "Z and capital letters or digits"],
    ),
    "public without domain": (
        [
            "public = true",
            ('[domain]\nname = "openqa.example.org"\nhosted_zone = "example.org"\n', ""),
            ('hosted_zone_id = "Z00000000EXAMPLE"\n', ""),
        ],
        ["public = true", "HTTPS", "add a [domain]"],
    ),
    "trusted, not a range": (
        [set_to("trusted", '["203.0.113.0/24"]', '["home"]')],
        ['trusted.1 = "home"', "a list of IPv4 ranges"],
    ),
    "trusted, not a list": (
        [set_to("trusted", '["203.0.113.0/24"]', '"203.0.113.0/24"')],
        ['trusted = "203.0.113.0/24"', "a list of IPv4 ranges"],
    ),
    "trusted, the world": (
        [set_to("trusted", '["203.0.113.0/24"]', '["0.0.0.0/0"]')],
        ['trusted = "0.0.0.0/0"', "/8 or smaller, or public = true instead"],
    ),
    "trusted, half the world": (
        [set_to("trusted", '["203.0.113.0/24"]', '["128.0.0.0/1"]')],
        ['trusted = "128.0.0.0/1"', "/8 or smaller, or public = true instead"],
    ),
    "trusted, nobody": (
        [set_to("trusted", '["203.0.113.0/24"]', "[]")],
        ["trusted = []", "at least one range, or public = true"],
    ),
    "trusted, not said": (
        [('trusted = ["203.0.113.0/24"]\n', "")],
        ["trusted is missing: nobody could reach the web UI; allowed: at least one range, or public = true"],
    ),
    "developers, the world": (
        ["public = true", 'developers = ["0.0.0.0/0"]'],
        ['developers = "0.0.0.0/0"', "ranges of /8 or smaller"],
    ),
    "developers, a large part of the world": (
        ['developers = ["10.0.0.0/7"]'],
        ['developers = "10.0.0.0/7"', "ranges of /8 or smaller"],
    ),
    "fake sign-in": (
        [('method = "OAuth2"\nprovider = "fedora"', 'method = "Fake"')],
        ['sign_in.method = "Fake"', 'or kind = "local"'],
    ),
    "sign-in method": (
        [set_to("method", '"OAuth2"', '"OpenID"')],
        ['sign_in.method = "OpenID"', '"OAuth2" or "Fake"'],
    ),
    "sign-in without provider": (
        [('provider = "fedora"\n', "")],
        ["sign_in.provider is missing", '"fedora" or "custom"'],
    ),
    "custom sign-in, key missing": (
        [('provider = "fedora"\n', CUSTOM), ('token_url = "https://id.example.org/token"\n', "")],
        ["sign_in.token_url is missing", "an https:// address"],
    ),
    "custom sign-in, a port that the host cannot reach": (
        [
            ('provider = "fedora"\n', CUSTOM),
            ("https://id.example.org/user", "https://id.example.org:8443/user"),
        ],
        ['sign_in.user_url = "https://id.example.org:8443/user"', "without a port"],
    ),
    "administrators where everybody is one": (
        [
            *LOCAL,
            ('method = "OAuth2"\nprovider = "fedora"', 'method = "Fake"\nadministrators = ["me"]'),
        ],
        ['sign_in.administrators = ["me"]', 'or method = "OAuth2"'],
    ),
    "administrator": (
        [('provider = "fedora"\n', 'provider = "fedora"\nadministrators = ["it\'s me"]\n')],
        ['sign_in.administrators.1 = "it\'s me"', "such as account names"],
    ),
    "custom sign-in, no https": (
        [('provider = "fedora"\n', CUSTOM), ("https://id.example.org/token", "http://id.example.org/token")],
        ['sign_in.token_url = "http://id.example.org/token"', "an https:// address"],
    ),
    "database type": (
        [set_to("instance_type", '"t3.medium"', '"t3.medum"')],
        ['database.instance_type = "t3.medum": unknown', "such as t3.medium"],
    ),
    "web UI type without image": (
        [set_to("instance_type", '"t3.large"', '"t4g.large"')],
        ['webui.instance_type = "t4g.large"', "image.aarch64"],
    ),
    "database without a volume": (
        [("volume_gib = 20\n", "")],
        ["database.volume_gib is missing", "a whole number of GiB from 1 to 65536"],
    ),
    "database engine": (
        [('instance_type = "t3.medium"', 'engine = "aurora"\ninstance_type = "t3.medium"')],
        ['database.engine = "aurora"', '"container" or "rds"'],
    ),
    "rds without its table": (
        [('instance_type = "t3.medium"', 'engine = "rds"\ninstance_type = "t3.medium"')],
        ["database.rds is missing", "a table [database.rds] with instance_class, volume_gib"],
    ),
    "rds with half a host": (
        [(DATABASE, f'engine = "rds"\ninstance_type = "t3.medium"\nvolume_gib = 20\n{RDS}')],
        ["database.address is missing", "an IPv4 address in quotes"],
    ),
    "rds class": (
        [(DATABASE, f'engine = "rds"\n{RDS}'.replace("db.t4g", "t4g"))],
        ['database.rds.instance_class = "t4g.medium"', "such as db.m7g.large"],
    ),
    "rds key": (
        [(DATABASE, f'engine = "rds"\n{RDS}multi_az = false\n')],
        ["database.rds.multi_az = false: unknown key", "instance_class, volume_gib"],
    ),
    "rds on one machine": (
        [(DATABASE, f'engine = "rds"\n{RDS}'), *LOCAL],
        ['database.rds = {"instance_class": "db.t4g.medium", "volume_gib": 20}: one machine has no RDS'],
    ),
    "rds in China": (
        [
            (DATABASE, f'engine = "rds"\n{RDS}'),
            *CHINA,
        ],
        ["database.rds", "RDS's certificates for cn-north-1"],
    ),
    "rds keeps no longer": (
        [(DATABASE, f'engine = "rds"\n{RDS}\n[backups]\nkeep_days = 36\n')],
        ["backups.keep_days = 36: longer than RDS", "1 to 35"],
    ),
    "volume": ([set_to("volume_gib", "20", "0")], ["database.volume_gib = 0", "from 1 to 65536"]),
    "volume, too large": ([set_to("volume_gib", "100", "65537")], ["webui.volume_gib = 65537", "1 to 65536"]),
    "volume's throughput, too little": (
        [("volume_gib = 100", "volume_gib = 100\nvolume_mibps = 124")],
        ["webui.volume_mibps = 124", "MiB/s from 125 to 750, gp3's range with 3000 IOPS"],
    ),
    "volume's throughput, more than its IOPS allow": (
        [("volume_gib = 100", "volume_gib = 100\nvolume_mibps = 751")],
        ["webui.volume_mibps = 751", "MiB/s from 125 to 750, gp3's range with 3000 IOPS"],
    ),
    "volume's throughput of the database": (
        [("volume_gib = 20", "volume_gib = 20\nvolume_mibps = 250")],
        ["database.volume_mibps = 250: unknown key", "volume_gib"],
    ),
    "volume's throughput of a fleet": (
        [("max = 2", "max = 2\nvolume_mibps = 751")],
        ["fleets.nested.volume_mibps = 751", "MiB/s from 125 to 750, gp3's range with 3000 IOPS"],
    ),
    "fleet's warm hosts": (
        [("max = 2", 'warm = ["mon-fri 6:00-20:00 2"]')],
        ['fleets.nested.warm.1 = "mon-fri 6:00-20:00 2"', "mon-fri 06:00-20:00 2"],
    ),
    "fleet's spare hosts": (
        [("max = 2", "max = 2\nspare = -0.1")],
        ["fleets.nested.spare = -0.1", "a number from 0 (none) to 2"],
    ),
    "more warm hosts than there may be": (
        [("max = 2", 'max = 2\nwarm = ["mon-fri 06:00-20:00 2", "sat 06:00-20:00 3"]')],
        ['fleets.nested.warm = "sat 06:00-20:00 3": more hosts than max = 2', "up to 2 hosts"],
    ),
    "a range twice": (
        [('"203.0.113.0/24"', '"203.0.113.0/24", "203.0.113.0/24"')],
        ['trusted = "203.0.113.0/24": listed twice', "each range once"],
    ),
    "a type twice": (
        [('["m8i.2xlarge"]', '["m8i.2xlarge", "m8i.4xlarge", "m8i.2xlarge"]')],
        ['fleets.nested.instance_types = "m8i.2xlarge": listed twice', "each type once"],
    ),
    "a class twice": (
        [('["qemu_x86_64"]', '["qemu_x86_64", "tpm", "tpm"]')],
        ['fleets.nested.classes = "tpm": listed twice', "each class once"],
    ),
    "more ranges than a group has rules": (
        [('["203.0.113.0/24"]', str([f"10.8.{number}.0/24" for number in range(28)]).replace("'", '"'))],
        ['trusted = ["10.8.0.0/24", ', "28 ranges are 56 rules, more than", "up to 27 ranges"],
    ),
    "more developers than a group has rules": (
        [f"developers = {[f'10.8.{number}.0/24' for number in range(56)]}"],
        ['developers = ["10.8.0.0/24", ', "56 ranges are 56 rules, more than", "up to 55 ranges"],
    ),
    "more hosts than addresses": (
        [set_to("cidr", '"10.40.0.0/16"', '"10.40.0.0/23"')]
        + [set_to("address", f'"10.40.128.{last}"', f'"10.40.1.{last}"') for last in (10, 20)]
        + [("max = 2", "max = 40")],
        ['network.cidr = "10.40.0.0/23"', "addresses for 38 hosts", "need 4", "a larger range"],
    ),
    "a name that no certificate has": (
        [('name = "openqa.example.org"', f'name = "{"x" * 54}.example.org"')],
        ["domain.name = ", "no certificate can be issued for it", "up to 64 characters"],
    ),
    "a topic elsewhere": (
        ['alarm_topic = "arn:aws:sns:eu-west-1:111122223333:openqa"'],
        ['alarm_topic = "arn:aws:sns:eu-west-1:', "not in us-east-1", "allowed: a topic of us-east-1"],
    ),
    "a topic in another part of AWS": (
        ['alarm_topic = "arn:aws:sns:cn-north-1:111122223333:openqa"', *CHINA],
        [
            'alarm_topic = "arn:aws:sns:cn-north-1:',
            "allowed: a topic of cn-north-1, which begins with arn:aws-cn:sns:cn-north-1:",
        ],
    ),
    "a bucket in another part of AWS": (
        [("[content]", '[backups]\nreplicate_to = "arn:aws-cn:s3:::elsewhere"\n[content]')],
        [
            'backups.replicate_to = "arn:aws-cn:s3:::elsewhere": not in the AWS partition of us-east-1',
            "allowed: a bucket that begins with arn:aws:s3:::",
        ],
    ),
    "another account on one machine": (
        [LOCAL[0]],
        [
            'account = "111122223333": the local cloud has only one; allowed: "123456789012", or a kind',
        ],
    ),
    "another region on one machine": (
        [*LOCAL, *CHINA],
        ['region = "cn-north-1": the local cloud has only one; allowed: "us-east-1", or a kind'],
    ),
    "a topic's name alone": (['alarm_topic = "openqa"'], ["the ARN of an SNS topic"]),
    "more texts than user data holds": (
        [('profile = "sample"', f'profile = "sample"\ndownload_domains = {["a" * 60] * 160}')],
        [
            'content.download_domains = ["aaa',
            "...: takes 10240 of the 10",
            "more than user data has room for",
            "10000 bytes in all",
        ],
    ),
    "more classes than a parameter holds": (
        [('["qemu_x86_64"]', f"{['qemu_x86_64', 'x' * 3000]}")],
        [
            'fleets.nested.classes = ["qemu_x86_64", "xxx',
            "...: 3079 bytes with instance_types and warm, more than an SSM parameter has room for",
            "2400 bytes",
        ],
    ),
    "a volume below the machine image, of types with disks": (
        [
            ("max = 2", "max = 2\nvolume_gib = 19\nworkers_per_host = 1"),
            ("m8i.2xlarge", "c8id.2xlarge"),
        ],
        ["fleets.nested.volume_gib = 19: no room for the machine image", "20 to 65536"],
    ),
    "a volume below the workers' pools": (
        [("max = 2", "max = 2\nvolume_gib = 579\nworkers_per_host = 9")],
        [
            "fleets.nested.volume_gib = 579: no room for the system and 40 GiB for each worker beside "
            "cache_gib = 200; allowed: 580 to 65536"
        ],
    ),
    "a cache beyond EBS's largest volume": (
        [("max = 2", "max = 2\ncache_gib = 65357")],
        [
            "fleets.nested.cache_gib = 65357: with the system and 40 GiB for each worker it takes 65537 "
            "GiB, more than any EBS volume has; allowed: 1 to 65356"
        ],
    ),
    "a cache beyond EBS's largest volume, and the largest volume": (
        [("max = 2", "max = 2\ncache_gib = 65536\nvolume_gib = 65536\nworkers_per_host = 1")],
        ["fleets.nested.cache_gib = 65536: ", "it takes 65596 GiB, ", "1 to 65476"],
    ),
    "a host's disk below the machine image": (
        [("volume_gib = 100", "volume_gib = 100\nroot_gib = 19")],
        ["webui.root_gib = 19", "a whole number of GiB from 20 to 65536"],
    ),
    "fleets whose names differ by a hyphen": (
        [('name = "metal"', 'name = "nest-ed"')],
        [
            'fleets.name = "nest-ed": differs from the name of fleet nested only in hyphens',
            "more than hyphens",
        ],
    ),
    "fleet's volume": ([("max = 2", "volume_gib = -1")], ["fleets.nested.volume_gib = -1", "1 to 65536"]),
    "fleet type": (
        [('["m8i.2xlarge"]', '["m8i.2xlarge", "m9x.2xlarge"]')],
        ['fleets.nested.instance_types = "m9x.2xlarge": unknown', "fleet/catalogue.toml, such as"],
    ),
    "fleet without types": (
        [('["m8i.2xlarge"]', "[]")],
        ["fleets.nested.instance_types = []", "a list of 1 to 40 EC2 instance types"],
    ),
    "metal without metal": (
        [('["m5.metal"]', '["m8i.2xlarge"]')],
        ['fleets.metal.instance_types = "m8i.2xlarge": not a metal type', "allowed: metal types"],
    ),
    "nested on metal": (
        [('["m8i.2xlarge"]', '["m5.metal"]')],
        ['fleets.nested.instance_types = "m5.metal": a metal type', 'or virtualization = "metal"'],
    ),
    "nested on a family without it": (
        [('["m8i.2xlarge"]', '["m6i.2xlarge"]')],
        ['fleets.nested.instance_types = "m6i.2xlarge": no nested virtualization', "c8i, m8i, r8i"],
    ),
    "type of another architecture": (
        [('["m5.metal"]', '["m7g.metal"]')],
        ['fleets.metal.instance_types = "m7g.metal": its architecture is aarch64', "architecture x86_64"],
    ),
    "no virtualization for KVM": (
        [set_to("virtualization", '"nested"', '"none"')],
        ['fleets.nested.virtualization = "none"', "or kvm = false"],
    ),
    "worker too small": (
        [('["m8i.2xlarge"]', '["c8i.large"]')],
        ['fleets.nested.instance_types = "c8i.large": too small', "8 GiB", "set workers_per_host"],
    ),
    "volume too small for a worker": (
        [("max = 2", "volume_gib = 250"), ('["m8i.2xlarge"]', '["m8i.2xlarge", "m8i.4xlarge"]')],
        [
            "fleets.nested.volume_gib = 250: no room for the system and 40 GiB for each worker beside "
            "cache_gib = 200, not even for one; allowed: 260 to 65536"
        ],
    ),
    "volume too small for a worker, on one machine": (
        [*LOCAL, ("max = 2", "volume_gib = 250")],
        ["fleets.nested.volume_gib = 250: no room", "260 to 65536"],
    ),
    "instance store too small for a worker": (
        [('["m8i.2xlarge"]', '["c8id.2xlarge"]'), ("max = 2", "cache_gib = 450")],
        ['fleets.nested.instance_types = "c8id.2xlarge": too small for one worker', "cache_gib = 450"],
    ),
    "workers per host": (
        [("max = 2", "workers_per_host = 61")],
        ["fleets.nested.workers_per_host = 61", "from 1 to 60"],
    ),
    "class, form": (
        [set_to("classes", '["qemu_x86_64"]', '["qemu_x86_64,tap"]')],
        ['fleets.nested.classes.1 = "qemu_x86_64,tap"', "a list of worker classes"],
    ),
    "class of another architecture": (
        [set_to("classes", '["qemu_x86_64"]', '["qemu_x86_64", "qemu_aarch64"]')],
        ['fleets.nested.classes = "qemu_aarch64"', "qemu_x86_64"],
    ),
    "tap without its network": (
        [set_to("classes", '["qemu_x86_64"]', '["qemu_x86_64", "tap"]')],
        ['fleets.nested.classes = "tap"', 'or network = "tap"'],
    ),
    "vde on Fedora": (
        [("max = 2", 'max = 2\nnetwork = "vde"'), ('kind = "dev"', 'kind = "dev"\nos = "fedora"')],
        ['fleets.nested.network = "vde": the worker image of fedora has no VDE', 'os = "debian"'],
    ),
    "mesh without tap": (
        [("max = 2", 'max = 2\ntap_topology = "mesh"')],
        ['fleets.nested.tap_topology = "mesh": the fleet\'s network is "user"', 'or network = "tap"'],
    ),
    "mesh shares a class": (
        [
            TAP,
            ("max = 2", 'max = 2\ntap_topology = "mesh"'),
            (
                'classes = ["qemu_x86_64"]\ninstance_types = ["m5.metal"]',
                'classes = ["qemu_x86_64", "tap"]\nnetwork = "tap"\ninstance_types = ["m5.metal"]',
            ),
        ],
        ['fleets.nested.classes = "tap": fleet metal has it too', "a class that no other fleet has"],
    ),
    "mesh shares a class of its content": (
        [
            ('profile = "sample"', 'profile = "sample"\nclasses = { mm = 4 }'),
            (
                'classes = ["qemu_x86_64"]\n',
                'classes = ["qemu_x86_64", "mm"]\nnetwork = "tap"\ntap_topology = "mesh"\n',
            ),
            ('classes = ["qemu_x86_64"]\n', 'classes = ["qemu_x86_64", "mm"]\nnetwork = "tap"\n'),
        ],
        ['fleets.nested.classes = "mm": fleet metal has it too', "a class that no other fleet has"],
    ),
    "mesh too large": (
        [TAP, ("max = 2", 'max = 51\ntap_topology = "mesh"')],
        ["fleets.nested.max = 51: every host has a tunnel to every other", "up to 50 hosts"],
    ),
    "tap class without its network, but with VDE": (
        [TAP, ('network = "tap"', 'network = "vde"')],
        ['fleets.nested.classes = "tap": the fleet\'s network is "vde"', 'or network = "tap"'],
    ),
    "min above max": (
        [("max = 2", "max = 2\nmin = 3")],
        ["fleets.nested.min = 3: more than max = 2", "0 to 2"],
    ),
    "min below zero": ([("max = 2", "max = 2\nmin = -1")], ["fleets.nested.min = -1", "from 0 to 1000"]),
    "spot share": ([("max = 2", "spot_share = 1.5")], ["fleets.nested.spot_share = 1.5", "from 0"]),
    "spot share, percent": ([("max = 2", "spot_share = 50")], ["fleets.nested.spot_share = 50", "from 0"]),
    "spot share, not a number": (
        [("max = 2", "spot_share = nan")],
        ["fleets.nested.spot_share = NaN", "from 0"],
    ),
    "spot share of no host": (
        [("max = 2", "max = 2\nspot_share = 0.49")],
        ["fleets.nested.spot_share = 0.49: no spot host with max = 2, ", "allowed: 0, or at least 0.5"],
    ),
    "spot share below a percent": (
        [("max = 2", "max = 1000\nspot_share = 0.004")],
        ["fleets.nested.spot_share = 0.004: no spot host with max = 1000, ", "allowed: 0, or at least 0.01"],
    ),
    "fleet name, form": (
        [set_to("name", '"nested"', '"Nested_1"')],
        ['fleets.Nested_1.name = "Nested_1"', "lowercase letters, digits"],
    ),
    "fleet name, long": (
        [set_to("name", '"nested"', '"a-fleet-of-nested"')],
        ['name = "a-fleet-of-nested"', "up to 16"],
    ),
    "fleet name twice": (
        [set_to("name", '"nested"', '"metal"')],
        ['fleets.name = "metal"', "a name of its own"],
    ),
    "quota": (
        ["vcpu_quota = 64"],
        ["vcpu_quota = 64", "116 vCPUs", "116 or more"],  # 2 + 2 + 2 * 8 + 96
    ),
    "spot quota": (
        ["vcpu_quota = 108\nvcpu_spot_quota = 7", ("max = 2", "max = 2\nspot_share = 0.5")],
        ["vcpu_spot_quota = 7", "8 vCPUs", "8 or more"],
    ),
    "more workers than openQA lists": (
        [("max = 2", "max = 1000\nworkers_per_host = 10")],
        ["fleets.max = [1000, ", "at their fleets' max have 100", "allowed: fewer than 10000"],
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str, tmp_path: Path) -> None:
    edits, fragments = REFUSALS[case]
    (line,) = refusal(tmp_path, *edits)
    assert line.startswith("environments/here.toml: ")
    for fragment in fragments:
        assert fragment in line


# Mistakes that show in more than one place, or in which the line wanted is one of several.
SEVERAL: dict[str, tuple[list[Edit], list[list[str]]]] = {
    "zones, one of two lines": (
        [('"us-east-1b"]\nzone = "us-east-1a"', '"us-east-1b", "a\\nb"]\nzone = "us-east-1f"')],
        [[r'availability_zones = "a\nb"'], ['zone = "us-east-1f"', "allowed: us-east-1a, us-east-1b"]],
    ),
    "two mistakes": (
        [set_to("kind", '"dev"', '"test"'), set_to("volume_gib", "20", "0")],
        [['kind = "test"'], ["database.volume_gib = 0"]],
    ),
    "aarch64 without an image": (
        [ARM_FLEET],
        [['fleets.nested.architecture = "aarch64"', "image.aarch64 is not set"]],
    ),
    "nested on aarch64": (
        [ARM_FLEET, ARM_IMAGE],
        [['fleets.nested.virtualization = "nested"', "aarch64 instances", '"metal"']],
    ),
    "custom sign-in, nothing set": (
        [('provider = "fedora"\nid_from = "id"', 'provider = "custom"')],
        [[f"sign_in.{key} is missing"] for key in settings.FEDORA_ACCOUNTS],
    ),
    "no fleet for sample's jobs": (
        [('["qemu_x86_64"]', '["tpm"]'), ('["qemu_x86_64"]', '["tpm"]')],
        [['fleets = ["nested", "metal"]', 'content "sample"', "x86_64 fleet", "qemu_x86_64"]],
    ),
    "only fleets of no hosts": (
        [("max = 2", "max = 0"), ('"metal"\narchitecture', '"metal"\nmax = 0\narchitecture')],
        [["fleets", "max above 0", "qemu_x86_64"]],
    ),
    "Fedora's tests on a plain fleet": (
        [FEDORA_TESTS],
        [
            ["content", "hold qemu_x86_64, tap"],
            ["content", "hold qemu_x86_64, tap2"],
            ["content", "hold qemu_x86_64, tpm"],
        ],
    ),
    "classes of one job on two fleets": (
        [FEDORA_TESTS, ('["qemu_x86_64"]', '["qemu_x86_64"]'), ('["qemu_x86_64"]', '["tap", "tap2", "tpm"]')],
        [["hold qemu_x86_64, tap"], ["hold qemu_x86_64, tap2"], ["hold qemu_x86_64, tpm"]],
    ),
    "aarch64 jobs need their own": (
        [FEDORA_TESTS, ARM_IMAGE, ARM_FLEET, ('["qemu_x86_64"]', '["qemu_aarch64"]')],
        [["aarch64 jobs that no fleet serves", f"qemu_aarch64, {name}"] for name in ("tap", "tap2", "tpm")],
    ),
    "spot hosts for clusters": (
        [TAP, ("max = 2", "max = 2\nspot_share = 0.5")],
        [["fleets.nested.spot_share = 0.5", "ends all jobs of its clusters", "0, or say why in spot_reason"]],
    ),
    "tap host too small for a cluster": (
        [FEDORA_TESTS, TAP],
        [['fleets.nested.instance_types = "m8i.2xlarge": 4 workers', "6 tap jobs", "carry 6 workers"]],
    ),
    "spot hosts for clusters over VDE": (
        [("max = 2", 'max = 2\nnetwork = "vde"\nspot_share = 0.5')],
        [["fleets.nested.spot_share = 0.5", "ends all jobs of its clusters", "0, or say why in spot_reason"]],
    ),
    **{
        f"{network} host too small for the sample's pair": (
            [("max = 2", f'max = 2\nworkers_per_host = 1\nnetwork = "{network}"'), (
                'classes = ["qemu_x86_64"]', f'classes = ["qemu_x86_64", "{network}"]'
            )],
            [[f'"m8i.2xlarge": 1 workers per host, but 2 {network} jobs run together', "carry 2 workers"]],
        )
        for network in ("tap", "vde")
    },
    "mesh too small for the sample's pair": (
        [TAP, ("max = 2", 'max = 1\nworkers_per_host = 1\ntap_topology = "mesh"')],
        [['"m8i.2xlarge": 1 workers on each of up to 1 hosts, but 2 tap jobs', "2 workers or more in all"]],
    ),
    "mesh too small for a cluster": (
        [FEDORA_TESTS, TAP, ("max = 2", 'max = 1\ntap_topology = "mesh"')],
        [['"m8i.2xlarge": 4 workers on each of up to 1 hosts, but 6 tap jobs', "6 workers or more in all"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SEVERAL)
def test_refusals_among_others(case: str, tmp_path: Path) -> None:
    edits, wanted = SEVERAL[case]
    lines = refusal(tmp_path, *edits)
    assert all(line.startswith("environments/here.toml: ") and "allowed: " in line for line in lines)
    for fragments in wanted:
        assert any(all(fragment in line for fragment in fragments) for line in lines), lines


def test_a_mesh_carries_a_cluster_that_no_host_carries(tmp_path: Path) -> None:
    lines = refusal(tmp_path, FEDORA_TESTS, TAP, ("max = 2", 'max = 2\ntap_topology = "mesh"'))
    assert lines
    assert not any("run together" in line for line in lines)


MESH: Edit = ("max = 2", 'max = 2\ntap_topology = "mesh"')
# What is just enough: edits that are accepted.
ENOUGH: dict[str, list[Edit]] = {
    "spot hosts of a fleet that is switched off": [("max = 2", "max = 0\nspot_share = 0.5")],
    "as many hosts as a mesh may have": [TAP, ("max = 2", 'max = 50\ntap_topology = "mesh"')],
    "a host with as many workers as the cluster has jobs": [
        TAP,
        ("max = 2", "max = 2\nworkers_per_host = 2"),
    ],
    "a mesh with as many workers as the cluster has jobs": [
        TAP,
        MESH,
        ('tap_topology = "mesh"', 'tap_topology = "mesh"\nworkers_per_host = 1'),
    ],
    "a mesh of each architecture": [
        TAP,
        MESH,
        ARM_IMAGE,
        (
            'architecture = "x86_64"\nclasses = ["qemu_x86_64"]\ninstance_types = ["m5.metal"]',
            'architecture = "aarch64"\nclasses = ["qemu_aarch64", "tap"]\nnetwork = "tap"\n'
            'tap_topology = "mesh"\ninstance_types = ["m6g.metal"]',
        ),
    ],
}


@pytest.mark.parametrize("case", ENOUGH)
def test_what_is_just_enough_is_accepted(case: str, tmp_path: Path) -> None:
    assert load("here", write(tmp_path, *ENOUGH[case])).fleets


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "here.toml").write_bytes(b"\xef\xbb\xbf" + (folder / "here.toml").read_bytes())
    assert load("here", folder) == load("here", write(tmp_path))


def test_file_that_is_not_text(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "here.toml").write_bytes(b"kind = '\xff'")
    with pytest.raises(SettingsError, match=r"environments/here\.toml: not valid TOML"):
        load("here", folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "os = debian",
            "Invalid value (at line 2, column 6): os = debian; allowed: KEY = VALUE, with text in",
        ),
        ("public = True", "Invalid value (at line 2, column 10): public = True; allowed: KEY = VALUE, with"),
        ("os = “debian”", "Invalid value (at line 2, column 6): os = “debian”; allowed: KEY = VALUE, with"),
        (
            'os = "debian',
            "Illegal character '\\n' (at line 2, column 13): os = \"debian; allowed: KEY = VALUE",
        ),
        (
            "os: debian",
            "Expected '=' after a key in a key/value pair (at line 2, column 3): os: debian; allowed",
        ),
        ("os = \u2028\n", "Invalid value (at line 2, column 6): os =; allowed: KEY"),
        (
            'kind = "dev"',
            'a value (at line 2, column 13): kind = "dev"; allowed: each key and each [table] once',
        ),
        (
            "[a]\n[a]",
            "(at line 3, column 3): [a]; allowed: each key and each [table] once, but one [[table]]",
        ),
        ("a" * 200, f"(at line 2, column 201): {'a' * 80}; allowed: KEY = VALUE"),
        ("[", "Invalid initial character for a key part (at line 2, column 2): [; allowed: KEY = VALUE"),
    ],
)
def test_what_is_no_toml_is_quoted(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "here.toml").write_text(f'kind = "dev" # \u2028\r\n{text}\n', newline="")
    with pytest.raises(SettingsError) as caught:
        load("here", tmp_path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/here.toml: not valid TOML: ")
    assert said in line


def test_a_folder_of_ones_own_is_named_as_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be called as the project's own, or by nothing but dots."""
    monkeypatch.chdir(write(tmp_path).parent)
    (Path.cwd() / "bad.toml").write_text("kind = 1")
    for folder in (Path(), Path.cwd()):
        with pytest.raises(SettingsError, match=f"^{re.escape(str(folder))}/bad.toml: kind = 1; allowed"):
            load("bad", folder)
        with pytest.raises(SettingsError, match=f"^{re.escape(str(folder))}: there is no environment"):
            load("nowhere", folder)
    with pytest.raises(SettingsError, match=r"^environments: there is no environment"):
        load("nowhere")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "here.toml").symlink_to("/proc/self/mem")
    with pytest.raises(SettingsError, match=r"/here\.toml: cannot be read: Input/output error$"):
        load("here", tmp_path)


def test_name_unfit_for_aws(tmp_path: Path) -> None:
    folder = write(tmp_path, name="My_openQA")
    with pytest.raises(SettingsError, match=r'name = "My_openQA": the file.s name; allowed: up to 16'):
        load("My_openQA", folder)


@pytest.mark.parametrize(
    ("edits", "look", "expected"),
    [
        ([], lambda e: e.sign_in.token_url, "https://id.fedoraproject.org/openidc/Token"),
        ([], lambda e: e.sign_in.unique_name, "FAS"),
        (
            [('"fedora"', '"fedora"\nunique_name = "staging"')],
            lambda e: e.sign_in.unique_name,
            "staging",
        ),
        (["public = true", ('["203.0.113.0/24"]', '["0.0.0.0/0"]')], lambda e: e.public, True),
        (["public = true", ('["203.0.113.0/24"]', "[]")], lambda e: e.trusted, ()),
        (["public = true", ('trusted = ["203.0.113.0/24"]\n', "")], lambda e: e.trusted, ()),
        ([], lambda e: e.developers, ()),
        ([("[image]", "[image]\ngolden = true")], lambda e: e.image.golden, True),
        (
            [
                ARM_IMAGE,
                ARM_FLEET,
                ('["qemu_x86_64"]', '["tpm"]'),
                ("m8i.2xlarge", "m7g.metal"),
                ('"nested"\nmax', '"metal"\nmax'),
            ],
            lambda e: e.fleets[0].architecture,
            "aarch64",  # the sample has no aarch64 jobs to serve
        ),
        (["vcpu_quota = 116"], lambda e: e.vcpu_quota, 116),
        ([("openqa.example.org", "example.org")], lambda e: e.domain.name, "example.org"),
        (
            [('"nested"\nmax', '"none"\nkvm = false\nmax')],
            lambda e: e.fleets[0].virtualization,
            "none",
        ),
        ([(DATABASE, f'engine = "rds"\n{RDS}')], lambda e: e.database.host, None),
        ([(DATABASE, DATABASE + RDS)], lambda e: e.database.engine, "container"),
        ([("10.40.128.10", "10.40.128.4")], lambda e: str(e.database.address), "10.40.128.4"),
        ([("10.40.128.10", "10.40.143.254")], lambda e: str(e.database.address), "10.40.143.254"),
        ([], lambda e: str(e.content.tap_address), "172.16.2.2/15"),
        ([OPENSUSE_TAPS], lambda e: str(e.content.tap_address), "10.0.2.2/15"),
        (
            [("[content]", '[content]\ntap_address = "10.0.0.1/15"')],
            lambda e: str(e.content.tap_address),
            "10.0.0.1/15",
        ),
        (
            [("[content]", '[content]\ntap_address = "172.16.255.255/15"')],
            lambda e: str(e.content.tap_address),
            "172.16.255.255/15",
        ),
        (
            [('"/aws/service/debian/release/13/latest/amd64"', '"ami-0123456789abcdef0"')],
            lambda e: e.image.x86_64,
            "ami-0123456789abcdef0",
        ),
    ],
)
def test_what_is_allowed(
    edits: list[Edit], look: Callable[[Environment], object], expected: object, tmp_path: Path
) -> None:
    assert look(load("here", write(tmp_path, *edits))) == expected


def test_a_vpc_may_be_where_other_environments_have_their_taps(tmp_path: Path) -> None:
    moved = [(f'"10.40.{rest}"', f'"172.16.{rest}"') for rest in ("0.0/16", "128.10", "128.20")]
    assert load("here", write(tmp_path, OPENSUSE_TAPS, *moved)).network.cidr == IPv4Network("172.16.0.0/16")


@pytest.mark.parametrize(
    "keys",
    ["volume_gib = 580\nworkers_per_host = 9", "cache_gib = 65356", "volume_gib = 65536\ncache_gib = 65376"],
)
def test_volumes_that_just_hold_it_all(keys: str, tmp_path: Path) -> None:
    assert load("here", write(tmp_path, ("max = 2", f"max = 2\n{keys}"))).fleets[0].volume_size


def test_spot_hosts_for_clusters_with_a_reason(tmp_path: Path) -> None:
    reason = 'spot_share = 0.5\nspot_reason = "jobs of clusters are short here"'
    folder = write(tmp_path, TAP, ("max = 2", f"max = 2\n{reason}"))
    assert load("here", folder).fleets[0].spot_share == 0.5


TO_BE_FILLED_IN = ("to be filled in", "alarm_topic is missing")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_environments_have_no_warnings(name: str) -> None:
    lines = settings.warnings(load(name))
    assert [line for line in lines if not any(word in line for word in TO_BE_FILLED_IN)] == []


def test_what_is_to_be_filled_in_is_told() -> None:
    lines = settings.warnings(load("fedora"))
    assert [line.split(": ")[1] for line in lines] == [
        "alarm_topic is missing",
        'image.x86_64 = "ami-00000000000000000"',
        'image.aarch64 = "ami-00000000000000000"',
    ]


def test_ranges_that_decide_nothing_are_told(tmp_path: Path) -> None:
    (line,) = settings.warnings(load("here", write(tmp_path, "public = true")))
    assert line == (
        'here: trusted = ["203.0.113.0/24"]: has no effect, as with public = true everybody reaches the '
        "web UI; wanted: one of the two"
    )


@pytest.mark.parametrize(
    ("ref", "key"), [("needles_ref", "needles"), ("templates_ref", "templates_repository")]
)
def test_refs_that_decide_nothing_are_told(tmp_path: Path, ref: str, key: str) -> None:
    tests = 'tests = "https://example.org/tests.git"\nloader = "openqa"\ntemplates = ["a.yaml"]'
    told = f'profile = "sample"\n{tests}\n{ref} = "main"'
    (line,) = settings.warnings(load("here", write(tmp_path, ('profile = "sample"', told))))
    assert line.startswith(f'here: content.{ref} = "main": has no effect without content.{key}')
    there = f'{told}\n{key} = "https://example.org/more.git"'
    assert settings.warnings(load("here", write(tmp_path, ('profile = "sample"', there)))) == ()


def test_a_sign_in_that_providers_refuse_is_told(tmp_path: Path) -> None:
    asked = 'id_from = "id"\nauthorize_url = "https://example.org/authorize'
    (line,) = settings.warnings(load("here", write(tmp_path, ('id_from = "id"', f'{asked}"'))))
    assert line.endswith("most providers refuse without it; wanted: ?response_type=code at its end")
    there = write(tmp_path, ('id_from = "id"', f'{asked}?a=b&response_type=code"'))
    assert settings.warnings(load("here", there)) == ()


def test_emulation_where_there_is_kvm_is_told(tmp_path: Path) -> None:
    (line,) = settings.warnings(load("here", write(tmp_path, ("max = 2", "max = 2\nkvm = false"))))
    assert line.startswith("here: fleets.nested.kvm = false: jobs run in software emulation")


def test_developers_who_reach_no_host_are_told(tmp_path: Path) -> None:
    ranges = 'developers = ["8.8.8.0/24", "10.61.0.0/24", "100.64.0.0/10", "203.0.113.7/32"]'
    lines = settings.warnings(load("here", write(tmp_path, ranges)))
    assert [line.split(": ")[1] for line in lines] == [
        'developers = "8.8.8.0/24"',
        'developers = "203.0.113.7/32"',
    ]
    assert all("private addresses only; wanted: the range of a VPN" in line for line in lines)
    reached = write(tmp_path, ranges, ("[network]", '[network]\negress = "public-ip"'))
    assert settings.warnings(load("here", reached)) == ()


def test_alarms_that_nobody_hears_are_told(tmp_path: Path) -> None:
    production = set_to("kind", '"dev"', '"production"')
    (line,) = settings.warnings(load("here", write(tmp_path, production)))
    assert line == (
        "here: alarm_topic is missing: nobody is told when an alarm rings; wanted: the ARN of an SNS topic"
    )
    topic = 'alarm_topic = "arn:aws:sns:us-east-1:111122223333:openqa"'
    assert settings.warnings(load("here", write(tmp_path, production, topic))) == ()


def test_classes_that_no_job_asks_for_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, ('["qemu_x86_64"]', '["qemu_x86_64", "tpm", "tmp"]'))
    (line,) = settings.warnings(load("here", folder))
    assert line == (
        'here: fleets.nested.classes = "tmp": no job of content "sample" asks for it; known: '
        "metal, qemu_i586, qemu_i686, qemu_x86_64, tap, tpm, vde; others go into content.classes, each with "
        "the number of jobs of its largest cluster"
    )


OWN_CLUSTERS: Edit = ('profile = "sample"\n', 'profile = "sample"\nclasses = { pair = 2, alone = 1 }\n')
OWN_CLASSES: Edit = ('classes = ["qemu_x86_64"]\n', 'classes = ["qemu_x86_64", "pair", "alone"]\n')


def test_clusters_whose_guests_cannot_meet_are_told(tmp_path: Path) -> None:
    (line,) = settings.warnings(load("here", write(tmp_path, OWN_CLUSTERS, OWN_CLASSES)))
    assert line == (
        'here: fleets.nested.classes = "pair": clusters of up to 2 jobs ask for it, but their guests '
        'cannot reach each other with network = "user"; wanted: network = "tap" or "vde"'
    )


@pytest.mark.parametrize("network", ["tap", "vde"])
def test_clusters_whose_guests_meet_are_not_told(tmp_path: Path, network: str) -> None:
    folder = write(tmp_path, OWN_CLUSTERS, OWN_CLASSES, ("max = 2", f'max = 2\nnetwork = "{network}"'))
    assert settings.warnings(load("here", folder)) == ()


@pytest.mark.parametrize(("classes", "told"), [([], 1), (["tpm"], 1), (["tap"], 0), (["tap2"], 0)])
def test_a_tap_fleet_to_which_no_cluster_comes_is_told(tmp_path: Path, classes: list[str], told: int) -> None:
    folder = write(
        tmp_path,
        ("[[fleets]]", "[content.classes]\ntap2 = 3\n\n[[fleets]]"),
        ('"metal"\narchitecture', '"metal"\nnetwork = "tap"\narchitecture'),
        (
            '"qemu_x86_64"]\ninstance_types = ["m8i',
            '"qemu_x86_64", "tap2"]\nnetwork = "tap"\ninstance_types = ["m8i',
        ),
        ('classes = ["qemu_x86_64"]', f"classes = {['qemu_x86_64', *classes]}"),
    )
    lines = settings.warnings(load("here", folder))
    assert len(lines) == told
    assert all(
        line == 'here: fleets.metal.network = "tap": no cluster runs on a fleet without a class of clusters; '
        "wanted in classes: one of tap, tap2, vde"
        for line in lines
    )


def test_the_samples_clusters_are_those_of_its_jobs() -> None:
    jobs = [json.loads(path.read_text()) for path in SAMPLE.glob("*.json")]
    sizes = {
        asked["WORKER_CLASS"].removeprefix("qemu_x86_64,"): sum(key.startswith("TEST:") for key in asked)
        for asked in jobs
        if any(key.startswith("_PARALLEL") for key in asked)
    }
    assert sizes == content.SAMPLE_CLUSTERS
    made = Content.model_validate({"profile": "sample"})
    assert made.clusters("x86_64") == sizes
    assert made.clusters("aarch64") == {}


@pytest.mark.parametrize(("asked", "jobs"), [(1, 2), (6, 6)])
def test_the_largest_cluster_of_a_class_counts(asked: int, jobs: int) -> None:
    made = Content.model_validate({"profile": "sample", "classes": {"tap": asked}})
    assert made.clusters("x86_64")["tap"] == jobs


@pytest.mark.parametrize(("hosts", "told"), [(5, 0), (6, 1)])
def test_a_web_ui_too_small_for_all_hosts_at_once_is_told(tmp_path: Path, hosts: int, told: int) -> None:
    environment = load("here", write(tmp_path))
    fleet = environment.fleets[0].model_copy(update={"max": hosts})
    webui = environment.webui.model_copy(update={"instance_type": "t3.medium"})
    changed = environment.model_copy(update={"fleets": (fleet,), "webui": webui})
    lines = settings.warnings(changed)
    assert len(lines) == told
    assert all("0.256 Gbit/s for 6 hosts" in line and "wanted: 0.3 Gbit/s" in line for line in lines)


@pytest.mark.parametrize(("mibps", "hosts", "told"), [(125, 20, 0), (125, 21, 1), (250, 41, 0), (250, 42, 1)])
def test_a_volume_too_slow_for_all_hosts_at_once_is_told(
    tmp_path: Path, mibps: int, hosts: int, told: int
) -> None:
    environment = load("here", write(tmp_path))
    fleet = environment.fleets[0].model_copy(update={"max": hosts})
    webui = environment.webui.model_copy(update={"instance_type": "m7i.2xlarge", "volume_mibps": mibps})
    lines = settings.warnings(environment.model_copy(update={"fleets": (fleet,), "webui": webui}))
    gbps = {125: "1.05", 250: "2.1"}[mibps]
    assert lines == told * (
        f"here: webui.volume_mibps = {mibps}: {gbps} Gbit/s for {hosts} hosts that may fetch assets at once; "
        f"wanted: {0.05 * hosts:g} Gbit/s, 0.05 for each",
    )


@pytest.mark.parametrize("profile", settings.PROFILES)
@pytest.mark.parametrize("architecture", content.ARCHITECTURES)
def test_the_classes_that_tests_need_are_known(profile: str, architecture: Architecture) -> None:
    made = Content.model_validate({"profile": profile})
    known = made.known_classes | settings.KNOWN_CLASSES[architecture]
    needs = made.needs(architecture)
    assert known >= {f"qemu_{architecture}", *(name for need in needs for name in need.classes)}


@pytest.mark.parametrize(
    ("keys", "templates"),
    [
        ({}, ("templates.fif.json", "templates-updates.fif.json")),
        ({"tests": "https://example.org/fork.git"}, ("templates.fif.json", "templates-updates.fif.json")),
        ({"templates": ("a.json",)}, ("a.json",)),
        ({"loader": "scenarios"}, ()),
    ],
)
def test_a_profile_fills_in_what_is_not_set(keys: dict[str, Any], templates: tuple[str, ...]) -> None:
    made = Content.model_validate({"profile": "fedora"} | keys)
    assert made.templates == templates
    assert made.distri == "fedora"
    assert made.cloudinit


_ARM_JOBS: Edit = (
    'architecture = "x86_64"\nclasses = ["qemu_x86_64"]',
    'architecture = "aarch64"\nclasses = ["qemu_aarch64"]',
)
ARM_FLEETS: list[Edit] = [
    _ARM_JOBS,
    ('"m8i.2xlarge"]\nvirtualization = "nested"', '"m7g.metal"]\nvirtualization = "metal"'),
    ('"m5.metal"', '"m7g.metal"'),
    _ARM_JOBS,
]


def test_tests_of_ones_own_may_be_for_aarch64_alone(tmp_path: Path) -> None:
    own = 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"'
    edits = [ARM_IMAGE, *ARM_FLEETS]
    assert load("here", write(tmp_path, ('profile = "sample"', own), *edits)).fleets
    assert "x86_64 jobs that no fleet serves" in refusal(tmp_path, *edits)[0]


def test_aarch64_is_led_to_its_metal_types(tmp_path: Path) -> None:
    own = ('profile = "sample"', 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"')
    edits = [own, ARM_IMAGE, _ARM_JOBS, ('"m8i.2xlarge"', '"m7g.4xlarge"')]
    (line,) = refusal(tmp_path, *edits)
    assert line.endswith('aarch64 instances have no nested virtualization; allowed: "metal"')
    (line,) = refusal(tmp_path, *edits, set_to("virtualization", '"nested"', '"metal"'))
    metal = line.partition("allowed: metal types, such as ")[2].split(", ")
    assert metal[0] == "m7g.metal"
    assert {catalogue.load()[name].architecture for name in metal} == {"aarch64"}


def test_fleets_that_serve_nobody_are_told_behind_what_is_wrong_with_one(tmp_path: Path) -> None:
    own = 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"'
    lines = refusal(tmp_path, ('profile = "sample"', own), ARM_IMAGE, ARM_FLEET)
    assert 'fleets.nested.virtualization = "nested": aarch64 instances have' in lines[0]
    assert "no fleet serves aarch64 jobs that ask for no other class; allowed: one aarch64" in lines[-1]
    assert not any("content" in line for line in lines)


def test_a_class_that_no_processor_has_is_told_once(tmp_path: Path) -> None:
    own = 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"\nclasses = { tpm = 1 }'
    edits: list[Edit] = [('profile = "sample"', own), ARM_IMAGE, *ARM_FLEETS]
    more = BASE.split("[[fleets]]")[1].replace('"nested"', '"more"', 1)
    edits.append(("[[fleets]]", f"[[fleets]]{more}[[fleets]]"))
    (line,) = refusal(tmp_path, *edits)
    assert "has jobs that no fleet serves; allowed: one fleet with max above 0 whose classes hold" in line
    assert line.endswith("the qemu_… of its architecture, tpm")


def test_packages_of_workers_take_no_room_of_the_web_ui(tmp_path: Path) -> None:
    lists = {
        "download_domains": [
            f"a-rather-long-name-of-a-host-number-{number}.example.org" for number in range(150)
        ],
        "worker_packages": [f"lib-a-rather-long-name-of-a-module-{number}-perl" for number in range(100)],
    }
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lists.items())
    assert load("here", write(tmp_path, ('profile = "sample"', f'profile = "sample"\n{text}')))


def test_nothing_of_x86_64_needs_no_image_of_it(tmp_path: Path) -> None:
    own = 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"'
    (x86,) = [line for line in BASE.splitlines() if line.startswith("x86_64 = ")]
    hosts: list[Edit] = [('"t3.medium"', '"t4g.medium"'), ('"t3.large"', '"t4g.large"')]
    edits = [ARM_IMAGE, *ARM_FLEETS, ('profile = "sample"', own), (x86, "")]
    assert load("here", write(tmp_path, *edits, *hosts)).image.of("x86_64") is None
    (line,) = refusal(tmp_path, *edits, hosts[0])
    told = (
        'webui.instance_type = "t3.large": an x86_64 type, but image.x86_64 is not set; allowed: another type'
    )
    assert told in line


TEXTS = TypeAdapter(Annotated[str, Text])


@pytest.mark.parametrize("text", ["FAS", " a b ", "größe", "日本", "".join(map(chr, range(0x20, 0x7F)))])
def test_texts(text: str) -> None:
    assert text.isprintable()
    assert TEXTS.validate_python(text) == text


UNSEEN = (
    "\0",
    "\t",
    "\n",
    "\r",
    "\x7f",
    "\x85",
    "\xa0",
    "\u2028",
    "\u2029",
    "\u202e",
    "\ufeff",
    "\U000e0001",
)


@pytest.mark.parametrize("text", ["", " ", *(f"a{one}b" for one in UNSEEN)])
def test_no_texts(text: str) -> None:
    assert not (text.isprintable() and text.strip())
    with pytest.raises(ValidationError):
        TEXTS.validate_python(text)


@pytest.mark.parametrize(
    "edits",
    [
        [('provider = "fedora"\n', CUSTOM), ("org/token", r"org/\u0000token")],
        [('provider = "fedora"\n', CUSTOM), ("org/authorize", r"org/\u0000authorize")],
        [("[content]", '[content]\nasset_limits = { "a\\u0000b" = 1 }')],
        [("[content]", '[content]\ntests = "https://example.org/\\u0000"')],
        [("[[fleets]]", '[schedule]\nbroker = "amqps://a\\u0000@example.org/a"\n[[fleets]]')],
        [
            (
                "[[fleets]]",
                '[schedule]\nbroker = "amqps://a@b/c"\nreport_resultsdb = "https://a/\\u0000"\n[[fleets]]',
            )
        ],
    ],
)
def test_no_control_characters_in_names_and_addresses(edits: list[Edit], tmp_path: Path) -> None:
    assert r"\u0000" in refusal(tmp_path, *edits)[0]


def test_tests_of_ones_own_have_no_defaults(tmp_path: Path) -> None:
    said = refusal(tmp_path, ('profile = "sample"', 'profile = "custom"'))
    assert ["content.distri is missing" in said[0], "content.tests is missing" in said[1]] == [True] * 2
    assert all('profile = "custom" has no defaults' in line for line in said)
    own = 'profile = "custom"\ndistri = "own"\ntests = "https://example.org/own.git"'
    made = load("here", write(tmp_path, ('profile = "sample"', own))).content
    assert (made.loader, made.templates, made.asset_limits) == ("scenarios", (), {})


def test_job_groups_have_names_that_no_file_has(tmp_path: Path) -> None:
    names = {"groups/one.yaml": "One (1.0)", "more/two/x.yaml": "Two/x"}
    files = OWN_GROUPS.replace("*.yaml", '*.yaml", "more/**/*.yaml')
    said = f"group_names = {{ {', '.join(f'{file!r} = {name!r}' for file, name in names.items())} }}"
    told = f'profile = "sample"\n{files}\n{said}'
    assert load("here", write(tmp_path, ('profile = "sample"', told))).content.group_names == names


def test_a_class_of_ones_own_needs_one_processor_that_has_it(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        ('profile = "sample"\n', 'profile = "example"\nclasses = { tpm = 1 }\n'),
    )
    assert [line for line in said if "tpm" in line]
    environment = load(
        "here",
        write(
            tmp_path,
            ('profile = "sample"\n', 'profile = "example"\nclasses = { tpm = 1 }\n'),
            ('classes = ["qemu_x86_64"]\n', 'classes = ["qemu_x86_64", "tpm"]\n'),
            ARM_IMAGE,
            (
                '[[fleets]]\nname = "metal"\narchitecture = "x86_64"\nclasses = ["qemu_x86_64"]\n'
                'instance_types = ["m5.metal"]',
                '[[fleets]]\nname = "arm"\narchitecture = "aarch64"\nclasses = ["qemu_aarch64"]\n'
                'instance_types = ["m7g.metal"]',
            ),
        ),
    )
    assert environment.content.classes == {"tpm": 1}


def test_images_that_do_not_fit_are_told(tmp_path: Path) -> None:
    environment = load("here", write(tmp_path))
    golden = environment.image.model_copy(update={"golden": True})
    (line,) = settings.warnings(environment.model_copy(update={"image": golden}))
    assert "image.golden = true: hosts would install nothing" in line
    (line,) = settings.warnings(environment.model_copy(update={"os": "fedora"}))
    assert line.endswith('Debian\'s, but os = "fedora"; wanted: an image of fedora')


def test_asset_limits_that_no_volume_holds_are_told(tmp_path: Path) -> None:
    environment = load("here", write(tmp_path))
    for limit, told in ((75, 0), (76, 1)):
        content = environment.content.model_copy(update={"asset_limits": {"a": 40, "b": limit - 40}})
        lines = settings.warnings(environment.model_copy(update={"content": content}))
        assert ["webui.volume_gib = 100; wanted: 75 in all" in line for line in lines] == [True] * told


def test_no_more_fleets_than_a_template_has_room_for(tmp_path: Path) -> None:
    fleet = BASE.rpartition("[[fleets]]")[2]
    more = "".join(f"[[fleets]]{fleet.replace('metal', f'metal{n}', 1)}" for n in range(FLEETS))
    (line,) = refusal(tmp_path, ("[[fleets]]" + fleet, more))
    assert line.startswith("environments/here.toml: fleets")
    assert "a [[fleets]] table for each fleet, up to 30" in line


def test_no_more_types_than_a_group_takes(tmp_path: Path) -> None:
    nested = [name for name, facts in catalogue.load().items() if facts.nested and facts.workers()]
    most, more = (('["m8i.2xlarge"]', json.dumps(nested[:count])) for count in (40, 41))
    assert len(load("here", write(tmp_path, most)).fleets[0].instance_types) == 40
    (line,) = refusal(tmp_path, more)
    assert "a list of 1 to 40 EC2 instance types" in line


def test_classes_of_ones_own_need_fleets(tmp_path: Path) -> None:
    said = refusal(tmp_path, ('profile = "sample"\n', 'profile = "sample"\nclasses = { tap = 6 }\n'))
    assert any("hold qemu_x86_64, tap" in line for line in said)


def fleet(**keys: Any) -> Fleet:
    plain: dict[str, Any] = {
        "name": "test",
        "architecture": "x86_64",
        "classes": ("qemu_x86_64",),
        "instance_types": ("m8i.4xlarge",),
        "virtualization": "nested",
    }
    return Fleet.model_validate(plain | keys)


@pytest.mark.parametrize(
    ("made", "workers", "volume"),
    [
        (fleet(), 8, 20 + 200 + 8 * 40),
        (fleet(cache_gib=50), 8, 20 + 50 + 8 * 40),
        (fleet(workers_per_host=3), 3, 20 + 200 + 3 * 40),
        (fleet(volume_gib=420), 5, 420),  # 200 left for pools
        (fleet(volume_gib=540), 8, 540),  # what is derived is enough
        (fleet(volume_gib=100), 0, 100),
        (fleet(volume_gib=100, workers_per_host=9), 9, 100),
        (fleet(instance_types=("m8i.4xlarge", "m8i.8xlarge")), 8, 20 + 200 + 16 * 40),
        (fleet(instance_types=("c8id.2xlarge",)), 2, 20),  # pools are on the instance store
        (fleet(instance_types=("c8id.2xlarge",), cache_gib=440), 0, 20),
        (fleet(instance_types=("c8id.8xlarge", "c8i.8xlarge")), 8, 20 + 200 + 8 * 40),
    ],
)
def test_workers_and_volume_of_a_fleet(made: Fleet, workers: int, volume: int) -> None:
    assert made.workers(made.instance_types[0]) == workers
    assert made.volume_size == volume


@pytest.mark.parametrize(
    ("share", "most", "on_demand"), [(0.0, 4, 4), (1.0, 4, 0), (0.5, 3, 2), (0.75, 20, 5), (0.7, 10, 3)]
)
def test_on_demand_hosts(share: float, most: int, on_demand: int) -> None:
    assert fleet(spot_share=share, max=most).on_demand_max == on_demand


VPCS = st.builds(
    lambda address, prefix: IPv4Network((0x0A000000 | address, prefix), strict=False),
    st.integers(0, 2**24 - 1),
    st.integers(16, 24),
)
ZONES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


@given(VPCS, ZONES)
def test_subnets_lie_apart_in_the_vpc(cidr: IPv4Network, letters: list[str]) -> None:
    zones = [f"us-east-1{letter}" for letter in letters]
    subnets = Network(cidr=cidr, availability_zones=tuple(zones), zone=zones[0]).subnets
    assert list(subnets.public) == list(subnets.private) == zones
    every = [*subnets.public.values(), *subnets.private.values()]
    assert all(subnet.subnet_of(cidr) and subnet.prefixlen <= 28 for subnet in every)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(every, 2))


@given(VPCS, ZONES, ZONES)
def test_subnets_never_move(cidr: IPv4Network, before: list[str], after: list[str]) -> None:
    plans = [
        Network(
            cidr=cidr, availability_zones=tuple(f"us-east-1{letter}" for letter in letters), zone=""
        ).subnets
        for letters in (before, after)
    ]
    for letter in set(before) & set(after):
        zone = f"us-east-1{letter}"
        assert plans[0].public[zone] == plans[1].public[zone]
        assert plans[0].private[zone] == plans[1].private[zone]


def places(document: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for key, value in inside:
        found.append((*here, key))
        if isinstance(value, dict | list):
            found += places(value, (*here, key))
    return found


ODD_STRINGS = st.sampled_from(["", "\n", "0.0.0.0/0", "10.0.0.0/33", "::/0", "fedora", "é", "-", "a" * 5000])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | ODD_STRINGS | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
DOCUMENT = tomllib.loads(BASE)
PLACES = places(DOCUMENT)


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@hypothesis_settings(max_examples=150)
def test_mutations_raise_nothing_but_settings_errors(
    mutations: list[tuple[tuple[str | int, ...], Any]],
) -> None:
    document = tomllib.loads(BASE)
    for place, value in mutations:
        here: Any = document
        try:
            for key in place[:-1]:
                here = here[key]
            here[place[-1]] = value
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier mutation took the place away
    try:
        reading._validated(document, name="here", file="here.toml")
    except SettingsError as error:
        for line in str(error).split("\n"):
            assert line.startswith("here.toml: ")
            assert "allowed: " in line


@given(text=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_raises_nothing_but_settings_errors(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "here.toml").write_bytes(text)
    with pytest.raises(SettingsError):
        load("here", tmp_path)


def models(model: type[BaseModel] = Environment) -> set[type[BaseModel]]:
    """The models of all tables that an environment file may have, and of the file itself."""
    inside = {table for field in model.model_fields.values() if (table := reading._table(field))}
    return {model}.union(*map(models, inside))


def test_all_tables_are_found() -> None:
    tables = {*Settings.__subclasses__(), *Build.__subclasses__(), settings.WebUi}
    assert models() == tables - {settings.StatefulHost, Build}


def test_every_key_is_on_the_operators_pages() -> None:
    text = "".join(page.read_text() for page in PAGES)
    code = re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL)
    words = {word for piece in code for word in re.findall(r"\w+", piece)}
    assert {name for model in models() for name in model.model_fields} - words == set()


EXAMPLES = re.findall(r"```toml\n(.*?)```", "".join(page.read_text() for page in PAGES), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: " ".join(example.split()[:3]))
def test_examples_on_the_operators_pages_are_allowed(example: str) -> None:
    """In an environment that has a broker, and a fleet for all of its jobs."""
    document: dict[str, Any] = tomllib.loads(BASE)
    there = {**document, "schedule": {"broker": "amqps://consumer@broker.example.org/%2Fevents"}}
    for key, value in tomllib.loads(example).items():
        document[key] = there[key] | value if isinstance(value, dict) else value
    document["fleets"][1]["network"] = "tap"
    document["fleets"][1]["classes"] += Content.model_validate(document["content"]).classes
    assert reading._validated(document, name="here", file="here.toml")


def test_only_tables_are_called_tables() -> None:
    called = {
        f"{model.__name__}.{name}"
        for model in models()
        for name, field in model.model_fields.items()
        if allowed(field) == "a table" and not reading._table(field)
    }
    assert called == set()


def test_an_id_that_debians_openqa_does_not_read(tmp_path: Path) -> None:
    edit = ('id_from = "id"', 'id_from = "sub"')
    (line,) = settings.warnings(load("here", write(tmp_path, edit)))
    assert line.startswith('here: sign_in.id_from = "sub": Debian\'s openQA knows people by')
    fedora = ("/aws/service/debian/release/13/latest/amd64", "ami-12345678")
    assert settings.warnings(load("here", write(tmp_path, edit, fedora, 'os = "fedora"'))) == ()
