"""The typed model of an environment file: all that an operator may set.

An environment is described by ``environments/NAME.toml``. :func:`load` reads and validates it before
anything else happens; every refusal is one line that names the file, the key, the value and what is
allowed.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fleet import catalogue

ENVIRONMENTS = Path(__file__).with_name("environments")

Architecture = Literal["x86_64", "aarch64"]
OperatingSystem = Literal["debian", "fedora"]

# What openQA and the tools beside it use inside a host; a VPC there would be out of the tests' reach.
RESERVED_NETWORKS: Mapping[IPv4Network, str] = {
    IPv4Network("172.16.0.0/15"): "the tap network of openQA's tests",
    IPv4Network("10.0.2.0/24"): "QEMU's user network",
    IPv4Network("10.1.0.0/16"): "networks inside openQA's tests",
    IPv4Network("10.88.0.0/16"): "podman",
    IPv4Network("192.168.122.0/24"): "libvirt",
}
PRIVATE_NETWORKS = tuple(
    IPv4Network(cidr) for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
ZONE_LETTERS = "abcdefgh"
SYSTEM_GIB = 20  # a worker host's volume beside pools and cache
# What the web UI should give each host when all fetch at once: an asset of 4 GB in eleven minutes. What it
# has to give is its instance type's network: it reads an asset that many fetch from memory (bench/fetch.py).
FETCH_GBPS = 0.05
FEDORA_ACCOUNTS = {
    "authorize_url": "https://id.fedoraproject.org/openidc/Authorization?response_type=code",
    "token_url": "https://id.fedoraproject.org/openidc/Token",
    "user_url": "https://id.fedoraproject.org/openidc/UserInfo",
    "token_scope": "openid profile email",
    "token_label": "Bearer",
    "id_from": "preferred_username",
    "nickname_from": "nickname",
    "unique_name": "FAS",
}


class SettingsError(Exception):
    """An environment cannot be used; the message has one line for each reason."""


@dataclass(frozen=True)
class Need:
    """Jobs of a content profile that only some workers can run.

    Attributes:
        classes: Worker classes the jobs ask for, beside the architecture's ``qemu_…``.
        cluster: Jobs of the largest parallel cluster, all of which must run on one host.
    """

    classes: frozenset[str] = frozenset()
    cluster: int = 1


# Fedora: WORKER_CLASS and PARALLEL_WITH in the job templates of its test distribution.
FEDORA_NEEDS = (
    Need(),
    Need(frozenset({"tap"}), cluster=6),
    Need(frozenset({"tap2"}), cluster=3),
    Need(frozenset({"tpm"})),
)
# By content profile and architecture. Only x86_64 must be there; others count where a fleet has them.
NEEDS: Mapping[str, Mapping[str, tuple[Need, ...]]] = {
    "sample": {"x86_64": (Need(),)},
    "fedora": {"x86_64": FEDORA_NEEDS, "aarch64": FEDORA_NEEDS},
}
# Classes that jobs may ask for: the tests of each content profile, what openQA's worker gives itself on a
# processor (lib/OpenQA/Worker.pm), and "metal", for jobs that want no second layer of virtualization.
KNOWN_CLASSES: Mapping[str, frozenset[str]] = {
    "x86_64": frozenset({"qemu_x86_64", "qemu_i686", "qemu_i586", "metal"}),
    "aarch64": frozenset({"qemu_aarch64", "metal"}),
    "sample": frozenset({"tap", "tpm"}),
    "fedora": frozenset({"tap", "tap2", "tpm"}),
}


def _network(value: object) -> object:
    return IPv4Network(value) if isinstance(value, str) else value


def _address(value: object) -> object:
    return IPv4Address(value) if isinstance(value, str) else value


# A description says what is allowed; refusals quote it.
Cidr = Annotated[IPv4Network, BeforeValidator(_network)]
Address = Annotated[IPv4Address, BeforeValidator(_address), Field(description="an IPv4 address in quotes")]
Gib = Field(ge=1, le=65536, description="a whole number of GiB from 1 to 65536, EBS's range for gp3")
Name = Field(
    max_length=16,
    pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
    description="up to 16 lowercase letters, digits and single hyphens, starting with a letter",
)
Hosts = Field(ge=0, le=1000, description="a whole number of hosts from 0 to 1000")
Days = Field(ge=1, le=3650, description="a whole number of days from 1 to 3650")
Vcpus = Field(ge=1, description="a whole number of vCPUs, as Service Quotas shows it")
InstanceTypeName = Annotated[
    str, Field(description="an EC2 instance type of fleet/catalogue.toml, in quotes")
]
DnsName = Annotated[
    str,
    Field(
        max_length=253,
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        description="a DNS name in lowercase, without a dot at its end, such as openqa.example.org",
    ),
]
ImageName = Field(
    pattern=r"^(ami-([0-9a-f]{8}|[0-9a-f]{17})|/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*)$",
    description="an AMI id (ami- and 8 or 17 hex digits) or the name of an SSM parameter (starts with /)",
)
WebAddress = Field(pattern=r"^https://[^\s/]+(/\S*)?$", description="an https:// address")
Text = Field(min_length=1, pattern=r"^[^\r\n]+$", description="one line of text")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


@dataclass(frozen=True, kw_only=True)
class Subnets:
    """The VPC's subnets by availability zone."""

    public: Mapping[str, IPv4Network]
    private: Mapping[str, IPv4Network]


