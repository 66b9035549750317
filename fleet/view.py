"""From what openQA and AWS say to what the policy looks at.

Pure functions, except for `Memory`: what one can know only after watching for a while.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fleet import warm
from fleet.closings import Closings
from fleet.facts import Facts
from fleet.groups import Group, Launches, Member
from fleet.model import Fleet, Host, Running, Seen, State
from fleet.openqa_api import ListedJob, ListedWorker, Queue
from fleet.openqa_scheduler import Classes, Job
from fleet.rules import DEFAULT_RULES

# A host in service without a connected worker, or a worker that is away: after the first time nobody counts
# on it (openQA's services restart in less), after the second a host is let go.
LOST_SECONDS = 60.0
GIVEN_UP_SECONDS = 900.0
# After not looking for so long: what was away before may have been back meanwhile.
BLIND_SECONDS = 120.0
# A host that was told to go so long ago, and is still in service: the call was lost.
TOLD_SECONDS = 120.0
# How many ended jobs of a kind tell how long such jobs take.
_ENDED_JOBS = 9


@dataclass(kw_only=True)
class Memory:
    """What was seen before. A new controller starts only with what hosts were told last: it knows less.

    Attributes:
        looked: When the controller last looked.
        waiting: Since when each job waits unblocked.
        idle: Since when each host is idle.
        lost: Since when each host in service has no connected worker, although not all are closed.
        unfit: For each host, since when which of its workers are away or broken, although not closed.
        told: When each host was told to go.
        closed: The workers of each host that were told to take no jobs.
        usual: For each kind of job, how long it usually takes, in seconds.
        recent: How many of the jobs that ended last asked for which classes.
        short: When AWS last had no host for a group.
        wide: Since when a group has launched hosts in all of its fleet's subnets.
    """

    looked: float | None = None
    waiting: dict[int, float] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)
    unfit: dict[str, dict[int, float]] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    closed: Closings = field(default_factory=dict)
    usual: dict[tuple[str, ...], float] = field(default_factory=dict)
    recent: Counter[Classes] = field(default_factory=Counter)
    short: dict[str, float] = field(default_factory=dict)
    wide: dict[str, float] = field(default_factory=dict)

    def begin(self, now: float) -> None:
        """Begin to look. If nobody has looked for a while, what is away counts as away from now on."""
        if self.looked is None or not 0 <= now - self.looked <= BLIND_SECONDS:
            self.lost.clear()
            self.unfit.clear()
        self.looked = now

    def idle_since(self, host: str, idle: bool, now: float) -> float | None:
        """Note whether a host is idle, and tell since when; None if it is not."""
        if idle:
            self.idle[host] = min(now, self.idle.get(host, now))  # the clock may have been set back
            return self.idle[host]
        self.idle.pop(host, None)
        return None

    def count_unfit(self, host: str, workers: Iterable[int], now: float) -> int:
        """Note which workers of a host are unfit, and tell how many have been so for a minute."""
        before = self.unfit.get(host, {})
        self.unfit[host] = {number: before.get(number, now) for number in workers}
        return sum(now - since >= LOST_SECONDS for since in self.unfit[host].values())

    def no_capacity_at(self, fleet: Facts, group: Group, launches: Launches, now: float) -> float | None:
        """Note whether AWS had hosts for a group, and tell when it last had none in any of the subnets."""
        if launches.no_capacity_at is not None:
            self.short[group.name] = launches.no_capacity_at
        if group.subnets.issuperset(fleet.subnets):
            # A group with one subnet has always been so.
            self.wide.setdefault(group.name, now if len(fleet.subnets) > 1 else 0.0)
        else:
            self.wide.pop(group.name, None)
        at = launches.no_capacity_at
        return at if at is not None and at >= self.wide.get(group.name, math.inf) else None

    def short_of_capacity(self, now: float) -> frozenset[str]:
        """Tell for which groups AWS had no host so recently that it is not asked again yet."""
        seconds = DEFAULT_RULES.no_capacity_seconds
        return frozenset(name for name, at in self.short.items() if now - at < seconds)

    def learn(self, ended: Collection[ListedJob]) -> None:
        """Learn from the jobs that ended last how long such jobs take, and what workers they need."""
        self.recent = Counter(job.classes for job in ended)
        times: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for job in sorted(ended, key=lambda job: job.id, reverse=True):
            if job.started is not None and job.finished is not None and job.finished > job.started:
                times[job.kind].append(job.finished - job.started)
        self.usual |= {kind: statistics.median(found[:_ENDED_JOBS]) for kind, found in times.items()}

    def forget(self, present: set[str]) -> None:
        """Forget the hosts that are gone.

        Args:
            present: The hosts that are there.
        """
        for remembered in (self.idle, self.lost, self.unfit, self.told):
            for gone in remembered.keys() - present:
                del remembered[gone]


@dataclass(frozen=True, kw_only=True)
class View:
    """A moment, as the controller sees it.

    Attributes:
        seen: What the policy looks at.
        given_up: Hosts in service that have been without workers for too long.
        lost: Hosts that are not counted on, although their groups count on them.
        told: Hosts that were told to go.
        hourly: What each fleet's hosts cost an hour, in US dollars.
        workers: The workers of each host, including those that are closed or gone.
        wide: Groups whose hosts shall boot in any zone: AWS recently had none in the web UI's.
    """

    seen: Seen
    given_up: tuple[str, ...]
    lost: frozenset[str]
    told: frozenset[str]
    hourly: Mapping[str, float]
    workers: Mapping[str, Sequence[ListedWorker]]
    wide: frozenset[str]


def look(
    *,
    now: float,
    queue: Queue,
    groups: Mapping[str, Group],
    groups_at: float,
    facts: Sequence[Facts],
    launches: Mapping[str, Launches],
    memory: Memory,
) -> View:
    """Assemble what is known.

    Args:
        now: Seconds since the epoch.
        queue: openQA's queue and workers.
        groups: The Auto Scaling groups, by name.
        groups_at: When they were read.
        facts: The fleets; those without a group do not count.
        launches: How each group's last launches went.
        memory: What was seen before; it is brought up to date.
    """
    listed = _Listed(queue)
    memory.begin(now)
    hosts: list[Host] = []
    fleets: list[Fleet] = []
    given_up: list[str] = []
    lost: set[str] = set()
    hourly: dict[str, float] = {}
    for fleet in facts:
        group = groups.get(fleet.group)
        if group is None:
            continue
        went = launches.get(fleet.group, Launches())
        fleets.append(_fleet(fleet, group, went, memory.no_capacity_at(fleet, group, went, now), now))
        hourly[fleet.name] = sum(fleet.price(member.type) for member in group.members if not member.gone)
        for member in group.members:
            if member.gone:
                # Its group may take long to notice: it takes no room here, and gives no capacity there.
                lost |= {member.id} if member.counts else set()
                continue
            host = _host(member, fleet, group, listed, memory, now)
            hosts.append(host)
            if _is_lost(host, member, memory):
                lost.add(member.id)
                if now - memory.lost[member.id] >= GIVEN_UP_SECONDS:
                    given_up.append(member.id)
    if doubt := _doubt(hosts, lost):
        # Their time starts again once openQA hears somebody: not all are heard at the same moment.
        given_up.clear()
        memory.lost |= dict.fromkeys(lost, now - LOST_SECONDS)
    on_workers = {run.job for host in hosts for run in host.running}
    seen = Seen(
        now=now,
        jobs_at=queue.at,
        hosts_at=groups_at,
        jobs=_jobs(queue.jobs, on_workers, memory, now),
        hosts=hosts,
        fleets=fleets,
        recent=memory.recent,
        doubt=doubt,
    )
    present = {host.id for host in hosts}
    memory.forget(present)
    return View(
        seen=seen,
        given_up=tuple(given_up),
        lost=frozenset(lost),
        told=frozenset(memory.told),
        hourly=hourly,
        workers={host: tuple(rows) for host, rows in listed.on_host.items() if host in present},
        wide=memory.short_of_capacity(now),
    )


def _doubt(hosts: Sequence[Host], lost: Collection[str]) -> str | None:
    """Tell why openQA's list of workers cannot be believed; None if it can.

    Several hosts do not break at the same moment: more likely openQA does not hear them.
    """
    silent = sum(host.id in lost for host in hosts)
    if silent > 1 and not any(host.state is State.READY for host in hosts):
        return f"openQA hears no worker of any of the {silent} hosts in service."
    return None


class _Listed:
    """openQA's queue, indexed for looking at one host after the other.

    Attributes:
        jobs: The jobs by id.
        on_host: The workers of each host.
        assigned: The jobs that each worker was given, by the worker's id.
    """

    def __init__(self, queue: Queue) -> None:
        self.jobs = {job.id: job for job in queue.jobs}
        self.on_host: defaultdict[str | None, list[ListedWorker]] = defaultdict(list)
        for worker in queue.workers:
            self.on_host[worker.instance].append(worker)
        self.assigned: defaultdict[int, list[ListedJob]] = defaultdict(list)
        for job in queue.jobs:
            if job.worker is not None and not job.scheduled:
                self.assigned[job.worker].append(job)


def _host(member: Member, fleet: Facts, group: Group, listed: _Listed, memory: Memory, now: float) -> Host:
    """What the policy sees of one member of a group."""
    rows = listed.on_host.get(member.id, [])
    workers = [worker for worker in rows if worker.connected]
    told = memory.closed.get(member.id, frozenset())
    closed = bool(rows) and all(row.number in told and row.id not in listed.assigned for row in rows)
    running = _running(workers, listed.assigned, listed.jobs, memory, now)
    state = _state(member, bool(workers) or closed, memory, now)
    # Workers that are about to be opened are not there yet, but their host is as idle as before.
    there = bool(workers) or closed or member.id in memory.idle
    idle = state is State.READY and there and not running
    away = {row.number for row in rows if not row.connected and row.number not in told}
    if workers:
        # And those that openQA has never heard of since their host came up.
        away |= set(range(1, fleet.slots + 1)).difference(told, (row.number for row in rows))
    # Types of a fleet may differ in their number of workers: the plan counts on the fewest.
    unfit = memory.count_unfit(member.id, away, now) - max(0, len(rows) - fleet.slots)
    return Host(
        id=member.id,
        fleet=fleet.name,
        state=state,
        launched=min(now, member.launched if member.launched is not None else now),
        idle_since=memory.idle_since(member.id, idle, now),
        running=tuple(sorted(running, key=lambda run: run.since, reverse=True)[: fleet.slots]),
        outdated=group.outdated(member),
        unfit=min(max(0, unfit), fleet.slots - 1),
    )


def _is_lost(host: Host, member: Member, memory: Memory) -> bool:
    """Tell whether a host is not counted on, although its group does: it drains, but nobody told it to."""
    return host.state is State.DRAINING and member.counts and member.healthy and member.id not in memory.told


def _fleet(facts: Facts, group: Group, launches: Launches, no_capacity_at: float | None, now: float) -> Fleet:
    boot = launches.boot_seconds if launches.boot_seconds is not None else facts.boot_seconds
    return Fleet(
        name=facts.name,
        classes=facts.classes,
        slots=facts.slots,
        price=facts.price(),
        boot_seconds=boot,
        min=group.min,
        max=group.max,
        warm=min(warm.hosts(facts.warm, now, ahead=boot), group.max),
        one_host=facts.one_host,
        spare=facts.spare,
        failures=launches.failures,
        last_failure=launches.last_failure,
        no_capacity_at=no_capacity_at,
    )


def _state(member: Member, there: bool, memory: Memory, now: float) -> State:
    """What a host is doing; one that cannot be counted on, as its workers are not there, is draining too."""
    told = memory.told.get(member.id)
    if told is not None and now - told > TOLD_SECONDS and member.counts:
        del memory.told[member.id]
        told = None
    if told is not None or not member.counts or not member.healthy:
        return State.DRAINING
    if member.pending:
        return State.BOOTING
    if there:
        memory.lost.pop(member.id, None)
    elif now - memory.lost.setdefault(member.id, now) >= LOST_SECONDS:
        return State.DRAINING
    return State.READY


def _running(
    workers: Sequence[ListedWorker],
    assigned: Mapping[int, Sequence[ListedJob]],
    jobs: Mapping[int, ListedJob],
    memory: Memory,
    now: float,
) -> list[Running]:
    """The jobs of a host: one for each busy worker, however many it was given to run one after the other."""
    found = []
    for worker in workers:
        own = list(assigned.get(worker.id, ()))
        if not own and worker.job is not None:
            # Given to it after the list of jobs was read, or done but still with it.
            own = [jobs[worker.job]] if worker.job in jobs else []
            if not own:
                found.append(Running(job=worker.job, since=now))
        if own:
            times = [memory.usual.get(job.kind) for job in own]
            started = [job.started for job in own if job.started is not None]
            found.append(
                Running(
                    job=min(job.id for job in own),
                    since=min([now, *started]),
                    expected_seconds=sum(t for t in times if t is not None) if all(times) else None,
                )
            )
    return found


def _jobs(listed: Iterable[ListedJob], on_workers: set[int], memory: Memory, now: float) -> list[Job]:
    """The jobs that wait: scheduled, and not meanwhile taken by a worker."""
    waiting = {job.id: job for job in listed if job.scheduled and job.id not in on_workers}
    alive = {job.id for job in listed}
    clusters = _clusters(waiting)
    jobs = []
    since: dict[int, float] = {}
    for job in waiting.values():
        after = tuple(parent for parent in job.parents if parent in alive)
        if not after and job.blocked_by in alive:
            # openQA knows a reason that the list does not show, such as a parent's parent.
            after = () if job.blocked_by in job.parallel else (job.blocked_by,)
        if not after:
            since[job.id] = min(now, memory.waiting.get(job.id, now))
        jobs.append(
            Job(
                id=job.id,
                classes=job.classes,
                priority=job.priority,
                cluster=clusters.get(job.id),
                after=after,
                since=since.get(job.id, now),
                expected_seconds=memory.usual.get(job.kind),
            )
        )
    memory.waiting = since
    return jobs


def _clusters(jobs: Mapping[int, ListedJob]) -> dict[int, int]:
    """For each job of a parallel cluster, the cluster's lowest id."""
    found: dict[int, int] = {}
    for start in sorted(jobs):
        if start in found:
            continue
        members, front = {start}, [start]
        while front:
            for other in jobs[front.pop()].parallel:
                if other in jobs and other not in members:
                    members.add(other)
                    front.append(other)
        if len(members) > 1:
            found |= dict.fromkeys(members, start)
    return found
