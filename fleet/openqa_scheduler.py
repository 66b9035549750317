"""How openQA gives jobs to workers: the policy predicts with it, and the simulator plays it.

Read from openQA's scheduler (``lib/OpenQA/Scheduler/Model/Jobs.pm`` and ``WorkerSlotPicker.pm``):

- A worker suits a job if it has all of the job's classes. Additional classes do no harm, so a job without
  ``tap`` takes a worker with ``tap`` just as well.
- Jobs are served in the order of priority (the lower number first), then of their ids.
- Among the free workers that suit, chance decides: openQA means to shuffle them, but takes them as its
  database returns them.
- The jobs of a parallel cluster start together or not at all, and on workers with ``PARALLEL_ONE_HOST_ONLY``
  all on one host. Where no host has room for a whole cluster, openQA does not keep one free for it: its
  protection against starvation counts only workers that it could have taken.
- A job with a parent that is not done (chained) is blocked; a cluster waits for the parents of all its jobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

Classes = frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job that openQA has scheduled and not yet given to a worker.

    Attributes:
        id: openQA's id.
        classes: The worker classes it asks for, all of them.
        priority: Lower numbers go first.
        cluster: The same number for all jobs of a parallel cluster; None for a job on its own.
        after: Ids of the parents that are not done yet; if there are any, the job is blocked.
        since: When it was first seen to be waiting and not blocked, in seconds since the epoch.
        expected_seconds: How long such jobs usually hold a worker; None if no such job is known.
    """

    id: int
    classes: Classes
    priority: int = 50
    cluster: int | None = None
    after: tuple[int, ...] = ()
    since: float = 0.0
    expected_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """Jobs that start together: a whole parallel cluster, or a job on its own.

    Attributes:
        jobs: Its jobs, by id.
        classes: The classes that a host must have to run all of them.
        after: Parents of any of its jobs that are not done yet.
        order: Its place in the queue.
    """

    jobs: tuple[Job, ...]
    classes: Classes = field(init=False)
    after: frozenset[int] = field(init=False)
    order: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        classes, after = self.jobs[0].classes, self.jobs[0].after
        if len(self.jobs) > 1:
            classes = classes.union(*(job.classes for job in self.jobs))
            after = tuple(parent for job in self.jobs for parent in job.after)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "after", frozenset(after))
        object.__setattr__(self, "order", min((job.priority, job.id) for job in self.jobs))

    @property
    def size(self) -> int:
        """The number of slots it takes."""
        return len(self.jobs)


def units(jobs: Iterable[Job]) -> list[Unit]:
    """Group jobs by parallel cluster.

    Args:
        jobs: Scheduled jobs, blocked ones included.

    Returns:
        The units in the order in which openQA serves them.
    """
    alone: list[Unit] = []
    clusters: defaultdict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.cluster is None:
            alone.append(Unit((job,)))
        else:
            clusters[job.cluster].append(job)
    together = [Unit(tuple(sorted(members, key=lambda job: job.id))) for members in clusters.values()]
    return sorted(alone + together, key=lambda unit: unit.order)


@dataclass(frozen=True, kw_only=True, slots=True)
class Free:
    """A host with free slots.

    Attributes:
        host: The host's id.
        classes: What its workers offer.
        slots: Its workers without a job.
        one_host: Its workers say ``PARALLEL_ONE_HOST_ONLY``.
    """

    host: str
    classes: Classes
    slots: int
    one_host: bool


def assign(queue: Sequence[Unit], free: Sequence[Free], random: Random) -> list[tuple[Unit, tuple[str, ...]]]:
    """Give waiting jobs to free workers, as one run of openQA's scheduler does.

    Args:
        queue: Units that wait and are not blocked, in the order of `units`.
        free: The hosts with free slots.
        random: Shuffles the workers.

    Returns:
        Each unit that starts, with the host of each of its jobs.
    """
    left = {place.host: place.slots for place in free}
    workers = [place for place in free for _ in range(place.slots)]
    random.shuffle(workers)
    suiting: dict[Classes, list[Free]] = {}
    hopeless: set[tuple[Classes, int]] = set()
    started: list[tuple[Unit, tuple[str, ...]]] = []
    remaining = len(workers)
    for unit in queue:
        if not remaining:
            break
        kind = (unit.classes, unit.size)
        if kind in hopeless:
            continue
        if unit.classes not in suiting:
            # One list for each set of classes; workers are popped off it, and those that others took skipped.
            suiting[unit.classes] = [place for place in workers if unit.classes <= place.classes]
        hosts = _pick(unit.size, suiting[unit.classes], left)
        if hosts is None:
            hopeless.add(kind)
            continue
        for host in hosts:
            left[host] -= 1
        remaining -= unit.size
        started.append((unit, hosts))
    return started


def _pick(size: int, workers: list[Free], left: Mapping[str, int]) -> tuple[str, ...] | None:
    if size == 1:
        while workers:
            host = workers.pop().host
            if left[host]:
                return (host,)
        return None
    for place in reversed(workers):
        if left[place.host] >= size:
            return (place.host,) * size
    spread: list[str] = []
    for host in {place.host for place in workers if not place.one_host}:
        spread += [host] * left[host]
    return tuple(sorted(spread)[:size]) if len(spread) >= size else None