class Network(_Settings):
    """The VPC."""

    cidr: Annotated[
        Cidr, Field(description="an IPv4 range in quotes whose host bits are zero, such as 10.20.0.0/16")
    ]
    availability_zones: Annotated[
        tuple[str, ...], Field(description="a list of at least two of the region's availability zones")
    ]
    # The one zone of the database and web UI hosts and their volumes.
    zone: Annotated[str, Field(description="one of availability_zones, in quotes")]
    egress: Literal["nat", "public-ip"] = "nat"

    @property
    def subnets(self) -> Subnets:
        """Divide the VPC into sixteen equal parts: the lower eight are public, the upper eight private.

        A zone's letter picks its part of each half, so that no subnet ever moves when zones come, go or
        change places.
        """
        parts = list(self.cidr.subnets(prefixlen_diff=4))
        index = {zone: ZONE_LETTERS.index(zone[-1]) for zone in self.availability_zones}
        return Subnets(
            public={zone: parts[i] for zone, i in index.items()},
            private={zone: parts[len(ZONE_LETTERS) + i] for zone, i in index.items()},
        )


class Image(_Settings):
    """The machine images that hosts boot: an AMI id, or the name of the SSM parameter that holds one."""

    x86_64: Annotated[str, ImageName]
    aarch64: Annotated[str | None, ImageName] = None
    # The AMI already went through userdata/install.sh; nothing is installed or loaded at boot.
    golden: bool = False


class Domain(_Settings):
    """The web UI's public name. Without it: HTTP on the load balancer's own name."""

    name: DnsName
    hosted_zone: DnsName
    # None: the zone is created by a stack of its own, which deploys first.
    hosted_zone_id: Annotated[
        str | None,
        Field(
            pattern=r"^Z[A-Z0-9]{1,31}$", description="a Route 53 zone id: Z and capital letters or digits"
        ),
    ] = None


class SignIn(_Settings):
    """How people sign in: OAuth2/OIDC, or openQA's Fake (local only).

    Provider ``fedora`` fills in what is not set; its values are those of Fedora's own openQA
    (fedora-infra/ansible, roles/openqa/server).
    """

    method: Literal["OAuth2", "Fake"]
    provider: Literal["fedora", "custom"] | None = None
    authorize_url: Annotated[str | None, WebAddress] = None
    token_url: Annotated[str | None, WebAddress] = None
    user_url: Annotated[str | None, WebAddress] = None
    token_scope: Annotated[str | None, Text] = None
    token_label: Annotated[str | None, Text] = None
    id_from: Annotated[str | None, Text] = None
    nickname_from: Annotated[str | None, Text] = None
    unique_name: Annotated[str | None, Text] = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("provider") == "fedora":
            return FEDORA_ACCOUNTS | data
        return data


