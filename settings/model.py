"""The settings of an environment, by the tables of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet import catalogue
from fleet.warm import PATTERN as WARM
from settings.builder import Builder
from settings.content import Content
from settings.fields import (
    GP3_GIB,
    Address,
    Architecture,
    BrowserAddress,
    Cidr,
    Days,
    DnsName,
    Gib,
    Hosts,
    ImageName,
    InstanceType,
    InstanceTypeName,
    InstanceTypes,
    Name,
    OperatingSystem,
    OptionalAddress,
    Settings,
    Text,
    Vcpus,
    WebAddress,
)
from settings.messages import Schedule
from settings.timetable import Entry
from userdata.host import sizing

# Networks that openQA and the tools beside it use inside a host, besides that of content.tap_address; tests
# could not reach a VPC there.
RESERVED_NETWORKS: Mapping[IPv4Network, str] = {
    IPv4Network("10.0.2.0/24"): "QEMU's user network",
    IPv4Network("10.1.0.0/16"): "networks inside openQA's tests",
    IPv4Network("10.88.0.0/16"): "podman",
    IPv4Network("192.168.122.0/24"): "libvirt",
}
PRIVATE_NETWORKS = tuple(
    IPv4Network(cidr) for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
ZONE_LETTERS = "abcdefgh"
# The only account and region that the local cloud has.
LOCAL_ACCOUNT = "123456789012"
LOCAL_REGION = "us-east-1"
RDS_DAYS = 35  # RDS keeps its own backups no longer
# The workers' template holds up to 13 KB of user data for each, and CloudFormation takes a million bytes.
FLEETS = 30
MESH_HOSTS = 50  # beyond it, the tunnels' upkeep would use up the account's rate of EC2 calls
SYSTEM_GIB = sizing.SYSTEM_GIB
RootGib = Field(
    ge=SYSTEM_GIB,
    le=GP3_GIB,
    description=f"a whole number of GiB from {SYSTEM_GIB} to {GP3_GIB}, the most for gp3",
)
# What the web UI should give each host when all fetch at once: an asset of 4 GB in eleven minutes. Its
# network limits it, and its volume: an asset that many fetch is read from memory (bench/fetch.py), but the
# first fetch, and all that memory does not hold, comes from the volume.
FETCH_GBPS = 0.05
# gp3's throughput in MiB/s: the least, which its price includes, and the most with the 3000 IOPS that it
# includes too (0.25 MiB/s for each). More throughput would take more IOPS, which nothing here needs.
# docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GP3_MIBPS = (catalogue.GP3_FREE_MIBPS, 750)
Mibps = Field(
    ge=GP3_MIBPS[0],
    le=GP3_MIBPS[1],
    description=f"a whole number of MiB/s from {GP3_MIBPS[0]} to {GP3_MIBPS[1]}, gp3's range with 3000 IOPS",
)
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


@dataclass(frozen=True, kw_only=True)
class Subnets:
    """The VPC's subnets by availability zone."""

    public: Mapping[str, IPv4Network]
    private: Mapping[str, IPv4Network]


