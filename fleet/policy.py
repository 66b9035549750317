"""What the fleets shall do, as a pure function of what was seen: `decide`.

The same input gives the same answer. The controller acts on it every few seconds; the simulator plays weeks
with it. Needs only the standard library.

How it decides:

1. *Look.* If what was seen is stale, contradicts itself or makes no sense, nothing changes.
2. *Plan.* All waiting jobs are placed on the present slots, in openQA's order, ahead in time: slots free now,
   slots of hosts that boot, slots whose job will have ended before a new host could be up; among equals, the
   slot whose host costs least to keep (`fleet.board`). A slot is left alone if keeping its host for the job
   would cost much more than a new host. Then come the chained jobs whose parents will be done by then.
3. *Launch* for what found no place, whole clusters first, in the fleet where an hour of work is cheapest
   (`_cheapest`), and some spare hosts where many boot: the first to come up serve.
4. *Close* the workers of hosts that further jobs would keep longer, except those on which something is
   planned now (`_Plan._open`): openQA deals jobs out at random, so a large host would otherwise never be
   empty.
5. *Release* idle hosts on which nothing is planned, and only those: a host with a job is never released.
   *Drain* busy hosts whose launch template is old: first one, then all others once a host of the new template
   has come up.

Where all hosts are large and boot slowly (metal), what is launched for one job serves many later ones: such
*roomy* hosts are chosen, launched and kept with those in mind (`Rules.linger_roomy`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, islice

from fleet.board import Board, Place
from fleet.openqa_scheduler import Classes, Job, Unit, units


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The policy's own numbers.

    Attributes:
        stale_seconds: What was read longer ago than this is not acted on.
        clock_seconds: Times may lie so far in the future: clocks differ.
        unknown_seconds: Assumed for a job of which nothing is known; openQA's default limit is two hours.
        linger: An idle host stays for this share of its boot time.
        linger_roomy: The same for roomy hosts: those that are not quick, where all hosts with their classes
            have at least `roomy_slots` workers. They bring room not only for what waits now but also for what
            comes later, which would otherwise wait for a boot. So they are also launched as soon as a job
            finds no free worker.
        roomy_slots: See there.
        fill: The share of a roomy host's free workers' time that later jobs are assumed to use, if they are
            like those that ended last.
        window: To fill a new host, so many times its slots are looked at in the queue.
        caution: A running job is expected to end after so many times its usual time.
        late_job: A late job is expected to end when it has taken longer by this share than so far.
        quick_seconds: Hosts that boot within this time are quick: `thrift` and `spare` are for them.
        fetching: On a host with one worker a job takes longer by this share, as it fetches its assets alone
            and waits for its turn at the web UI; on one with n workers, by an nth of it.
        spare: The spare slots to launch, as a share of the jobs that wait for booting hosts: the first hosts
            to come up serve, and those that still boot when nothing waits are cancelled. Boot times scatter,
            and the last hosts make the longest waits.
        spare_slow: The same for hosts that take longer to boot, where it costs much.
        spare_most: The most spare hosts, as a share of a fleet's maximum.
        spare_rest: A rest of at least this share of a spare host makes a whole one.
        spare_rest_large: The same for quick hosts of `large_slots` workers and more, which clusters wait for.
        large_slots: See there.
        scatter: The longest of several jobs is assumed to be the norm of their times of this order: four
            makes 1.19 of two equal times, 1.41 of four and 2 of sixteen. That is more than the longest
            planned: times scatter by a quarter, and openQA may send other jobs, some of them longer.
        late_boot: A late host is expected to be up when it has booted longer by this share than so far.
        overdue: A host that has booted for so many times its boot time is not counted on.
        thrift: A quick host takes no job if this times the cost of keeping it exceeds that of a new host.
        impatience: A job that has waited for so many boots is not planned on a busy worker, which may take
            longer than usual or get other jobs first.
        welcome: A host that is busy for so many times what a job usually takes is open to all.
        breaker_failures: After so many failed launches in a row a fleet rests.
        breaker_seconds: How long it rests, doubled with each further failure.
        breaker_most_seconds: The longest rest.
        no_capacity_seconds: How long AWS is not asked again for what it did not have.
        trouble_seconds: For so long after that, or after a failed launch, no host of an old template goes
            before one of the new template has come up: the working hosts are all there is.
    """

    stale_seconds: float = 120.0
    clock_seconds: float = 5.0
    unknown_seconds: float = 1800.0
    linger: float = 0.03
    linger_roomy: float = 2.0
    roomy_slots: int = 16
    fill: float = 0.3
    window: int = 4
    caution: float = 1.6
    late_job: float = 0.2
    quick_seconds: float = 600.0
    fetching: float = 0.2
    spare: float = 0.3
    spare_slow: float = 0.2
    spare_most: float = 0.25
    spare_rest: float = 0.5
    spare_rest_large: float = 0.05
    large_slots: int = 2
    scatter: float = 4.0
    late_boot: float = 0.1
    overdue: float = 2.0
    thrift: float = 0.4
    impatience: float = 1.5
    welcome: float = 0.5
    breaker_failures: int = 3
    breaker_seconds: float = 300.0
    breaker_most_seconds: float = 3600.0
    no_capacity_seconds: float = 600.0
    trouble_seconds: float = 86_400.0