class _Host(_Settings):
    instance_type: InstanceTypeName
    address: Address  # fixed, inside the zone's private subnet
    volume_gib: Annotated[int, Gib]


class Database(_Host):
    """The PostgreSQL host."""


class WebUi(_Host):
    """The web UI host."""


class Backups(_Settings):
    """What the backup bucket keeps and how safely, and the snapshots of the openQA volume."""

    keep_days: Annotated[int, Days] = 35
    # Nobody may delete or overwrite a version before: set it at the first deployment.
    object_lock_days: Annotated[int | None, Days] = None
    # A bucket of another region or account that gets a copy of each object: versioned, and made beforehand.
    replicate_to: Annotated[
        str | None,
        Field(
            pattern=r"^arn:aws(-cn|-us-gov)?:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
            description="the ARN of a bucket, such as arn:aws:s3:::openqa-backups-elsewhere",
        ),
    ] = None
    snapshot_hours: Annotated[
        Literal[1, 2, 3, 4, 6, 8, 12, 24],
        Field(description="1, 2, 3, 4, 6, 8, 12 or 24 hours between snapshots of the openQA volume"),
    ] = 24
    snapshots: Annotated[
        int, Field(ge=0, le=1000, description="a whole number from 0 (none are taken) to 1000")
    ] = 7


class Content(_Settings):
    """What is tested."""

    profile: Literal["sample", "fedora"]


class Fleet(_Settings):
    """Worker hosts of one kind: an Auto Scaling group."""

    name: Annotated[str, Name]
    architecture: Architecture
    classes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+:-]+$")], ...],
        Field(min_length=1, description="a list of worker classes: letters, digits and any of _ . + : -"),
    ]
    instance_types: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="a list of EC2 instance types of fleet/catalogue.toml"),
    ]
    virtualization: Literal["metal", "nested", "none"]
    kvm: bool = True  # false: software emulation, for machines that cannot do better
    network: Literal["user", "tap"] = "user"
    # None: derived from vCPU, memory and disk
    workers_per_host: Annotated[
        int | None,
        Field(
            ge=1,
            le=catalogue.MAX_WORKERS,
            description=f"a whole number from 1 to {catalogue.MAX_WORKERS}",
        ),
    ] = None
    min: Annotated[int, Hosts] = 0
    max: Annotated[int, Hosts] = 1
    spot_share: Annotated[
        float, Field(ge=0, le=1, description="a number from 0 (no spot hosts) to 1 (all of them)")
    ] = 0.0
    # Why a fleet of clusters may have spot hosts: one interruption ends all jobs of a cluster.
    spot_reason: Annotated[str | None, Text] = None
    volume_gib: Annotated[int | None, Gib] = None  # None: derived from the workers per host
    cache_gib: Annotated[int, Gib] = 200  # openQA's asset cache, one a host

    def workers(self, instance_type: str) -> int:
        """Tell how many workers a host of a type runs; see `catalogue.InstanceType.workers`.

        Args:
            instance_type: One of the catalogue's types.

        Returns:
            ``workers_per_host`` if it is set. Else what vCPU, memory and disk carry, where the disk is the
            instance store, or else the volume, without what the cache and the system take of it.
        """
        if self.workers_per_host is not None:
            return self.workers_per_host
        facts = catalogue.load()[instance_type]
        if facts.disks:
            return facts.workers(disk_gb=max(0, facts.storage_gb - self.cache_gib))
        if self.volume_gib is not None:
            return facts.workers(disk_gb=max(0, self.volume_gib - self.cache_gib - SYSTEM_GIB))
        return facts.workers()

    @property
    def volume_size(self) -> int:
        """The hosts' EBS volume in GiB: as set, or else 40 for each worker beside cache and system.

        Types with an instance store keep pools and cache there; only the system is on their volume.
        """
        if self.volume_gib is not None:
            return self.volume_gib
        workers = [self.workers(name) for name in self.instance_types if not catalogue.load()[name].disks]
        if not workers:
            return SYSTEM_GIB
        return SYSTEM_GIB + self.cache_gib + catalogue.DISK_GB_PER_WORKER * max(workers)

    @property
    def on_demand_percent(self) -> int:
        """The share of hosts that are not spot, in whole percent as Auto Scaling wants it."""
        return round(100 * (1 - self.spot_share))

    @property
    def on_demand_max(self) -> int:
        """Hosts that are not spot when the fleet is at its maximum; Auto Scaling rounds up."""
        return -(-self.max * self.on_demand_percent // 100)


class Environment(_Settings):
    """One deployment of openQA."""

    # The file's name
    name: Annotated[str, Name]
    kind: Literal["local", "dev", "production"]  # local and dev: state may be destroyed with the stacks
    account: Annotated[
        str, Field(pattern=r"^[0-9]{12}$", description="an AWS account's 12 digits, in quotes")
    ]
    region: Annotated[
        str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="an AWS region such as us-east-1")
    ]
    os: OperatingSystem = "debian"
    public: bool = False
    trusted: Annotated[
        tuple[Cidr, ...],
        Field(description="a list of IPv4 ranges in quotes whose host bits are zero, such as 203.0.113.0/24"),
    ]
    # Who may open the VNC of systems under test, which asks for no password. Worker hosts have private
    # addresses (but with egress = "public-ip"), so these are ranges of a VPN or a peered network.
    developers: Annotated[
        tuple[Cidr, ...],
        Field(description="a list of IPv4 ranges in quotes whose host bits are zero, such as 10.8.0.0/24"),
    ] = ()
    # The account's quotas "Running On-Demand Standard instances" and "All Standard Spot Instance Requests"
    vcpu_quota: Annotated[int | None, Vcpus] = None
    vcpu_spot_quota: Annotated[int | None, Vcpus] = None
    session_manager: bool = True
    network: Network
    image: Image
    domain: Domain | None = None
    sign_in: SignIn
    database: Database
    webui: WebUi
    backups: Backups = Backups()
    content: Content
    fleets: Annotated[tuple[Fleet, ...], Field(description="a [[fleets]] table for each fleet")]

    @property
    def hosts(self) -> Mapping[str, Database | WebUi]:
        """The hosts with a fixed address, by role."""
        return {"database": self.database, "webui": self.webui}

    @property
    def disposable(self) -> bool:
        """Whether the state may be destroyed with the stacks."""
        return self.kind != "production"