class Network(Settings):
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

        A zone's letter picks its part of each half, so that no subnet moves when zones are added, removed or
        reordered.
        """
        parts = list(self.cidr.subnets(prefixlen_diff=4))
        index = {zone: ZONE_LETTERS.index(zone[-1]) for zone in self.availability_zones}
        return Subnets(
            public={zone: parts[i] for zone, i in index.items()},
            private={zone: parts[len(ZONE_LETTERS) + i] for zone, i in index.items()},
        )


class Image(Settings):
    """The machine images that hosts boot: an AMI id, or the name of the SSM parameter that holds one.

    Each architecture of the hosts needs one.
    """

    x86_64: Annotated[str | None, ImageName] = None
    aarch64: Annotated[str | None, ImageName] = None
    # userdata/install.sh ran when the AMI was made; nothing is installed or loaded at boot.
    golden: bool = False

    def of(self, architecture: Architecture) -> str | None:
        """Tell which image hosts of an architecture boot; None where none is set.

        Args:
            architecture: Their processor.
        """
        return self.aarch64 if architecture == "aarch64" else self.x86_64


class Domain(Settings):
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


class SignIn(Settings):
    """How people sign in: OAuth2/OIDC, or openQA's Fake (local only).

    Provider ``fedora`` fills in what is not set; its values are those of Fedora's own openQA
    (fedora-infra/ansible, roles/openqa/server).
    """

    method: Literal["OAuth2", "Fake"]
    provider: Literal["fedora", "custom"] | None = None
    authorize_url: Annotated[str | None, BrowserAddress] = None
    token_url: Annotated[str | None, WebAddress] = None
    user_url: Annotated[str | None, WebAddress] = None
    token_scope: Annotated[str | None, Text] = None
    token_label: Annotated[str | None, Text] = None
    id_from: Annotated[str | None, Text] = None
    nickname_from: Annotated[str | None, Text] = None
    unique_name: Annotated[str | None, Text] = None
    # openQA makes its first user an administrator, but that is the deployment itself. These appoint others.
    administrators: Annotated[
        tuple[Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]*$")], ...],
        Field(
            description="a list of people, each by the value of the provider's field id_from in quotes, such "
            "as account names"
        ),
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("provider") == "fedora":
            return FEDORA_ACCOUNTS | data
        return data


class StatefulHost(Settings):
    """A host with a volume and a fixed address."""

    instance_type: InstanceTypeName
    address: Address  # fixed, inside the zone's private subnet
    volume_gib: Annotated[int, Gib]
    # The host's own disk. Rehearsals of restores need room for the database there.
    root_gib: Annotated[int, RootGib] = SYSTEM_GIB


class Rds(Settings):
    """A PostgreSQL that AWS runs, in two availability zones."""

    instance_class: Annotated[
        str,
        Field(
            pattern=r"^db\.[a-z0-9-]+\.[a-z0-9]+$", description="an RDS instance class such as db.m7g.large"
        ),
    ]
    volume_gib: Annotated[
        int,
        Field(ge=20, le=65536, description="a whole number of GiB from 20 to 65536, RDS's range for gp3"),
    ]


class Database(Settings):
    """PostgreSQL: in a container on a host of ours, or in RDS; while it moves between them, both."""

    # Which of them openQA uses.
    engine: Literal["container", "rds"] = "container"
    # The host of the container: all three or none. With engine "rds" volume and address stay, and no host.
    instance_type: Annotated[str | None, InstanceType] = None
    address: OptionalAddress = None
    volume_gib: Annotated[int | None, Gib] = None
    root_gib: Annotated[int, RootGib] = SYSTEM_GIB
    rds: Rds | None = None

    @property
    def moved(self) -> bool:
        """Whether RDS takes the place of the container, so that its database must be there already."""
        return self.engine == "rds" and self.host is not None

    @property
    def host(self) -> StatefulHost | None:
        """The host of the container, with its volume and address; None: there shall be none."""
        if self.instance_type is None or self.address is None or self.volume_gib is None:
            return None
        return StatefulHost(
            instance_type=self.instance_type,
            address=self.address,
            volume_gib=self.volume_gib,
            root_gib=self.root_gib,
        )


class WebUi(StatefulHost):
    """The web UI host."""

    volume_mibps: Annotated[int, Mibps] = GP3_MIBPS[0]

    @property
    def volume_gbps(self) -> float:
        """The volume's throughput in Gbit/s, for comparison with networks."""
        return self.volume_mibps * 2**20 * 8 / 1e9


class Backups(Settings):
    """What the backup bucket keeps, and how safely; and the snapshots of the openQA volume."""

    keep_days: Annotated[int, Days] = 35
    # Until then nobody may delete or overwrite a version. Set it at the first deployment.
    object_lock_days: Annotated[int | None, Days] = None
    # A bucket in another region or account that gets a copy of each object; it must exist and be versioned.
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