DEFAULT_RULES = Rules()


def decide(seen: Seen, rules: Rules = DEFAULT_RULES) -> Decision:
    """Decide what the fleets shall do.

    Args:
        seen: What was seen.
        rules: The policy's numbers.

    Returns:
        What to do; if what was seen cannot be relied on, to do nothing, and why.
    """
    unusable = find_fault(seen, rules)
    staying = Counter(host.fleet for host in seen.hosts if host.state is not State.DRAINING)
    if unusable:
        desired = {fleet.name: staying[fleet.name] for fleet in seen.fleets} if _countable(seen) else {}
        return Decision(desired=desired, unusable=unusable)
    going = _replaced(seen, rules)
    hosts = [_meant(host, host.id in going) for host in seen.hosts]
    drain = tuple(host.id for host in seen.hosts if host.id in going and host.running)
    return replace(_Plan(replace(seen, hosts=hosts), rules).decision(), drain=drain)


def unserved(seen: Seen) -> Counter[Classes]:
    """Count, by classes, the waiting jobs that no fleet can run as it is.

    No fleet has all their classes, or none that has them has slots for a whole cluster, or its ``max`` is 0.
    """
    fleets = [fleet for fleet in seen.fleets if fleet.max]
    found: Counter[Classes] = Counter()
    for unit in units(job for job in seen.jobs if not job.after):
        whole = any(unit.classes <= fleet.classes and unit.size <= fleet.slots for fleet in fleets)
        if not whole and not _runs_apart(unit, fleets):
            found[unit.classes] += unit.size
    return found


def _runs_apart(unit: Unit, fleets: Iterable[Fleet]) -> bool:
    """Tell whether the jobs of a cluster can run on several hosts."""
    apart = [fleet.classes for fleet in fleets if not fleet.one_host]
    return all(any(job.classes <= classes for classes in apart) for job in unit.jobs)


def _meant(host: Host, goes: bool) -> Host:
    """Return a host as the plan shall see it: taking no jobs if it goes, and not as old if it stays."""
    if goes and host.running:
        return replace(host, state=State.DRAINING)
    return replace(host, outdated=False) if _is_old(host) and not goes else host


def _is_old(host: Host) -> bool:
    """Tell whether a host in service has an old launch template."""
    return host.outdated and host.state is State.READY


def _replaced(seen: Seen, rules: Rules) -> set[str]:
    """Choose the hosts that go now because their launch template is old; the others stay as if it were new.

    Hosts of a new template may never come up. So one goes first, and no other if since then no host could be
    launched or none came up; the others go once a host of the new template is in service.
    """
    going: set[str] = set()
    for fleet in seen.fleets:
        hosts = [host for host in seen.hosts if host.fleet == fleet.name]
        old = [host for host in hosts if _is_old(host)]
        if not old or _rest(fleet, seen.now, rules):
            continue
        if any(host.state is State.READY and not host.outdated for host in hosts):
            going.update(host.id for host in old)
        elif not _troubled(fleet, seen.now, rules) and all(host.state is State.READY for host in hosts):
            going.add(min(old, key=lambda host: (_end(host, rules), host.id)).id)
    return going


def _troubled(fleet: Fleet, now: float, rules: Rules) -> bool:
    """Tell whether the hosts last wanted of a fleet have not come up."""
    troubles = (fleet.last_failure if fleet.failures else None, fleet.no_capacity_at)
    return any(at is not None and now - at < rules.trouble_seconds for at in troubles)


def _end(host: Host, rules: Rules) -> float:
    """When a host will be done with its jobs, if all take their usual time; 0 if it has none."""
    usual = rules.unknown_seconds
    return max((r.since + (r.expected_seconds or usual) for r in host.running), default=0.0)