def warnings(environment: Environment) -> tuple[str, ...]:
    """Tells what is allowed, but likely a mistake: one line for each.

    Args:
        environment: a valid one.
    """
    return (*_unknown_classes(environment), *_slow_fetches(environment))


def _unknown_classes(environment: Environment) -> Iterator[str]:
    profile = environment.content.profile
    for fleet in environment.fleets:
        known = KNOWN_CLASSES[fleet.architecture] | KNOWN_CLASSES[profile]
        for name in fleet.classes:
            if name not in known:
                yield (
                    f"{environment.name}: fleets.{fleet.name}.classes = {_shown(name)}: no job asks for it "
                    f"that content {_shown(profile)} has; known: {', '.join(sorted(known))}"
                )


def _slow_fetches(environment: Environment) -> Iterator[str]:
    name = environment.webui.instance_type
    hosts = sum(fleet.max for fleet in environment.fleets)
    gbps = catalogue.load()[name].network_gbps
    if gbps < FETCH_GBPS * hosts:
        yield (
            f"{environment.name}: webui.instance_type = {_shown(name)}: {gbps:g} Gbit/s for {hosts} hosts "
            f"that may fetch assets at once; wanted: {FETCH_GBPS * hosts:g} Gbit/s, {FETCH_GBPS:g} for each"
        )


class _Problem(NamedTuple):
    key: str
    value: object  # None: the key is missing
    wrong: str
    allowed: str

    def line(self, file: str) -> str:
        shown = "is missing" if self.value is None else f"= {_shown(self.value)}"
        wrong = f": {self.wrong}" if self.wrong else ""
        return f"{file}: {self.key} {shown}{wrong}; allowed: {self.allowed}"


