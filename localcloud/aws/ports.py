"""What the runtime sees of the embedded AWS, and what it reports back.

:class:`Cloud` is the only thing of :mod:`localcloud.aws` that the runtime knows, besides
:func:`localcloud.aws.server.start`, which returns a server whose ``cloud`` is one. Every value is a
snapshot; :meth:`Cloud.wait` tells when there may be a new one. All methods may be called from any thread.

The runtime's part of the contract:

- an instance in state ``pending`` is to be booted, then ``set_state(id, "running")``; ``shutting-down`` is
  to be destroyed, then ``"terminated"``; ``stopping`` is to be shut down, then ``"stopped"``. A machine that
  ends by itself: ``"stopped"`` at any time. A changed ``reboots`` asks for a reboot of a running one.
- an attachment in state ``attaching`` is to be made, then :meth:`Cloud.attached`; ``detaching`` is to be
  undone, then :meth:`Cloud.detached`. The first interface of an instance (``index`` 0) and its root disk
  need neither. Attachments of an instance that goes are dropped by ``"terminated"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, Protocol

# Asked for by ``python -m localcloud interrupt``; only on the operator's side of the API.
INTERRUPT = "/localcloud/interrupt"

InstanceState = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]
AttachmentState = Literal["attaching", "attached", "detaching"]
TargetState = Literal["initial", "healthy", "unhealthy", "draining", "unused"]


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A subnet; its first address is the VPC router's."""

    id: str
    vpc: str
    cidr: IPv4Network
    zone: str


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A network interface attached to an instance."""

    id: str
    index: int  # 0: the instance's own
    address: IPv4Address
    mac: str
    subnet: str
    groups: tuple[str, ...]
    state: AttachmentState


@dataclass(frozen=True, kw_only=True)
class VolumeAttachment:
    """A data volume attached to an instance."""

    id: str
    device: str
    size_gib: int
    state: AttachmentState


@dataclass(frozen=True, kw_only=True)
class MetadataOptions:
    """The instance metadata service's options."""

    enabled: bool
    token_required: bool
    hop_limit: int
    tags: bool  # instance tags are readable there


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An EC2 instance that is wanted, or on its way out."""

    id: str
    state: InstanceState
    image: str
    type: str
    zone: str
    subnet: str
    vpc: str
    address: IPv4Address
    user_data: bytes
    role: str | None  # the IAM role's name, from the instance profile
    profile_arn: str | None
    tags: Mapping[str, str]
    metadata: MetadataOptions
    interfaces: tuple[Interface, ...]  # by index
    volumes: tuple[VolumeAttachment, ...]
    root_gib: int
    spot: bool
    launched: datetime
    reboots: int  # how often RebootInstances was called
    group: str | None  # the Auto Scaling group's name
    # For the metadata path autoscaling/target-lifecycle-state: InService, then Terminated.
    target_lifecycle_state: str | None
    interruption: datetime | None = None  # when EC2 reclaims the spot instance, once that is announced
    rebalance: datetime | None = None  # when a rebalance recommendation was given


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Temporary credentials of an instance's role."""

    access_key: str
    secret_key: str
    token: str
    expires: datetime


@dataclass(frozen=True, kw_only=True)
class Volume:
    """An EBS volume that exists, attached or not. One that is no longer listed was deleted."""

    id: str
    size_gib: int
    zone: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of traffic that is let through."""

    protocol: str  # tcp, udp, icmp, all, or another protocol's number
    first_port: int  # 0 to 65535; the whole range where the protocol has no ports
    last_port: int
    peers: tuple[IPv4Network, ...]  # sources of ingress, destinations of egress


@dataclass(frozen=True, kw_only=True)
class Firewall:
    """The security groups of one interface, resolved: groups named by a rule become their members' addresses.

    ``peers`` also holds the networks of prefix lists. Replies are always let through.
    """

    address: IPv4Address
    interface: str
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A DNS record; an alias of a load balancer is already resolved into its addresses."""

    name: str  # lower case, with the final dot
    type: str  # A, AAAA, CNAME, TXT, MX, SRV ...
    ttl: int  # seconds
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A hosted zone."""

    id: str
    name: str  # with the final dot
    vpcs: tuple[str, ...]  # the VPCs that see a private zone; empty: public
    records: tuple[Record, ...]


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Pass to a target group."""

    target_group: str  # ARN


