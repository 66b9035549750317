"""What a workload must cost: the floor, and a schedule made by someone who knows the future.

The floor: every job on a slot of the cheapest price, from its start to its end, nothing idle, no boots.

The clairvoyant schedule knows every arrival and every end. It has each host up just when it is needed, sends
each job to the host it likes, and pays for what nobody can avoid: boot times, slots that stay empty on a host
that still works, whole clusters on one host, and each host's first fetch of an asset through the web UI's
link, one after the other. It is made greedily (the exact optimum is NP-hard), several times with different
choices of fleets; the cheapest counts. So the true optimum lies between the floor and this.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import groupby

from fleet.model import Fleet
from fleet.openqa_scheduler import Classes
from fleet.simulate.parts import Span, dollars
from fleet.simulate.progress import Progress
from fleet.simulate.scenario import Scenario
from fleet.simulate.workload import Post, Task


def floor(scenario: Scenario, posts: Sequence[Post]) -> float:
    """Tell what the work itself costs.

    Args:
        scenario: The fleets.
        posts: The jobs.

    Returns:
        US dollars: each job's time, failed runs included, at the lowest price of a slot that suits it.
    """
    prices: dict[Classes, float] = {}
    total = 0.0
    for task in (task for post in posts for task in post.tasks):
        if task.classes not in prices:
            suiting = [fleet for fleet in scenario.fleets if task.classes <= fleet.classes]
            prices[task.classes] = min(fleet.price / fleet.slots for fleet in suiting)
        total += prices[task.classes] * (task.seconds + (task.fails_after or 0.0)) / 3600
    return total


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A clairvoyant schedule: what it costs in US dollars, how long its jobs wait, and its hosts' spans."""

    dollars: float
    waits: list[float]
    spans: list[Span]


def clairvoyant(
    scenario: Scenario, posts: Sequence[Post], *, patience: float, progress: Progress | None = None
) -> Schedule:
    """Make the cheapest schedule that can be found.

    Args:
        scenario: The fleets.
        posts: The jobs.
        patience: No job starts later than so many seconds after it could: 0 starts each at once.
        progress: Reports how far this is.

    Returns:
        The cheapest of the schedules that use hosts of any size, and of at most and at least each size.
    """
    sizes = sorted({fleet.slots for fleet in scenario.fleets})
    ranges = {(0, math.inf)} | {(0.0, size) for size in sizes} | {(size, math.inf) for size in sizes}
    schedules = []
    for count, (low, high) in enumerate(sorted(ranges), start=1):
        tell = partial(progress, step=f"schedule {count} of {len(ranges)}, ") if progress else None
        fleets = [fleet for fleet in scenario.fleets if low <= fleet.slots <= high]
        if not any(_misfits(fleets, posts)):
            schedules.append(_Greedy(scenario, fleets, posts, patience).schedule(tell))
    return min(schedules, key=lambda schedule: schedule.dollars)


def refusal(scenario: Scenario, posts: Sequence[Post]) -> str | None:
    """Tell of jobs that no fleet can run: they would wait for ever.

    Args:
        scenario: The fleets.
        posts: The jobs.

    Returns:
        A sentence; None if each job, and each whole cluster, has a fleet.
    """
    for classes, size in _misfits(scenario.fleets, posts):
        jobs = f"{size} parallel jobs" if size > 1 else "jobs"
        there = {
            fleet.classes: f"{', '.join(sorted(fleet.classes))}: {fleet.slots}" for fleet in scenario.fleets
        }
        return (
            f"no fleet can run {jobs} of the classes {', '.join(sorted(classes))}; "
            f"there are these classes, with the most workers per host: {'; '.join(there.values())}"
        )
    return None


def _misfits(fleets: Sequence[Fleet], posts: Sequence[Post]) -> Iterator[tuple[Classes, int]]:
    kinds: dict[tuple[Classes, int], None] = {}
    for post in posts:
        for cluster in _clusters(post.tasks):
            kinds[frozenset().union(*(task.classes for task in cluster)), len(cluster)] = None
    for classes, size in kinds:
        if not any(classes <= fleet.classes and size <= fleet.slots for fleet in fleets):
            yield classes, size