def names(directory: Path = ENVIRONMENTS) -> tuple[str, ...]:
    """List the environments that a directory describes, in alphabetical order."""
    return tuple(sorted(path.stem for path in directory.glob("*.toml") if path.is_file()))


def load(name: str, directory: Path = ENVIRONMENTS) -> Environment:
    """Read and validate an environment.

    Args:
        name: The environment's name: that of its file without ``.toml``.
        directory: Where the files are.

    Returns:
        The environment, with all that follows from its settings checked.

    Raises:
        SettingsError: There is no such environment, or its file is not in order. Each line of the message
            tells one reason: file, key, value and what is allowed.
    """
    known = names(directory)
    if name not in known:
        there = ", ".join(known) or f"none, {directory.name}/ holds no *.toml"
        wrong = f"there is no environment {_shown(name)}" if name else "no environment is named"
        raise SettingsError(f"{directory.name}: {wrong}; allowed: {there}")
    path = directory / f"{name}.toml"
    file = f"{directory.name}/{name}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise SettingsError(f"{file}: not valid TOML: {error}") from None
    return _validated(document, name=name, file=file)


def _validated(document: Mapping[str, Any], *, name: str, file: str) -> Environment:
    problems = []
    if "name" in document:
        wrong = "unknown key, an environment has its file's name"
        problems.append(_Problem("name", document["name"], wrong, ", ".join(_keys(Environment))))
    try:
        environment = Environment.model_validate({**document, "name": name})
    except ValidationError as error:
        for detail in error.errors():
            # A list counts as empty when its items are not in order, which is told already.
            if not (detail["type"] == "too_short" and detail["input"]):
                problems.append(_of_field(document, detail))
    else:
        problems += _problems(environment)
        if not problems:
            return environment
    raise SettingsError("\n".join(problem.line(file) for problem in problems))


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


SECTIONS: Mapping[str, type[BaseModel]] = {
    "network": Network,
    "image": Image,
    "domain": Domain,
    "sign_in": SignIn,
    "database": Database,
    "webui": WebUi,
    "backups": Backups,
    "content": Content,
    "fleets": Fleet,
}


