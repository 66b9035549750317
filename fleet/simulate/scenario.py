"""The fleets that the policies choose from, and the numbers of the world that they live in.

Each fleet is one instance type with one number of workers. All policies have the same fleets; prices and
sizes come from `fleet.catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet import catalogue
from fleet.model import Fleet
from fleet.openqa_scheduler import Classes
from fleet.warm import Warm
from userdata.host.sizing import SYSTEM_GIB

GP3_BYTES_PER_SECOND = 125e6  # gp3's throughput, unless one pays for more
# The asset cache grows with the workers: a job's assets are some 5 GB, and a worker sees several jobs.
CACHE_GIB_PER_WORKER = 20
CACHE_GIB_MOST = 200

# As in production.toml: the web UI host's type, and its volume's throughput, as if memory held nothing.
WEBUI, WEBUI_BYTES_PER_SECOND = "m6in.2xlarge", 750 * 2.0**20
MAX_SLOTS = 1024  # for each fleet; so that the load decides and not the limit
TAP = ("tap", "tap2")

# The types worth considering, by architecture and virtualization: the cheapest of each size with the 8 GiB
# per worker that openQA asks for; the price per worker hardly depends on the size.
NESTED_X86 = ("m8i-flex.large", "m8i-flex.xlarge", "m8i-flex.2xlarge", "m8i-flex.4xlarge", "m8i-flex.8xlarge")
METAL_X86 = ("c5n.metal", "m5.metal", "m6i.metal")
METAL_AARCH64 = ("a1.metal", "m6g.metal")
# No Graviton host can nest; these ask what if. docs/decisions/quick-hosts-on-aarch64.md
NESTED_AARCH64 = ("m7g.large", "m7g.xlarge", "m7g.2xlarge", "m7g.4xlarge", "m7g.8xlarge")


@dataclass(frozen=True, kw_only=True)
class Drought:
    """A time in which AWS has no host for a fleet; in seconds from the start."""

    fleet: str
    begin: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A place to run jobs.

    Attributes:
        fleets: The fleets of hosts.
        types: The instance type of each fleet.
        webui_bytes_per_second: The most that the web UI's host sends.
        boot_scatter: Standard deviation of the logarithm of boot times.
        failure_share: The share of hosts that do not come up.
        spot_mean_hours: Mean time to a host's spot interruption; None for on-demand hosts.
        droughts: When AWS has no capacity.
        warm: By fleet, the times at which its operator wants hosts beforehand.
        drain_seconds: From the decision until a host takes no more jobs: its agent looks every five seconds.
        open_seconds: The same for a worker that is closed or opened, which starts in two seconds.
    """

    fleets: tuple[Fleet, ...]
    types: dict[str, str]
    webui_bytes_per_second: float
    boot_scatter: float = 0.12
    failure_share: float = 0.005
    spot_mean_hours: float | None = None
    droughts: tuple[Drought, ...] = ()
    warm: Mapping[str, Sequence[Warm]] = field(default_factory=dict)
    drain_seconds: float = 5.0
    open_seconds: float = 5.0

    def fetch_rate(self, fleet: str) -> float:
        """How fast a host of a fleet gets and stores assets, in bytes a second."""
        facts = catalogue.load()[self.types[fleet]]
        store = float("inf") if facts.disks else GP3_BYTES_PER_SECOND
        return min(facts.network_gbps * 1e9 / 8, store)


def scenario(*, architecture: str, boot_seconds: float, metal: bool, webui: str = WEBUI) -> Scenario:
    """Make the scenario of one architecture.

    Args:
        architecture: ``x86_64`` or ``aarch64``, which in AWS has KVM on metal only.
        boot_seconds: From launch to the first job.
        metal: Whole machines rather than nested virtualization.
        webui: The instance type of the web UI's host.

    Returns:
        Fleets of each size: on x86_64 without and with each of Fedora's tap classes, on aarch64 with both.
    """
    fleets: list[Fleet] = []
    types: dict[str, str] = {}
    machine = f"qemu_{architecture}"
    names: tuple[str, ...]
    if architecture == "aarch64":
        kinds = {"arm": frozenset({machine, "tpm", *TAP})}
        names = METAL_AARCH64 if metal else NESTED_AARCH64
    else:
        kinds = {"plain": frozenset({machine, "tpm"})}
        kinds |= {tap: frozenset({machine, tap}) for tap in TAP}
        names = METAL_X86 if metal else NESTED_X86
    for kind, classes in kinds.items():
        for name in names:
            facts = catalogue.load()[name]
            slots = facts.workers()
            if kind in TAP and slots == 1:
                continue
            fleet = f"{kind}-{slots}"
            types[fleet] = name
            fleets.append(_fleet(fleet, classes, facts, boot_seconds))
    sends = min(catalogue.load()[webui].network_gbps * 1e9 / 8, WEBUI_BYTES_PER_SECOND)
    return Scenario(fleets=tuple(fleets), types=types, webui_bytes_per_second=sends)


def _fleet(name: str, classes: Classes, facts: catalogue.InstanceType, boot_seconds: float) -> Fleet:
    slots = facts.workers()
    if facts.price is None:
        raise ValueError(f"The catalogue has no price of {facts.name}.")
    gib = SYSTEM_GIB
    if not facts.disks:
        gib += min(CACHE_GIB_PER_WORKER * slots, CACHE_GIB_MOST) + catalogue.DISK_GIB_PER_WORKER * slots
    return Fleet(
        name=name,
        classes=classes,
        slots=slots,
        price=facts.price + catalogue.volume_price(gib),
        boot_seconds=boot_seconds,
        max=MAX_SLOTS // slots,
    )