def _clusters(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    together: defaultdict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        together[task.id if task.cluster is None else task.cluster].append(task)
    yield from together.values()


@dataclass(slots=True)
class _Machine:
    fleet: Fleet
    begin: float
    end: float
    free_at: list[float]
    cached: dict[str, float] = field(default_factory=dict)  # when each asset is there
    stored_at: float = 0.0
    jobs: list[tuple[float, float]] = field(default_factory=list)  # begin and end of each
    fetching: float = 0.0

    def span(self) -> Span:
        busy, last = 0.0, self.begin
        for begin, end in sorted(self.jobs):
            busy += max(0.0, end - max(begin, last))
            last = max(last, end)
        return Span(
            fleet=self.fleet.name,
            begin=self.begin,
            up=self.begin + self.fleet.boot_seconds,
            end=self.end,
            busy=busy,
            held=sum(end - begin for begin, end in self.jobs),
            fetching=self.fetching,
        )


@dataclass(slots=True)
class _Work:
    """A unit to start: jobs, how long each holds a slot besides fetching, and whether they are done then."""

    tasks: list[Task]
    seconds: list[float]
    classes: Classes
    last: bool

    @property
    def longest(self) -> float:
        return max(self.seconds)


class _Greedy:
    def __init__(
        self, scenario: Scenario, fleets: Sequence[Fleet], posts: Sequence[Post], patience: float
    ) -> None:
        self.scenario, self.fleets, self.patience = scenario, fleets, patience
        self.rates = {fleet.name: scenario.fetch_rate(fleet.name) for fleet in fleets}
        self.suiting: dict[Classes, list[Fleet]] = {}
        self.machines: list[_Machine] = []
        self.done: list[_Machine] = []
        self.waits: list[float] = []
        self.link_free = 0.0
        self.events: list[tuple[float, int, _Work]] = []
        self.order = 0
        self.work: dict[int, _Work] = {}
        self.missing: dict[int, int] = {}
        self.ready: defaultdict[int, float] = defaultdict(float)
        self.children: defaultdict[int, list[int]] = defaultdict(list)
        for post in posts:
            for tasks in _clusters(post.tasks):
                key = tasks[0].id
                first = [task.seconds if task.fails_after is None else task.fails_after for task in tasks]
                again = len(tasks) == 1 and tasks[0].fails_after is not None
                classes: Classes = frozenset().union(*(task.classes for task in tasks))
                self.work[key] = _Work(tasks, first, classes, not again)
                parents = {parent for task in tasks for parent in task.parents}
                self.missing[key] = len(parents)
                self.ready[key] = post.time
                for parent in parents:
                    self.children[parent].append(key)
                if not parents:
                    self._push(post.time, self.work[key])

    def _push(self, time: float, work: _Work) -> None:
        self.order += 1
        heappush(self.events, (time, self.order, work))

    def schedule(self, tell: Callable[[float], None] | None) -> Schedule:
        while self.events:
            now = self.events[0][0]
            if tell:
                tell(now)
            batch = []
            while self.events and self.events[0][0] <= now + 1.0:
                batch.append(heappop(self.events)[2])
            self._retire(now)
            batch.sort(
                key=lambda work: (-len(work.classes), -len(work.tasks), sorted(work.classes), -work.longest)
            )
            for _, kind in groupby(batch, key=lambda work: work.classes):
                self._serve(list(kind), now)
        spans = [machine.span() for machine in self.done + self.machines]
        fleets = {fleet.name: fleet for fleet in self.fleets}
        return Schedule(dollars=dollars(spans, fleets), waits=self.waits, spans=spans)

    def _retire(self, now: float) -> None:
        """Forget hosts that have been idle for so long that a new launch costs less."""
        for machine in [m for m in self.machines if m.end < now - m.fleet.boot_seconds]:
            self.machines.remove(machine)
            self.done.append(machine)

    def _serve(self, batch: list[_Work], now: float) -> None:
        while batch:
            work = batch[0]
            extension = self._extend(work, now)
            fleet, pack, cost = self._pack(batch, now)
            share = cost * sum(work.seconds)
            if extension is not None and extension[0] <= share:
                self._start(work, extension[1], now)
                batch.pop(0)
                continue
            machine = _Machine(fleet, now - fleet.boot_seconds, now, [now] * fleet.slots)
            self.machines.append(machine)
            for member in pack:
                self._start(member, machine, now)
            chosen = set(map(id, pack))
            batch = [member for member in batch if id(member) not in chosen]

    def _extend(self, work: _Work, now: float) -> tuple[float, _Machine] | None:
        """The host to which a unit adds the least cost; among equals, the one that ends last."""
        best: tuple[float, float, _Machine] | None = None
        size, longest = len(work.tasks), work.longest
        for machine in self.machines:
            fleet = machine.fleet
            if fleet.slots < size or not work.classes <= fleet.classes:
                continue
            free = min(machine.free_at) if size == 1 else sorted(machine.free_at)[size - 1]
            if free > now + self.patience:
                continue
            start = max(free, now)
            fetch = self._bytes(work, machine) / self.rates[fleet.name]
            cost = fleet.price * max(0.0, start + fetch + longest - machine.end)
            if best is None or (cost, -machine.end) < (best[0], best[1]):
                best = (cost, -machine.end, machine)
        return None if best is None else (best[0], best[2])

    def _pack(self, batch: Sequence[_Work], now: float) -> tuple[Fleet, list[_Work], float]:
        """The new host, with what to start on it, on which a second of work costs least."""
        best: tuple[float, Fleet, list[_Work]] | None = None
        classes = batch[0].classes
        if classes not in self.suiting:
            self.suiting[classes] = [fleet for fleet in self.fleets if classes <= fleet.classes]
        for fleet in self.suiting[classes]:
            pack: list[_Work] = []
            used, seconds = 0, 0.0
            for work in batch:
                if used + len(work.tasks) <= fleet.slots:
                    pack.append(work)
                    used += len(work.tasks)
                    seconds += sum(work.seconds)
                if used == fleet.slots:
                    break
            if not pack or pack[0] is not batch[0]:
                continue
            longest = max(work.longest for work in pack)
            cost = fleet.price * (fleet.boot_seconds + longest) / seconds
            if best is None or cost < best[0]:
                best = (cost, fleet, pack)
        if best is None:
            raise ValueError(f"No fleet suits {sorted(classes)}.")
        return best[1], best[2], best[0]

    def _bytes(self, work: _Work, machine: _Machine) -> float:
        missing = {name: n for task in work.tasks for name, n in task.assets if name not in machine.cached}
        return sum(missing.values())

    def _start(self, work: _Work, machine: _Machine, now: float) -> None:
        size = self._bytes(work, machine)
        slots = sorted(range(len(machine.free_at)), key=machine.free_at.__getitem__)[: len(work.tasks)]
        start = max(now, machine.free_at[slots[-1]])
        if size:
            # One after the other, at the full rates of web UI and host: nobody could have them sooner.
            self.link_free = max(self.link_free, start) + size / self.scenario.webui_bytes_per_second
            machine.stored_at = max(machine.stored_at, start) + size / self.rates[machine.fleet.name]
        assets = {name for task in work.tasks for name, _ in task.assets}
        there = max(self.link_free, machine.stored_at)
        for name in assets:
            machine.cached.setdefault(name, there)
        fetch = max(0.0, *(machine.cached[name] - start for name in assets), 0.0)
        self.waits += [start - now] * len(work.tasks)
        for slot, task, seconds in zip(slots, work.tasks, work.seconds, strict=True):
            end = start + fetch + seconds
            machine.free_at[slot] = end
            machine.end = max(machine.end, end)
            machine.jobs.append((start, end))
            machine.fetching += fetch
            if work.last:
                self._finished(task, end)
            else:
                self._push(end, _Work(work.tasks, [task.seconds], work.classes, True))

    def _finished(self, task: Task, end: float) -> None:
        for key in self.children[task.id]:
            self.ready[key] = max(self.ready[key], end)
            self.missing[key] -= 1
            if not self.missing[key]:
                self._push(self.ready[key], self.work[key])