def _key(document: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Name a place in the document; a fleet goes by its name."""
    parts: list[str] = []
    for part in location:
        name = str(part)
        if isinstance(part, int) and parts == ["fleets"]:
            fleet = document["fleets"][part]
            name = str(fleet.get("name", part + 1)) if isinstance(fleet, dict) else str(part + 1)
        elif isinstance(part, int):
            name = str(part + 1)
        parts.append(name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _shown(name))
    return ".".join(parts)


def _of_field(document: Mapping[str, Any], error: ErrorDetails) -> _Problem:
    """Put pydantic's finding in this module's words."""
    location = error["loc"]
    key = _key(document, location)
    model = _model(location)
    if error["type"] == "extra_forbidden":
        return _Problem(key, error["input"], "unknown key", ", ".join(_keys(model)))
    field = next(model.model_fields[str(part)] for part in reversed(location) if part in model.model_fields)
    return _Problem(key, None if error["type"] == "missing" else error["input"], "", _allowed(field))


def _model(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Find the model that a key belongs to: a table's, or the environment for the tables themselves."""
    inside = len(location) > (2 if location[0] == "fleets" else 1)
    return SECTIONS.get(str(location[0]), Environment) if inside else Environment


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    """List the keys that a file may hold; the environment's own name is not one."""
    return tuple(key for key in model.model_fields if key != "name" or model is not Environment)


def _allowed(field: FieldInfo) -> str:
    """Tell what a field may hold: its description, a literal's choices or its kind."""
    if field.description:
        return field.description
    inner = (field.annotation, *get_args(field.annotation))
    if choices := [choice for kind in inner for choice in get_args(kind) if isinstance(choice, str)]:
        return " or ".join(_shown(choice) for choice in choices)
    return "true or false" if field.annotation is bool else "a table"


def _problems(environment: Environment) -> Iterator[_Problem]:
    """Find what no single field shows."""
    network_problems = list(_network_problems(environment))
    yield from network_problems
    if not network_problems:
        yield from _address_problems(environment)
    yield from _host_problems(environment)
    yield from _access_problems(environment)
    yield from _sign_in_problems(environment)
    yield from _backup_problems(environment)
    unknown = []
    for fleet in environment.fleets:
        unknown += list(_unknown_types(f"fleets.{fleet.name}.instance_types", *fleet.instance_types))
    yield from unknown
    yield from _fleet_names(environment)
    yield from _coverage_problems(environment)
    if not unknown:
        for fleet in environment.fleets:
            yield from _fleet_problems(environment, fleet)
        yield from _quota_problems(environment)


def _network_problems(environment: Environment) -> Iterator[_Problem]:
    network = environment.network
    if not 16 <= network.cidr.prefixlen <= 24:
        wrong = "AWS takes /16 to /28, and two subnets for each zone need /24 or larger"
        yield _Problem("network.cidr", network.cidr, wrong, "a range from /16 to /24")
    if not any(network.cidr.subnet_of(private) for private in PRIVATE_NETWORKS):
        allowed = f"a range inside {', '.join(map(str, PRIVATE_NETWORKS))}"
        yield _Problem("network.cidr", network.cidr, "not a private range", allowed)
    for reserved, use in RESERVED_NETWORKS.items():
        if network.cidr.overlaps(reserved):
            allowed = f"a range clear of {', '.join(map(str, RESERVED_NETWORKS))}"
            yield _Problem("network.cidr", network.cidr, f"overlaps {reserved}, {use}", allowed)
    zones = network.availability_zones
    of_region = [environment.region + letter for letter in ZONE_LETTERS]
    for zone in zones:
        if zone not in of_region:
            allowed = f"zones of the region: {of_region[0]} to {of_region[-1]}"
            yield _Problem("network.availability_zones", zone, f"not in {environment.region}", allowed)
    if len(zones) < 2 or len(set(zones)) < len(zones):
        yield _Problem(
            "network.availability_zones", zones, "too few or twice the same", "two or more different zones"
        )
    if network.zone not in zones:
        yield _Problem("network.zone", network.zone, "not in availability_zones", ", ".join(zones))


def _address_problems(environment: Environment) -> Iterator[_Problem]:
    subnet = environment.network.subnets.private[environment.network.zone]
    first, last = subnet[4], subnet[-2]
    for role, host in environment.hosts.items():
        if not first <= host.address <= last:
            wrong = f"not free for hosts in {subnet}, the private subnet of {environment.network.zone}"
            yield _Problem(f"{role}.address", host.address, wrong, f"{first} to {last}")
    if environment.database.address == environment.webui.address:
        allowed = "two different addresses"
        yield _Problem("webui.address", environment.webui.address, "the database host's address too", allowed)


def _host_problems(environment: Environment) -> Iterator[_Problem]:
    for role, host in environment.hosts.items():
        key = f"{role}.instance_type"
        yield from _unknown_types(key, host.instance_type)
        facts = catalogue.find(host.instance_type)
        if facts and facts.architecture == "aarch64" and environment.image.aarch64 is None:
            wrong = "an aarch64 type, but image.aarch64 is not set"
            yield _Problem(key, host.instance_type, wrong, "an x86_64 type, or set image.aarch64")


def _unknown_types(key: str, *instance_types: str) -> Iterator[_Problem]:
    for name in instance_types:
        if catalogue.find(name) is None:
            near = difflib.get_close_matches(name, catalogue.load(), n=4, cutoff=0)
            allowed = f"a type of fleet/catalogue.toml, such as {', '.join(near)}"
            yield _Problem(key, name, "unknown instance type", allowed)


def _access_problems(environment: Environment) -> Iterator[_Problem]:
    if environment.public and environment.domain is None:
        yield _Problem("public", True, "without a domain there is no HTTPS", "false, or add a [domain]")
    if not environment.public and not environment.trusted:
        allowed = "at least one range, or public = true"
        yield _Problem("trusted", environment.trusted, "nobody could reach the web UI", allowed)
    for cidr in environment.trusted:
        if cidr.prefixlen < 8 and not environment.public:
            allowed = "ranges of /8 or smaller, unless public = true"
            yield _Problem("trusted", cidr, "trusts a large part of the internet", allowed)
    for cidr in environment.developers:
        if cidr.prefixlen < 8:
            wrong = "opens VNC to a large part of the internet"
            yield _Problem("developers", cidr, wrong, "ranges of /8 or smaller")
    domain = environment.domain
    if domain and domain.name != domain.hosted_zone and not domain.name.endswith(f".{domain.hosted_zone}"):
        wrong = f"outside its hosted zone {domain.hosted_zone}"
        allowed = f"{domain.hosted_zone} or a name that ends in .{domain.hosted_zone}"
        yield _Problem("domain.name", domain.name, wrong, allowed)


def _sign_in_problems(environment: Environment) -> Iterator[_Problem]:
    sign_in = environment.sign_in
    if sign_in.method == "Fake" and environment.kind != "local":
        wrong = "lets everybody in as administrator"
        yield _Problem("sign_in.method", "Fake", wrong, '"OAuth2", or kind = "local"')
    if sign_in.method == "OAuth2" and sign_in.provider is None:
        yield _Problem("sign_in.provider", None, "", '"fedora" or "custom"')
    if sign_in.method == "OAuth2" and sign_in.provider == "custom":
        for key in FEDORA_ACCOUNTS:
            if getattr(sign_in, key) is None:
                allowed = _allowed(SignIn.model_fields[key])
                yield _Problem(f"sign_in.{key}", None, "", f'{allowed}; provider = "custom" has no defaults')


def _backup_problems(environment: Environment) -> Iterator[_Problem]:
    backups = environment.backups
    locked = backups.object_lock_days
    if locked is not None and locked > backups.keep_days:
        wrong = f"more than backups.keep_days = {backups.keep_days}, after which nothing is wanted"
        yield _Problem("backups.object_lock_days", locked, wrong, f"1 to {backups.keep_days}")


def _fleet_names(environment: Environment) -> Iterator[_Problem]:
    fleet_names = [fleet.name for fleet in environment.fleets]
    for name in sorted({name for name in fleet_names if fleet_names.count(name) > 1}):
        yield _Problem("fleets.name", name, "two fleets have this name", "a name of its own for each fleet")


def _fleet_problems(environment: Environment, fleet: Fleet) -> Iterator[_Problem]:
    key = f"fleets.{fleet.name}"
    if fleet.min > fleet.max:
        yield _Problem(f"{key}.min", fleet.min, f"more than max = {fleet.max}", f"0 to {fleet.max}")
    if fleet.architecture == "aarch64" and environment.image.aarch64 is None:
        wrong = "image.aarch64 is not set"
        yield _Problem(f"{key}.architecture", fleet.architecture, wrong, '"x86_64", or set image.aarch64')
    if fleet.virtualization == "none" and fleet.kvm:
        wrong = "no KVM without virtualization"
        yield _Problem(f"{key}.virtualization", "none", wrong, '"metal" or "nested", or kvm = false')
    if fleet.virtualization == "nested" and fleet.architecture == "aarch64":
        wrong = "aarch64 instances have no nested virtualization"
        yield _Problem(f"{key}.virtualization", "nested", wrong, '"metal"')
    foreign = "qemu_x86_64" if fleet.architecture == "aarch64" else "qemu_aarch64"
    if foreign in fleet.classes:
        wrong = f"promises another architecture than {fleet.architecture}"
        yield _Problem(f"{key}.classes", foreign, wrong, f"qemu_{fleet.architecture}")
    for name in sorted({"tap", "tap2"} & set(fleet.classes)):
        if fleet.network != "tap":
            wrong = f'the fleet\'s network is "{fleet.network}"'
            yield _Problem(f"{key}.classes", name, wrong, f'classes other than {name}, or network = "tap"')
    if fleet.network == "tap" and fleet.spot_share > 0 and fleet.spot_reason is None:
        wrong = "an interrupted spot host ends all jobs of its clusters"
        yield _Problem(f"{key}.spot_share", fleet.spot_share, wrong, "0, or say why in spot_reason")
    for name in fleet.instance_types:
        yield from _type_problems(environment, fleet, name)


def _type_problems(environment: Environment, fleet: Fleet, name: str) -> Iterator[_Problem]:
    key = f"fleets.{fleet.name}.instance_types"
    facts = catalogue.load()[name]
    if facts.architecture != fleet.architecture:
        wrong = f"{facts.architecture}, but the fleet is {fleet.architecture}"
        yield _Problem(key, name, wrong, f"types with architecture {fleet.architecture}")
    if fleet.virtualization == "metal" and not facts.metal:
        yield _Problem(key, name, 'not a metal type, but virtualization = "metal"', "metal types")
    if fleet.virtualization == "nested" and facts.metal:
        wrong = 'a metal type, but virtualization = "nested"'
        yield _Problem(key, name, wrong, 'types that are not metal, or virtualization = "metal"')
    if fleet.virtualization == "nested" and not facts.metal and not facts.nested:
        allowed = "a family with nested virtualization, such as c8i, m8i, r8i and their flex variants"
        yield _Problem(key, name, "no nested virtualization", allowed)
    workers = fleet.workers(name)
    if not workers:
        allowed = (
            f"types and volumes with {catalogue.VCPU_PER_WORKER} vCPU, {catalogue.MEMORY_GIB_PER_WORKER} GiB "
            f"of memory and {catalogue.DISK_GB_PER_WORKER} GB of disk for a worker, or set workers_per_host"
        )
        yield _Problem(key, name, "too small for one worker", allowed)
    for need in NEEDS[environment.content.profile].get(fleet.architecture, ()):
        if need.classes and need.classes <= set(fleet.classes) and workers < need.cluster:
            wrong = f"{workers} workers a host, but {need.cluster} {'+'.join(need.classes)} jobs run together"
            yield _Problem(key, name, wrong, f"types that carry {need.cluster} workers or more")


def _coverage_problems(environment: Environment) -> Iterator[_Problem]:
    fleets = [fleet for fleet in environment.fleets if fleet.max > 0]
    architectures = sorted({"x86_64"} | {fleet.architecture for fleet in fleets})
    profile = environment.content.profile
    for architecture in architectures:
        for need in NEEDS[profile].get(architecture, ()):
            classes = need.classes | {f"qemu_{architecture}"}
            if not any(
                fleet.architecture == architecture and classes <= set(fleet.classes) for fleet in fleets
            ):
                together = ", ".join(sorted(classes))
                wrong = f"content {_shown(profile)} has {architecture} jobs that no fleet serves"
                allowed = f"one {architecture} fleet with max above 0 whose classes hold {together}"
                yield _Problem("fleets", [fleet.name for fleet in environment.fleets], wrong, allowed)


def _quota_problems(environment: Environment) -> Iterator[_Problem]:
    if not all(catalogue.find(host.instance_type) for host in environment.hosts.values()):
        return
    on_demand, spot = _vcpus(environment)
    quotas = {
        "vcpu_quota": (environment.vcpu_quota, on_demand, "on-demand hosts"),
        "vcpu_spot_quota": (environment.vcpu_spot_quota, spot, "spot hosts"),
    }
    for key, (quota, vcpus, hosts) in quotas.items():
        if quota is not None and vcpus > quota:
            wrong = f"all {hosts} at their fleets' max have {vcpus} vCPUs"
            yield _Problem(key, quota, wrong, f"{vcpus} or more if AWS grants it, or smaller fleets")


def _vcpus(environment: Environment) -> tuple[int, int]:
    """Count the vCPUs of on-demand and of spot hosts, every fleet at its maximum on its largest type."""
    types = catalogue.load()
    on_demand = sum(types[host.instance_type].vcpu for host in environment.hosts.values())
    spot = 0
    for fleet in environment.fleets:
        largest = max(types[name].vcpu for name in fleet.instance_types)
        on_demand += largest * fleet.on_demand_max
        spot += largest * (fleet.max - fleet.on_demand_max)
    return on_demand, spot