def find_fault(seen: Seen, rules: Rules = DEFAULT_RULES) -> str | None:
    """Tell why what was seen cannot be acted on; None if it can.

    Args:
        seen: What was seen.
        rules: The policy's numbers.

    Returns:
        One sentence, or None.
    """
    latest = seen.now + rules.clock_seconds
    return (
        _fault_of_times(seen, rules)
        or seen.doubt
        or _fault_of_fleets(seen.fleets)
        or _fault_of_jobs(seen.jobs, latest)
        or _fault_of_hosts(seen, latest)
    )


def _fault_of_times(seen: Seen, rules: Rules) -> str | None:
    for what, at in (("openQA's queue", seen.jobs_at), ("the hosts", seen.hosts_at)):
        if not seen.now - at <= rules.stale_seconds:
            age, limit = f"{seen.now - at:.0f} s", f"{rules.stale_seconds:.0f} s"
            return f"What is known of {what} is {age} old; {limit} is the limit."
        if at > seen.now + rules.clock_seconds:
            return f"What is known of {what} is {at - seen.now:.0f} s in the future."
    return None


def _fault_of_fleets(fleets: Sequence[Fleet]) -> str | None:
    if len({fleet.name for fleet in fleets}) != len(fleets):
        return "Two fleets have the same name."
    for fleet in fleets:
        sane = fleet.slots >= 1 and 0 <= fleet.min <= fleet.max and fleet.warm >= 0 and _sane(fleet.spare)
        if not (sane and 0 < fleet.price < math.inf and 0 <= fleet.boot_seconds < math.inf):
            return f"The numbers of fleet {fleet.name} make no sense."
    return None


def _fault_of_jobs(jobs: Sequence[Job], latest: float) -> str | None:
    if len({job.id for job in jobs}) != len(jobs):
        return "A job is in the queue twice."
    for job in jobs:
        if not (job.since <= latest and _sane(job.expected_seconds)):
            return f"The times of job {job.id} make no sense."
    return None


def _fault_of_hosts(seen: Seen, latest: float) -> str | None:
    fleets = {fleet.name: fleet for fleet in seen.fleets}
    jobs = {job.id for job in seen.jobs}
    ids: set[str] = set()
    for host in seen.hosts:
        if host.id in ids:
            return f"Host {host.id} appears twice."
        ids.add(host.id)
        if host.fleet not in fleets:
            return f"Host {host.id} is of fleet {host.fleet}, which does not exist."
        if fault := _fault_of_host(host, fleets[host.fleet].slots, latest):
            return fault
        for running in host.running:
            if running.job in jobs:
                return f"Job {running.job} is in two places at once."
            jobs.add(running.job)
            if not (running.since <= latest and _sane(running.expected_seconds)):
                return f"The times of job {running.job} make no sense."
    return None


def _fault_of_host(host: Host, slots: int, latest: float) -> str | None:
    if len(host.running) > slots:
        return f"Host {host.id} runs {len(host.running)} jobs on {slots} workers."
    if not 0 <= host.unfit < slots:
        return f"Host {host.id} lacks {host.unfit} of {slots} workers."
    if not (host.launched <= latest and (host.idle_since is None or host.idle_since <= latest)):
        return f"The times of host {host.id} make no sense."
    return None


def _sane(seconds: float | None) -> bool:
    return seconds is None or 0 <= seconds < math.inf


def _countable(seen: Seen) -> bool:
    return len({host.id for host in seen.hosts}) == len(seen.hosts)


def _remove(left: deque[Unit], taken: Iterable[Unit]) -> None:
    """Remove units near the front, given in their order."""
    kept = []
    for unit in taken:
        while (first := left.popleft()) is not unit:
            kept.append(first)
    left.extendleft(reversed(kept))


class _Plan:
    """One decision in the making."""

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
            if reason := _rest(fleet, self.now, rules):
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


def _rest(fleet: Fleet, now: float, rules: Rules) -> str | None:
    """Tell why nothing is launched into a fleet now; None if something may be."""
    if fleet.no_capacity_at is not None and now - fleet.no_capacity_at < rules.no_capacity_seconds:
        return "AWS has no capacity for it."
    if fleet.failures >= rules.breaker_failures and fleet.last_failure is not None:
        doubled = rules.breaker_seconds * 2 ** min(16, fleet.failures - rules.breaker_failures)
        rest = min(doubled, rules.breaker_most_seconds)
        if now - fleet.last_failure < rest:
            wait = rest - now + fleet.last_failure
            return f"{fleet.failures} hosts in a row did not come up; the next try is in {wait:.0f} s."
    return None
