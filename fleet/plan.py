"""One decision in the making: what is placed, launched, closed and released.

The steps are those of `fleet.policy`, which explains them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice

from fleet.board import Board, Place
from fleet.model import Decision, Fleet, Host, Running, Seen, State
from fleet.openqa_scheduler import Classes, Unit, units
from fleet.rules import Rules, why_it_rests


class Plan:
    """A decision in the making.

    Args:
        seen: What was seen, with the hosts that go as draining ones.
        rules: The policy's numbers.
    """

    def __init__(self, seen: Seen, rules: Rules) -> None:
        self.seen, self.rules, self.now = seen, rules, seen.now
        self.fleets = {fleet.name: fleet for fleet in seen.fleets}
        self.hosts = [host for host in seen.hosts if host.state is not State.DRAINING]
        self.launches: Counter[str] = Counter()
        self.launched_for: Counter[str] = Counter()  # jobs for which these launches are
        self.cancelled: list[str] = []
        self.up: dict[str, float] = {}  # when each booting host will be up
        self.imminent: set[str] = set()  # hosts that should be up by now: it is too late to cancel them
        self.held: dict[str, str] = {}
        present = Counter(host.fleet for host in seen.hosts)
        self.room = {fleet.name: max(0, fleet.max - present[fleet.name]) for fleet in seen.fleets}
        for fleet in seen.fleets:
            if reason := why_it_rests(fleet, self.now, rules):
                self.room[fleet.name] = 0
                self.held[fleet.name] = reason
        self.patience: dict[Classes, float] = {}
        self.roomy = {fleet.name for fleet in seen.fleets if self._roomy(fleet)}
        self.board = Board(thrift=rules.thrift)
        self.ends: dict[int, float] = {}
        self.prices: dict[tuple[Classes, int], tuple[float, float]] = {}
        self._set_up()
        self.homeless = self._place()

    def _set_up(self) -> None:
        """Put all hosts on the board."""
        asked = frozenset().union(*{job.classes for job in self.seen.jobs})
        for host in sorted(self.hosts, key=lambda host: host.id):
            fleet = self.fleets[host.fleet]
            if _boots(host):
                if fleet.boot_seconds <= self.now - host.launched <= self.rules.overdue * fleet.boot_seconds:
                    self.imminent.add(host.id)
                up = self.up[host.id] = self._up(host, fleet)
                free_at, end = [up] * fleet.slots, up
            else:
                ends = [self._end(running) for running in host.running]
                if fleet.name in self.roomy:
                    ends = [math.inf] * len(ends)  # a job that finds no free worker has a host launched
                free_at = ends + [self.now] * (fleet.slots - host.unfit - len(ends))
                end = self.now + self._left(host)
            if not host.outdated or _boots(host):
                # A host without a job yet is paid for anyway: what was planned on it stays planned.
                thrifty = self._quick(fleet) and bool(host.running)
                # A job may be meant for this host only: its id is a class of its workers.
                classes = fleet.classes | (asked & {host.id})
                self.board.add(Place(host.id, classes, fleet.price, free_at, end, _boots(host), thrifty))
        for host in self.seen.hosts:
            for running in host.running:
                self.ends[running.job] = self._end(running)

    def _up(self, host: Host, fleet: Fleet) -> float:
        """When a booting host will be up: a late one soon (`Rules.late_boot`), one far too late never."""
        age = self.now - host.launched
        if age > self.rules.overdue * fleet.boot_seconds:
            return math.inf
        return max(host.launched + fleet.boot_seconds, self.now + self.rules.late_boot * age)

    def _end(self, running: Running) -> float:
        """When a job will have ended: a late one soon (`Rules.late_job`)."""
        age = self.now - running.since
        return max(
            running.since + self.rules.caution * self._seconds(running.expected_seconds),
            self.now + self.rules.late_job * age,
        )

    def _seconds(self, expected: float | None) -> float:
        return self.rules.unknown_seconds if expected is None else expected

    def _durations(self, unit: Unit) -> list[float]:
        return [self._seconds(job.expected_seconds) for job in unit.jobs]

    def decision(self) -> Decision:
        """Say what to do; a plan is asked once."""
        self._launch(self.homeless)
        self._launch_spares()
        self._keep_minimum()
        release = self._release()
        gone = Counter(host.fleet for host in self.hosts if host.id in release)
        staying = Counter(host.fleet for host in self.hosts)
        desired = {name: staying[name] - gone[name] + self.launches[name] for name in self.fleets}
        return Decision(desired=desired, release=tuple(release), open=self._open(release), held=self.held)

    def _patience(self, classes: Classes) -> float:
        """When a new host could be up: a job that finds a slot by then needs none.

        Where no host can be launched, the slowest boot counts: what comes later changes nothing now.
        """
        if classes not in self.patience:
            boots = [
                fleet.boot_seconds
                for fleet in self.seen.fleets
                if classes <= fleet.classes and self.room[fleet.name]
            ]
            slowest = max((fleet.boot_seconds for fleet in self.seen.fleets), default=0.0)
            self.patience[classes] = self.now + min(boots, default=slowest)
        return self.patience[classes]

    def _place(self) -> list[Unit]:
        """Plan all that waits, and the chained jobs that soon will; return those that found no place."""
        homeless: list[Unit] = []
        blocked: list[Unit] = []
        for unit in chain.from_iterable(map(self._parts, units(self.seen.jobs))):
            if unit.after:
                blocked.append(unit)
            elif not self._try(unit, self.now):
                homeless.append(unit)
        for unit in blocked:
            ready = max(self.ends.get(parent, math.inf) for parent in unit.after)
            if ready <= self._patience(unit.classes) and not self._try(unit, ready):
                homeless.append(unit)
        return homeless

    def _parts(self, unit: Unit) -> Iterable[Unit]:
        """A cluster that no host can hold is planned job by job if its jobs may run on several hosts."""
        if unit.size == 1:
            return (unit,)
        suiting = [fleet for fleet in self.seen.fleets if unit.classes <= fleet.classes]
        if any(unit.size <= fleet.slots for fleet in suiting) or all(fleet.one_host for fleet in suiting):
            return (unit,)
        return (Unit((replace(job, after=tuple(unit.after)),)) for job in unit.jobs)

    def _try(self, unit: Unit, ready: float) -> bool:
        durations = self._durations(unit)
        patience = self._patience(unit.classes)
        limit = max(ready, patience)
        waited = self.now - max(job.since for job in unit.jobs)
        taken = self.board.take(
            unit,
            durations,
            ready=ready,
            limit=limit,
            anew=self._anew(unit, durations),
            impatient=waited > self.rules.impatience * (patience - self.now),
        )
        if taken is None:
            return False
        start, place = taken
        if start <= self.now:
            place.begun += unit.size
        for job, seconds in zip(unit.jobs, durations, strict=True):
            self.ends[job.id] = start + seconds
        return True

    def _quick(self, fleet: Fleet) -> bool:
        """Tell whether a fleet's hosts boot so quickly that new ones are cheap."""
        return fleet.boot_seconds <= self.rules.quick_seconds

    def _anew(self, unit: Unit, durations: list[float]) -> float:
        """What the cheapest new host only for this unit would cost, in dollars; infinity if there is none."""
        key = (unit.classes, unit.size)
        if key not in self.prices:
            suiting = [
                (fleet.price, fleet.boot_seconds)
                for fleet in self.seen.fleets
                if unit.classes <= fleet.classes and unit.size <= fleet.slots and self.room[fleet.name]
            ]
            self.prices[key] = min(suiting, default=(math.inf, 0.0))
        price, boot = self.prices[key]
        return price * (boot + max(durations)) / 3600

    def _open(self, gone: Iterable[str]) -> dict[str, int]:
        """Choose hosts whose workers shall take no further jobs except those that are planned on them now.

        Others may take whatever comes: hosts without a job yet, and those that will be busy for long anyway.
        """
        ready = {host.id: host for host in self.hosts if host.state is State.READY}
        usual = self._usual()
        found: dict[str, int] = {}
        for place in self.board.places:
            host = ready.get(place.host)
            if host is None or host.id in gone or len(place.free_at) == 1:
                continue  # with one worker, none is free beside its job
            fleet = self.fleets[host.fleet]
            welcome = not host.running or self._left(host) >= self.rules.welcome * usual
            if fleet.name in self.roomy or not welcome:
                # Where nothing is planned, a worker that ends its job takes no other either.
                workers = len(host.running) + place.begun if place.begun else 0
                if workers < fleet.slots:
                    found[host.id] = workers
        return found

    def _launch(self, homeless: list[Unit]) -> None:
        """Launch hosts for units without a place, those that ask for most classes first.

        The slots that stay free on a new host serve the next kinds.
        """
        kinds: defaultdict[Classes, list[Unit]] = defaultdict(list)
        for unit in homeless:
            kinds[unit.classes].append(unit)
        for classes in sorted(kinds, key=lambda classes: (-len(classes), sorted(classes))):
            candidates = [fleet for fleet in self.seen.fleets if classes <= fleet.classes]
            largest = max((fleet.slots for fleet in candidates), default=0)
            left = deque(
                unit for unit in kinds[classes] if unit.size <= largest and not self._try(unit, self.now)
            )
            while choice := self._cheapest(candidates, left):
                fleet, fitting = choice
                self.room[fleet.name] -= 1
                self.launches[fleet.name] += 1
                self.launched_for[fleet.name] += sum(unit.size for unit in fitting)
                self.patience.clear()
                up = self.now + fleet.boot_seconds
                place = Place("", fleet.classes, fleet.price, [up] * fleet.slots, up, boots=True)
                self.board.start(place, map(self._durations, fitting))
                _remove(left, fitting)

    def _cheapest(self, candidates: Iterable[Fleet], left: Sequence[Unit]) -> tuple[Fleet, list[Unit]] | None:
        """Choose the fleet where an hour of work costs least.

        A host is paid for from its launch until the last of its jobs ends, and works for all of them:
        price * (boot + longest) / sum of the jobs' times. It gets the jobs in the order of the queue; a roomy
        host will get others later: the more of the jobs that ended last it suits, the more.
        """
        best: tuple[float, Fleet, list[Unit]] | None = None
        for fleet in candidates:
            if not self.room[fleet.name]:
                continue
            fitting: list[Unit] = []
            used, work, powers = 0, 0.0, 0.0
            small = (unit for unit in left if unit.size <= fleet.slots)
            for unit in islice(small, self.rules.window * fleet.slots):
                if used + unit.size <= fleet.slots:
                    durations = self._durations(unit)
                    fitting.append(unit)
                    used += unit.size
                    work += sum(durations)
                    powers += sum(seconds**self.rules.scatter for seconds in durations)
                    if used == fleet.slots:
                        break
            if not fitting:
                continue
            longest = powers ** (1 / self.rules.scatter)
            if fleet.name in self.roomy:
                work += self.rules.fill * self._suited(fleet) * (fleet.slots - used) * longest
            longest *= 1 + self.rules.fetching / fleet.slots
            cost = fleet.price * (fleet.boot_seconds + longest) / max(1.0, work)
            if best is None or cost < best[0]:
                best = (cost, fleet, fitting)
        return best and best[1:]

    def _roomy(self, fleet: Fleet) -> bool:
        """Tell whether a fleet's hosts bring room for more than what waits now (`Rules.linger_roomy`)."""
        sizes = (other.slots for other in self.seen.fleets if fleet.classes <= other.classes)
        return not self._quick(fleet) and min(sizes) >= self.rules.roomy_slots

    def _suited(self, fleet: Fleet) -> float:
        """The share of the jobs that ended last that a fleet's workers could have done."""
        suiting = sum(count for classes, count in self.seen.recent.items() if classes <= fleet.classes)
        return suiting / max(1, sum(self.seen.recent.values()))

    def _launch_spares(self) -> None:
        """Launch spare hosts where many boot, and cancel booting hosts that nothing needs."""
        used = {place.host: place.used for place in self.board.places}
        booting: defaultdict[str, list[Host]] = defaultdict(list)
        for host in self.hosts:
            if _boots(host):
                booting[host.fleet].append(host)
        for fleet in self.seen.fleets:
            idle = sorted(host.id for host in booting[fleet.name] if not used[host.id])
            late = [host for host in idle if self.up[host] == math.inf]
            idle = [host for host in idle if host not in self.imminent and host not in late]
            jobs = sum(min(used[host.id], fleet.slots) for host in booting[fleet.name])
            jobs += self.launched_for[fleet.name]
            quick = self._quick(fleet)
            share = self.rules.spare if quick else self.rules.spare_slow
            share = share if fleet.spare is None else fleet.spare
            large = quick and fleet.slots >= self.rules.large_slots
            rest = self.rules.spare_rest_large if large else self.rules.spare_rest
            most = int(self.rules.spare_most * fleet.max)
            spares = min(int(share * jobs / fleet.slots + 1 - rest), most)
            if not jobs:
                # Booting spares are wanted until nothing waits: the last to be served wait longest.
                # Late hosts may still come up, or fail, which must count as a failure.
                self.cancelled += (late + idle)[: max(0, self._spare(fleet))]
            more = max(0, min(spares - len(idle), self.room[fleet.name]))
            self.launches[fleet.name] += more
            self.room[fleet.name] -= more

    def _keep_minimum(self) -> None:
        for fleet in self.seen.fleets:
            have = sum(host.fleet == fleet.name for host in self.hosts) + self.launches[fleet.name]
            more = min(max(fleet.min, fleet.warm) - have, self.room[fleet.name])
            self.launches[fleet.name] += max(0, more)

    def _spare(self, fleet: Fleet) -> int:
        """Hosts of a fleet above its minimum."""
        have = sum(host.fleet == fleet.name for host in self.hosts)
        return have - max(fleet.min, fleet.warm)

    def _usual(self) -> float:
        """How long a job takes on average, among those that wait or run."""
        known = [running.expected_seconds for host in self.seen.hosts for running in host.running]
        known += [job.expected_seconds for job in self.seen.jobs]
        return max(1.0, sum(map(self._seconds, known)) / max(1, len(known)))

    def _left(self, host: Host) -> float:
        """How much longer the host will be busy if it gets no more jobs, in seconds."""
        left = 0.0
        for running in host.running:
            age = self.now - running.since
            left = max(left, self._seconds(running.expected_seconds) - age, self.rules.late_job * age)
        return left

    def _release(self) -> list[str]:
        """Choose idle hosts that shall go, besides the booting ones that were cancelled."""
        places = {place.host: place for place in self.board.places}
        released = list(self.cancelled)
        spare = {fleet.name: self._spare(fleet) for fleet in self.seen.fleets}
        for host in sorted(self.hosts, key=lambda host: (host.idle_since or 0.0, host.id)):
            fleet = self.fleets[host.fleet]
            if host.running or host.idle_since is None:
                continue
            linger = self.rules.linger_roomy if fleet.name in self.roomy else self.rules.linger
            lingered = self.now - host.idle_since >= linger * fleet.boot_seconds
            unused = host.outdated or (lingered and not places[host.id].used)
            if unused and (spare[fleet.name] > 0 or host.outdated):
                released.append(host.id)
                spare[fleet.name] -= 1
        return released


def _boots(host: Host) -> bool:
    """Tell whether a host boots and has no job: one may come before its group takes it into service."""
    return host.state is State.BOOTING and not host.running


def _remove(left: deque[Unit], taken: Iterable[Unit]) -> None:
    """Remove units near the front, given in their order."""
    kept = []
    for unit in taken:
        while (first := left.popleft()) is not unit:
            kept.append(first)
    left.extendleft(reversed(kept))
