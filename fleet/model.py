"""What a decision rests on, `Seen`, and what it says, `Decision`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from fleet.openqa_scheduler import Classes, Job


class State(Enum):
    """What a host is doing."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A job on a worker.

    Attributes:
        job: openQA's id.
        since: When the worker got it, seconds since the epoch.
        expected_seconds: How long such jobs usually hold a worker; None if not known.
    """

    job: int
    since: float
    expected_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A worker host, from its launch to its end.

    Attributes:
        id: The instance's id.
        fleet: The name of its fleet.
        state: Booting until its workers are connected; draining once it takes no more jobs.
        launched: When it was launched, seconds since the epoch.
        idle_since: Since when none of its workers has had a job; None while one has.
        running: The jobs on its workers.
        outdated: Its launch template is no longer the fleet's.
        unfit: How many of its workers are missing or unfit for a job, though nobody closed them.
    """

    id: str
    fleet: str
    state: State
    launched: float
    idle_since: float | None = None
    running: tuple[Running, ...] = ()
    outdated: bool = False
    unfit: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """An Auto Scaling group of worker hosts that are all alike.

    Attributes:
        name: The fleet's name.
        classes: What its workers offer.
        slots: Workers on each host.
        price: What a host costs an hour, its volume included, in US dollars.
        boot_seconds: From launch to the first job, usually.
        min: Hosts to keep in any case.
        max: Hosts it may have, draining ones included.
        warm: Hosts to have now so that those of the operator's schedule are up in time.
        spare: The share of spare slots that the operator wants; None: as `Rules.spare` says.
        one_host: Its workers take a parallel cluster only as a whole (``PARALLEL_ONE_HOST_ONLY``).
        failures: Hosts in a row that did not come up.
        last_failure: When the last of them was given up, seconds since the epoch.
        no_capacity_at: When AWS last said that it has no such host, seconds since the epoch.
    """

    name: str
    classes: Classes
    slots: int
    price: float
    boot_seconds: float
    max: int
    min: int = 0
    warm: int = 0
    spare: float | None = None
    one_host: bool = True
    failures: int = 0
    last_failure: float | None = None
    no_capacity_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """All that a decision rests on.

    Attributes:
        now: Seconds since the epoch.
        jobs_at: When openQA's queue and workers were read.
        hosts_at: When the Auto Scaling groups were read.
        jobs: All scheduled jobs, blocked ones too.
        hosts: All hosts of the fleets.
        fleets: The fleets.
        recent: How many of the jobs that ended last asked for which classes.
        doubt: Why what was read cannot be true, which only its reader can tell; None if it can be.
    """

    now: float
    jobs_at: float
    hosts_at: float
    jobs: Sequence[Job]
    hosts: Sequence[Host]
    fleets: Sequence[Fleet]
    recent: Mapping[Classes, int] = field(default_factory=dict)
    doubt: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        desired: For each fleet, hosts to have beside those that drain: the groups' desired capacity.
        drain: Hosts with jobs that shall take no more.
        release: Hosts without jobs that shall go; of booting ones, only those that nothing needs any more.
        open: How many workers of these hosts may take or have jobs; of all other hosts, all may.
        held: Fleets into which nothing can be launched now, and why.
        unusable: Why nothing is changed at all; None if all is well.
    """

    desired: Mapping[str, int]
    drain: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    open: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    unusable: str | None = None
