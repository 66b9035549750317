"""The typed model of an environment file: all that an operator may set.

An environment is described by ``environments/NAME.toml``. :func:`load` reads and validates it before
anything else happens; every refusal is one line that names the file, the key, the value and what is
allowed.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from pydantic import BaseModel, ConfigDict

Architecture = Literal["x86_64", "aarch64"]
OperatingSystem = Literal["debian", "fedora"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Settings):
    """The VPC."""

    cidr: IPv4Network
    availability_zones: tuple[str, ...]
    # The one zone of the database and web UI hosts and their volumes.
    zone: str
    egress: Literal["nat", "public-ip"] = "nat"


class Image(_Settings):
    """The machine images that hosts boot: an AMI id, or the name of the SSM parameter that holds one."""

    x86_64: str
    aarch64: str | None = None
    # The AMI already went through userdata/install.sh; nothing is installed or loaded at boot.
    golden: bool = False


class Domain(_Settings):
    """The web UI's public name. Without it: HTTP on the load balancer's own name."""

    name: str
    hosted_zone: str
    # None: the zone is created by a stack of its own, which deploys first.
    hosted_zone_id: str | None = None


class SignIn(_Settings):
    """How people sign in: OAuth2/OIDC, or openQA's Fake (local only)."""

    method: Literal["OAuth2", "Fake"]
    provider: Literal["fedora", "custom"] | None = None
    authorize_url: str | None = None
    token_url: str | None = None
    user_url: str | None = None
    token_scope: str | None = None
    token_label: str | None = None
    id_from: str | None = None
    nickname_from: str | None = None
    unique_name: str | None = None


class Database(_Settings):
    """The PostgreSQL host."""

    instance_type: str
    address: IPv4Address  # fixed, inside the zone's private subnet
    volume_gib: int


class WebUi(_Settings):
    """The web UI host."""

    instance_type: str
    address: IPv4Address  # fixed, inside the zone's private subnet
    volume_gib: int


class Content(_Settings):
    """What is tested."""

    profile: Literal["sample", "fedora"]


class Fleet(_Settings):
    """Worker hosts of one kind: an Auto Scaling group."""

    name: str
    architecture: Architecture
    classes: tuple[str, ...]
    instance_types: tuple[str, ...]
    virtualization: Literal["metal", "nested", "none"]
    kvm: bool = True  # false: software emulation, for machines that cannot do better
    network: Literal["user", "tap"] = "user"
    workers_per_host: int | None = None  # None: derived from vCPU, memory and disk
    min: int = 0
    max: int = 1
    spot_share: float = 0.0  # 0 to 1
    volume_gib: int | None = None  # None: derived from the workers per host


class Environment(_Settings):
    """One deployment of openQA."""

    name: str  # the file's name
    kind: Literal["local", "dev", "production"]  # local and dev: state may be destroyed with the stacks
    account: str
    region: str
    os: OperatingSystem = "debian"
    public: bool = False
    trusted: tuple[IPv4Network, ...]
    vcpu_quota: int | None = None
    session_manager: bool = True
    network: Network
    image: Image
    domain: Domain | None = None
    sign_in: SignIn
    database: Database
    webui: WebUi
    content: Content
    fleets: tuple[Fleet, ...]