class Fleet(Settings):
    """Worker hosts of one kind: an Auto Scaling group."""

    name: Annotated[str, Name]
    architecture: Architecture
    classes: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+:-]+$")], ...],
        Field(min_length=1, description="a list of worker classes: letters, digits and any of _ . + : -"),
    ]
    instance_types: InstanceTypes
    virtualization: Literal["metal", "nested", "none"]
    kvm: bool = True  # false: software emulation, for machines that cannot do better
    # vde: guests of a cluster talk to each other as with tap, but no worker needs privileges
    network: Literal["user", "tap", "vde"] = "user"
    # mesh: clusters may span the fleet's hosts, over GRE tunnels
    tap_topology: Literal["host", "mesh"] = "host"
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
    # How many hosts to keep ready, by time of the week.
    warm: Annotated[
        tuple[Annotated[str, Field(pattern=WARM)], ...],
        Field(description='a list of times in UTC with the hosts to keep, such as "mon-fri 06:00-20:00 2"'),
    ] = ()
    # Additional hosts, as a share of the jobs that wait for booting ones. None: the policy's
    spare: Annotated[
        float | None, Field(ge=0, le=2, description="a number from 0 (none) to 2 (two more for each)")
    ] = None
    # Why a fleet of clusters may have spot hosts: one interruption ends all jobs of a cluster.
    spot_reason: Annotated[str | None, Text] = None
    volume_gib: Annotated[int | None, Gib] = None  # None: derived from the workers per host
    volume_mibps: Annotated[int, Mibps] = GP3_MIBPS[0]  # for all workers of a host together
    cache_gib: Annotated[int, Gib] = 200  # openQA's asset cache, one per host

    def workers(self, instance_type: str) -> int:
        """Tell how many workers a host of a type runs; see `catalogue.InstanceType.workers`.

        Args:
            instance_type: One of the catalogue's types.

        Returns:
            ``workers_per_host`` if it is set, else as many as vCPU, memory and disk carry. The disk is the
            instance store, or else the volume, without what cache and system take.
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
    def mesh(self) -> bool:
        """Whether clusters may span the fleet's hosts."""
        return self.tap_topology == "mesh"

    @property
    def one_host(self) -> bool:
        """Whether all jobs of a cluster must run on one host, as their guests can only meet there."""
        return self.network in ("tap", "vde") and not self.mesh

    @property
    def volume_size(self) -> int:
        """The hosts' EBS volume in GiB: as set, or else what it must hold."""
        return self.needed_gib if self.volume_gib is None else self.volume_gib

    @property
    def needed_gib(self) -> int:
        """What the hosts' EBS volume must hold, in GiB: 40 for each worker beside cache and system.

        Types with an instance store keep pools and cache there; only the system is on their volume.
        """
        workers = [self.workers(name) for name in self.instance_types if not catalogue.load()[name].disks]
        if not workers:
            return SYSTEM_GIB
        return SYSTEM_GIB + self.cache_gib + catalogue.DISK_GIB_PER_WORKER * max(workers)

    @property
    def on_demand_percent(self) -> int:
        """The share of hosts that are not spot, in whole percent, as Auto Scaling wants it."""
        return round(100 * (1 - self.spot_share))

    @property
    def on_demand_max(self) -> int:
        """Hosts that are not spot when the fleet is at its maximum; Auto Scaling rounds up."""
        return -(-self.max * self.on_demand_percent // 100)


class Environment(Settings):
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
    # true: everybody reaches the web UI; false: only the ranges in trusted do.
    public: bool = False
    trusted: Annotated[
        tuple[Cidr, ...],
        Field(description="a list of IPv4 ranges in quotes whose host bits are zero, such as 203.0.113.0/24"),
    ] = ()
    # Who may open the VNC of systems under test, which asks for no password. Worker hosts have private
    # addresses (unless egress = "public-ip"), so these are ranges of a VPN or a peered network.
    developers: Annotated[
        tuple[Cidr, ...],
        Field(description="a list of IPv4 ranges in quotes whose host bits are zero, such as 10.8.0.0/24"),
    ] = ()
    # The account's quotas "Running On-Demand Standard instances" and "All Standard Spot Instance Requests"
    vcpu_quota: Annotated[int | None, Vcpus] = None
    vcpu_spot_quota: Annotated[int | None, Vcpus] = None
    session_manager: bool = True
    # Where to report that an alarm rings, and that it has stopped. None: alarms can only be looked at.
    alarm_topic: Annotated[
        str | None,
        Field(
            pattern=r"^arn:aws(-cn|-us-gov)?:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$",
            description="the ARN of an SNS topic, such as arn:aws:sns:us-east-1:111122223333:openqa",
        ),
    ] = None
    network: Network
    image: Image
    domain: Domain | None = None
    sign_in: SignIn
    database: Database
    webui: WebUi
    backups: Backups = Backups()
    content: Content
    # None: no messages schedule anything.
    schedule: Schedule | None = None
    timetable: Annotated[
        tuple[Entry, ...], Field(description="a [[timetable]] table with at and post for each build")
    ] = ()
    fleets: Annotated[
        tuple[Fleet, ...],
        Field(max_length=FLEETS, description=f"a [[fleets]] table for each fleet, up to {FLEETS}"),
    ]
    builders: Annotated[
        tuple[Builder, ...], Field(description="a [[builders]] table for each architecture")
    ] = ()

    @property
    def hosts(self) -> Mapping[str, StatefulHost]:
        """The hosts with a fixed address, by role."""
        host = self.database.host
        return {**({"database": host} if host else {}), "webui": self.webui}

    def os_of(self, builder: Builder) -> OperatingSystem:
        """Tell what a builder's host runs."""
        return builder.os or self.os

    def image_of(self, builder: Builder) -> str | None:
        """Tell which machine image a builder's host boots; None where none is set."""
        return builder.image or self.image.of(builder.architecture)

    @property
    def disposable(self) -> bool:
        """Whether the state may be destroyed with the stacks."""
        return self.kind != "production"

    @property
    def log_days(self) -> int:
        """For how many days logs are kept; one of the numbers that CloudWatch Logs takes."""
        return 7 if self.disposable else 90