@dataclass(frozen=True, kw_only=True)
class Redirect:
    """Answer with a redirect, in which ``#{host}``, ``#{path}`` and so on stand for the request's."""

    status: int
    protocol: str
    host: str
    port: str
    path: str
    query: str


@dataclass(frozen=True, kw_only=True)
class FixedResponse:
    """Answer with this."""

    status: int
    content_type: str
    body: str


Action = Forward | Redirect | FixedResponse


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listener of a load balancer."""

    arn: str
    port: int
    protocol: Literal["HTTP", "HTTPS"]
    certificates: tuple[str, ...]  # the names in its certificate, the main one first; empty for HTTP
    action: Action  # for all requests


@dataclass(frozen=True, kw_only=True)
class LoadBalancer:
    """An Application Load Balancer."""

    arn: str
    name: str
    dns_name: str
    internal: bool
    addresses: tuple[IPv4Address, ...]  # one per subnet; what it sends to targets comes from them
    idle_timeout: int  # seconds
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """How targets are probed."""

    protocol: str
    path: str
    port: str  # a number, or traffic-port
    interval: int  # seconds
    timeout: int  # seconds
    healthy: int  # successes in a row
    unhealthy: int  # failures in a row
    codes: str  # 200, 200-299 or 200,302


@dataclass(frozen=True, kw_only=True)
class Target:
    """A registered target."""

    id: str  # the instance
    address: IPv4Address
    port: int
    state: TargetState


@dataclass(frozen=True, kw_only=True)
class TargetGroup:
    """A target group."""

    arn: str
    name: str
    protocol: str
    port: int
    deregistration_delay: int  # seconds
    health_check: HealthCheck
    targets: tuple[Target, ...]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A shell script that Systems Manager is to run on an instance, as root."""

    id: str
    instance: str
    script: str
    seconds: int  # how long it may take


class Cloud(Protocol):
    """The embedded AWS as the runtime sees it."""

    def version(self) -> int:
        """A number that changes whenever anything below may have changed."""

    def wait(self, version: int, timeout: float) -> int:
        """Wait until the version differs from ``version``, or for ``timeout`` seconds; return the version."""

    def instances(self) -> tuple[Instance, ...]:
        """All instances except the terminated ones."""

    def set_state(self, instance: str, state: Literal["running", "stopped", "terminated"]) -> None:
        """Report what became of an instance. Unknown or already terminated ones are ignored."""

    def set_console(self, instance: str, output: bytes) -> None:
        """Set what GetConsoleOutput returns: the whole console so far, or its end."""

    def commands(self) -> tuple[Command, ...]:
        """The commands that are to be run."""

    def command_started(self, command: str) -> None:
        """Report that a command is now running."""

    def command_ended(
        self, command: str, *, code: int | None, stdout: str, stderr: str, seconds: float
    ) -> None:
        """Report how a command ended; without a code if it ran out of time."""

    def credentials(self, instance: str) -> Credentials | None:
        """Current credentials of the instance's role; None without a role. The same until nearly expired."""

    def volumes(self) -> tuple[Volume, ...]:
        """All volumes that exist."""

    def attached(self, resource: str) -> None:
        """The volume or network interface with this id is now attached."""

    def detached(self, resource: str) -> None:
        """The volume or network interface with this id is now detached."""

    def subnets(self) -> tuple[Subnet, ...]:
        """All subnets of the stacks' VPCs."""

    def firewalls(self) -> tuple[Firewall, ...]:
        """The security group rules in force, one entry for each interface of an instance or load balancer."""

    def zones(self) -> tuple[Zone, ...]:
        """All hosted zones."""

    def load_balancers(self) -> tuple[LoadBalancer, ...]:
        """All load balancers."""

    def target_groups(self) -> tuple[TargetGroup, ...]:
        """All target groups."""

    def set_target_health(
        self, target_group: str, instance: str, state: TargetState, *, description: str = ""
    ) -> None:
        """Report a target's health. Unknown targets are ignored."""
