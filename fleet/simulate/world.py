"""openQA, its web UI and the hosts of its fleets, in simulated time: `play` a workload against a policy.

Driven by events, so that weeks pass in seconds: a policy looks at its own interval, but only after something
has happened, otherwise every `QUIET_SECONDS`. Hosts are billed by the second from launch to end, a minute at
least.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from random import Random

from fleet import warm
from fleet.model import Decision, Fleet, Host, Running, Seen, State
from fleet.openqa_scheduler import Classes, Free, Job, Unit, assign
from fleet.simulate.parts import Span, dollars
from fleet.simulate.policies import Policy
from fleet.simulate.progress import Progress
from fleet.simulate.scenario import Scenario
from fleet.simulate.workload import DAY, Post, Task
from fleet.turnstile import Turns

START = 4 * DAY  # the first Monday since the epoch, in seconds: all weeks are alike
QUIET_SECONDS = 30.0
GIVEN_UP_AFTER = 2.0  # a host that does not come up is terminated after this many times its boot time
RECENT_JOBS = 1000  # the controller reads one page of the jobs that ended last
SHUTDOWN_SECONDS = 10.0  # for the lifecycle hook to complete, then billing ends


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The state at one moment: hosts, busy slots, all slots that are up, waiting jobs, dollars an hour."""

    time: float
    hosts: int
    busy: int
    slots: int
    waiting: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a simulation.

    Attributes:
        dollars: The cost of all hosts and their volumes.
        waits: For each start of a job, seconds from when it could run until a worker had it.
        cluster_waits: The waits of jobs in parallel clusters only.
        setups: For each start, seconds until its assets were there.
        fetched: Bytes that hosts got from the web UI.
        launches: Hosts launched.
        killed: Jobs ended by scaling in their host; must be 0.
        interrupted: Jobs ended by spot interruptions.
        unfinished: Jobs that never ended.
        spans: The hosts' lives.
        samples: For plots; empty unless asked for.
    """

    dollars: float
    waits: list[float]
    cluster_waits: list[float]
    setups: list[float]
    fetched: float
    launches: int
    killed: int
    interrupted: int
    unfinished: int
    spans: list[Span]
    samples: list[Sample]


@dataclass(slots=True, eq=False)
class _Fetch:
    """Assets that a host lacks and one of its jobs has asked for; all its jobs that need them wait."""

    machine: _Machine
    size: float
    rate: float
    done: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)


@dataclass(slots=True)
class _Machine:
    fleet: Fleet
    view: Host
    fetches: dict[str, _Fetch] = field(default_factory=dict)  # by asset, those that are done too
    stored_at: float = 0.0  # when all that it has been sent will be on its volume
    closed: bool = False  # takes no more jobs
    open: int = 0  # how many workers take or have jobs
    told: int = 0  # how many shall
    gone: bool = False
    up_at: float | None = None
    busy_since: float = 0.0
    busy: float = 0.0
    held: float = 0.0
    fetching: float = 0.0

    def see(self, now: float, **changes: object) -> None:
        facts = {
            "id": self.view.id,
            "fleet": self.view.fleet,
            "state": self.view.state,
            "launched": self.view.launched,
            "idle_since": self.view.idle_since,
            "running": self.view.running,
            **changes,
        }
        if "running" in changes:
            facts["idle_since"] = None if changes["running"] else now
            if not self.view.running:
                self.busy_since = now
            elif not changes["running"]:
                self.busy += now - self.busy_since
        self.view = Host(**facts)  # type: ignore[arg-type]

    def span(self, end: float) -> Span:
        """The host's life if it ends at this time."""
        return Span(
            fleet=self.fleet.name,
            begin=self.view.launched,
            up=end if self.up_at is None else self.up_at,
            end=end,
            busy=self.busy,
            held=self.held,
            fetching=self.fetching,
        )


class World:
    """The state of one play."""

    def __init__(
        self,
        scenario: Scenario,
        posts: Sequence[Post],
        policy: Policy,
        *,
        seed: int,
        warm_until: float | None,
        sample_seconds: float | None,
    ) -> None:
        self.scenario, self.policy, self.seed = scenario, policy, seed
        self.warm_until = math.inf if warm_until is None else warm_until
        self.runs_until = warm_until if warm_until is not None and scenario.warm else 0.0
        self.random = Random(f"{seed} openQA")  # noqa: S311
        self.now = 0.0
        self.order = 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.fleets = {fleet.name: fleet for fleet in scenario.fleets}
        self.machines: dict[str, _Machine] = {}
        self.launched = 0
        self.seen_fleets = dict(self.fleets)  # as the controller sees them, with what went wrong
        self.tasks = {task.id: task for post in posts for task in post.tasks}
        self.jobs: dict[int, Job] = {}
        self.queue: list[Unit] = []
        self.members: defaultdict[int, list[int]] = defaultdict(list)
        self.children: defaultdict[int, list[int]] = defaultdict(list)
        self.running: dict[int, tuple[_Machine, float, int]] = {}
        self.tries: defaultdict[int, int] = defaultdict(int)
        self.undone = set(self.tasks)
        self.failed: set[int] = set()
        self.recent: deque[Classes] = deque(maxlen=RECENT_JOBS)
        self.look_at = math.inf
        self.fetching: list[tuple[float, int, float, _Fetch]] = []
        self.turns: Turns[_Fetch] = Turns()
        self.fetched = 0.0  # bytes that each fetch would have had if it had begun at the start
        self.fetch_time = 0.0
        self.fetch_version = 0
        self.waits: list[float] = []
        self.cluster_waits: list[float] = []
        self.setups: list[float] = []
        self.sent = 0.0
        self.killed = self.interrupted = 0
        self.spans: list[Span] = []
        self.samples: list[Sample] = []
        self.sample_seconds = sample_seconds
        for post in posts:
            self._at(post.time, lambda post=post: self._post(post))  # type: ignore[misc]
        if sample_seconds:
            self._at(0.0, self._sample)
        self._look_soon()

    def run(self, until: float, progress: Progress | None = None) -> Outcome:
        """Play until all is done and all hosts are gone, or until a time."""
        while self.events and (self.undone or self.machines or self.now < self.runs_until):
            time, _, action = heappop(self.events)
            if time > until:
                break
            self.now = time
            action()
            if progress:
                progress(time)
        for task in [self.tasks[job] for job in self.running]:
            self._stop(task)
        self.spans += [machine.span(self.now) for machine in self.machines.values()]
        return Outcome(
            dollars=dollars(self.spans, self.fleets),
            waits=self.waits,
            cluster_waits=self.cluster_waits,
            setups=self.setups,
            fetched=self.sent,
            launches=self.launched,
            killed=self.killed,
            interrupted=self.interrupted,
            unfinished=len(self.undone),
            spans=self.spans,
            samples=self.samples,
        )

    def _at(self, time: float, action: Callable[[], None]) -> None:
        self.order += 1
        heappush(self.events, (time, self.order, action))

    # openQA: jobs and who gets them

    def _post(self, post: Post) -> None:
        here = {task.id for task in post.tasks}
        for task in post.tasks:
            for parent in task.parents:
                self.children[parent].append(task.id)
            if task.cluster is not None:
                self.members[task.cluster].append(task.id)
            self.jobs[task.id] = self._job(task, tuple(parent for parent in task.parents if parent in here))
        for task in post.tasks:
            if task.cluster is None or task.cluster == task.id:
                self._enqueue(task)
        self._schedule()

    def _job(self, task: Task, after: tuple[int, ...]) -> Job:
        return Job(
            id=task.id,
            classes=task.classes,
            priority=task.priority,
            cluster=task.cluster,
            after=after,
            since=self.now,
            expected_seconds=task.expected_seconds,
        )

    def _enqueue(self, task: Task) -> None:
        """Queue a job or its whole cluster, unless a job of it is blocked."""
        ids = [task.id] if task.cluster is None else self.members[task.cluster]
        if any(self.jobs[member].after for member in ids):
            return
        for member in ids:
            self.jobs[member] = self._job(self.tasks[member], ())
        insort(self.queue, Unit(tuple(self.jobs[member] for member in ids)), key=lambda unit: unit.order)

    def _schedule(self) -> None:
        """One run of openQA's scheduler: it wakes up whenever a job or a worker changes."""
        self._look_soon()
        if not self.queue:
            return
        free = [
            Free(
                host=machine.view.id,
                classes=machine.fleet.classes,
                slots=machine.open - len(machine.view.running),
                one_host=machine.fleet.one_host,
            )
            for machine in self.machines.values()
            if machine.up_at is not None and not machine.closed and len(machine.view.running) < machine.open
        ]
        if not free:
            return
        started = assign(self.queue, free, self.random)
        taken = set()
        for unit, hosts in started:
            taken.add(unit.order)
            for job, host in zip(unit.jobs, hosts, strict=True):
                self._start(self.tasks[job.id], job, self.machines[host])
        if taken:
            self.queue = [unit for unit in self.queue if unit.order not in taken]

    def _start(self, task: Task, job: Job, machine: _Machine) -> None:
        del self.jobs[task.id]
        self.waits.append(self.now - job.since)
        if job.cluster is not None:
            self.cluster_waits.append(self.now - job.since)
        self.tries[task.id] += 1
        attempt = self.tries[task.id]
        self.running[task.id] = (machine, self.now, attempt)
        running = Running(job=task.id, since=self.now, expected_seconds=task.expected_seconds)
        machine.see(self.now, running=(*machine.view.running, running))
        begun = self.now
        missing = self._missing(task, machine)

        def fetched() -> None:
            if self.running.get(task.id, (None, 0.0, 0))[2] != attempt:
                return
            if not all(fetch.done for fetch in missing):
                return
            self.setups.append(self.now - begun)
            machine.fetching += self.now - begun
            fails = None if task.id in self.failed else task.fails_after
            seconds = task.seconds if fails is None else fails
            self._at(self.now + seconds, lambda: self._end(task, attempt, passed=fails is None))

        for fetch in missing:
            fetch.waiting.append(fetched)
        if not missing:
            fetched()

    def _end(self, task: Task, attempt: int, *, passed: bool) -> None:
        if self.running.get(task.id, (None, 0.0, 0))[2] != attempt:
            return
        self._stop(task)
        self.recent.append(task.classes)
        if passed:
            self.undone.discard(task.id)
            for child in self.children.pop(task.id, ()):
                job = self.jobs[child]
                left = tuple(parent for parent in job.after if parent != task.id)
                self.jobs[child] = self._job(self.tasks[child], left)
                if not left:
                    self._enqueue(self.tasks[child])
        else:
            self.failed.add(task.id)
            self._again(task)
        self._schedule()

    def _stop(self, task: Task) -> _Machine:
        """Take a job off its worker."""
        machine, since, _ = self.running.pop(task.id)
        machine.held += self.now - since
        machine.see(self.now, running=tuple(r for r in machine.view.running if r.job != task.id))
        if machine.closed and not machine.view.running:
            self._leave(machine)
        return machine

    def _again(self, task: Task) -> None:
        """Schedule a job again, and with it its whole cluster, done or not, as openQA does."""
        ids = [task.id] if task.cluster is None else self.members[task.cluster]
        for member in ids:
            if member in self.running:
                self._stop(self.tasks[member])
            self.jobs[member] = self._job(self.tasks[member], ())
        self.undone.update(ids)
        self._enqueue(task)

    # Assets: fetches whose turn it is share the web UI's bandwidth, and a host stores one after the other

    def _missing(self, task: Task, machine: _Machine) -> list[_Fetch]:
        """What a job has to wait for: fetches that its host's other jobs began, and one of all the rest."""
        needed = [machine.fetches[name] for name, _ in task.assets if name in machine.fetches]
        lacking = {name: size for name, size in task.assets if name not in machine.fetches}
        if lacking:
            rate = self.scenario.fetch_rate(machine.fleet.name)
            fetch = _Fetch(machine, sum(lacking.values()), rate)
            machine.fetches.update(dict.fromkeys(lacking, fetch))
            needed.append(fetch)
            self.sent += fetch.size
            self._advance_fetches()
            self.turns.ask(fetch, size=fetch.size, at=self.now)
            self._next_fetch()
        return [fetch for fetch in dict.fromkeys(needed) if not fetch.done]

    def _advance_fetches(self) -> None:
        if self.fetching:
            share = self.scenario.webui_bytes_per_second / len(self.fetching)
            self.fetched += share * (self.now - self.fetch_time)
        self.fetch_time = self.now

    def _next_fetch(self) -> None:
        self.fetch_version += 1
        for fetch in self.turns.grant():
            machine = fetch.machine
            machine.stored_at = max(machine.stored_at, self.now) + fetch.size / fetch.rate
            self.order += 1
            heappush(self.fetching, (self.fetched + fetch.size, self.order, machine.stored_at, fetch))
        if not self.fetching:
            return
        version = self.fetch_version
        share = self.scenario.webui_bytes_per_second / len(self.fetching)
        when = self.now + max(0.0, self.fetching[0][0] - self.fetched) / share
        self._at(when, lambda: self._fetch_ends(version))

    def _fetch_ends(self, version: int) -> None:
        if version != self.fetch_version:
            return
        self._advance_fetches()
        _, _, stored_at, fetch = heappop(self.fetching)
        self.turns.leave(fetch)
        self._at(max(self.now, stored_at), lambda: self._stored(fetch))
        self._next_fetch()

    def _stored(self, fetch: _Fetch) -> None:
        fetch.done = True
        for tell in fetch.waiting:
            tell()

    # Hosts

    def _learn(self, fleet: str, **changes: float | None) -> None:
        """Note how a launch went, as the controller reads it from the group's activities."""
        self.seen_fleets[fleet] = replace(self.seen_fleets[fleet], **changes)  # type: ignore[arg-type]

    def _launch(self, fleet: Fleet) -> None:
        if any(d.fleet == fleet.name and d.begin <= self.now < d.end for d in self.scenario.droughts):
            self._learn(fleet.name, no_capacity_at=self.now)
            return
        self._learn(fleet.name, no_capacity_at=None)
        self.launched += 1
        name = f"i-{self.launched:06d}"
        random = Random(f"{self.seed} {fleet.name} {self.launched}")  # noqa: S311
        boot = fleet.boot_seconds * random.lognormvariate(0, self.scenario.boot_scatter)
        comes_up = random.random() >= self.scenario.failure_share
        machine = _Machine(
            fleet=fleet,
            view=Host(id=name, fleet=fleet.name, state=State.BOOTING, launched=self.now),
            open=fleet.slots,
            told=fleet.slots,
        )
        self.machines[name] = machine
        if comes_up:
            self._at(self.now + boot, lambda: self._up(machine))
        else:
            self._at(self.now + GIVEN_UP_AFTER * fleet.boot_seconds, lambda: self._give_up(machine))
        if self.scenario.spot_mean_hours is not None:
            life = random.expovariate(1 / (self.scenario.spot_mean_hours * 3600))
            self._at(self.now + life, lambda: self._interrupt(machine))

    def _up(self, machine: _Machine) -> None:
        if machine.gone:
            return
        machine.up_at = self.now
        self._learn(machine.fleet.name, failures=0, last_failure=None)
        state = State.READY if machine.view.state is State.BOOTING else machine.view.state
        machine.see(self.now, state=state, idle_since=self.now)
        self._schedule()

    def _give_up(self, machine: _Machine) -> None:
        if not machine.gone:
            failures = self.seen_fleets[machine.fleet.name].failures + 1
            self._learn(machine.fleet.name, failures=failures, last_failure=self.now)
            self._leave(machine)
            self._look_soon()

    def _interrupt(self, machine: _Machine) -> None:
        """Spot: two minutes' notice, in which the agent hands the running jobs back."""
        if machine.gone:
            return
        machine.closed = True
        before = len(self.running)
        while machine.view.running:
            self._again(self.tasks[machine.view.running[0].job])
        self.interrupted += before - len(self.running)
        if not machine.gone:
            self._leave(machine)
        self._schedule()

    def _leave(self, machine: _Machine) -> None:
        machine.gone = True
        self.killed += len(machine.view.running)
        del self.machines[machine.view.id]
        self.spans.append(machine.span(self.now + SHUTDOWN_SECONDS))

    def _close(self, host: str) -> None:
        """The host's agent has heard: it takes no more jobs, and goes when it has none."""
        machine = self.machines.get(host)
        if machine and not machine.closed:
            machine.closed = True
            if not machine.view.running:
                self._leave(machine)
            self._look_soon()

    # The policy

    def _look_soon(self) -> None:
        """Look at the policy's next turn."""
        turn = (math.floor(self.now / self.policy.interval) + 1) * self.policy.interval
        self._look_by(turn)

    def _look_by(self, time: float) -> None:
        if time < self.look_at:
            self.look_at = time
            self._at(time, lambda: self._look(time))

    def _look(self, time: float) -> None:
        if time != self.look_at:
            return
        self.look_at = math.inf
        seen = Seen(
            now=self.now,
            jobs_at=self.now,
            hosts_at=self.now,
            jobs=tuple(self.jobs.values()),
            hosts=tuple(machine.view for machine in self.machines.values()),
            fleets=tuple(map(self._warmed, self.seen_fleets.values())),
            recent=Counter(self.recent),
        )
        self._act(self.policy.decide(seen))
        if self.jobs or self.machines or self.scenario.warm:
            turns = max(1, math.floor(QUIET_SECONDS / self.policy.interval))
            self._look_by(self.now + turns * self.policy.interval)

    def _warmed(self, fleet: Fleet) -> Fleet:
        times = self.scenario.warm.get(fleet.name)
        if not times or self.now >= self.warm_until:
            return fleet
        hosts = warm.hosts(times, START + self.now, ahead=fleet.boot_seconds)
        return replace(fleet, warm=min(hosts, fleet.max))

    def _act(self, decision: Decision) -> None:
        for host in (*decision.drain, *decision.release):
            machine = self.machines[host]
            if machine.view.state is not State.DRAINING:
                machine.see(self.now, state=State.DRAINING)
                self._at(self.now + self.scenario.drain_seconds, lambda host=host: self._close(host))  # type: ignore[misc]
        for host, machine in self.machines.items():
            going = machine.view.state is State.DRAINING
            workers = 0 if going else decision.open.get(host, machine.fleet.slots)
            if machine.told != workers:
                machine.told = workers
                self._at(self.now + self.scenario.open_seconds, lambda m=machine, w=workers: self._open(m, w))  # type: ignore[misc]
        have: defaultdict[str, int] = defaultdict(int)
        for machine in self.machines.values():
            if machine.view.state is not State.DRAINING:
                have[machine.fleet.name] += 1
        for name, desired in decision.desired.items():
            for _ in range(desired - have[name]):
                self._launch(self.fleets[name])
                if self.seen_fleets[name].no_capacity_at == self.now:
                    break

    def _open(self, machine: _Machine, workers: int) -> None:
        """The host's agent has heard how many of its workers shall take jobs."""
        if machine.told == workers:
            opened = workers > machine.open
            machine.open = workers
            if opened:
                self._schedule()

    def _sample(self) -> None:
        up = [machine for machine in self.machines.values() if machine.up_at is not None]
        self.samples.append(
            Sample(
                time=self.now,
                hosts=len(self.machines),
                busy=len(self.running),
                slots=sum(machine.fleet.slots for machine in up),
                waiting=sum(unit.size for unit in self.queue),
                rate=sum(machine.fleet.price for machine in self.machines.values()),
            )
        )
        if self.sample_seconds:
            self._at(self.now + self.sample_seconds, self._sample)


def play(
    scenario: Scenario,
    posts: Sequence[Post],
    policy: Policy,
    *,
    seed: int,
    until: float = math.inf,
    warm_until: float | None = None,
    sample_seconds: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Play a workload against a policy.

    Args:
        scenario: The fleets and their world.
        posts: The jobs.
        policy: The policy that scales.
        seed: Decides boot times, failures, and openQA's shuffling of workers.
        until: Stop then at the latest, in seconds from the start: some policies keep hosts for ever.
        warm_until: Keep warm hosts until then, even if all jobs are done before, and none after it; None: as
            long as there are jobs or hosts.
        sample_seconds: Seconds from one sample to the next.
        progress: Told what time it is in the simulation.

    Returns:
        The result.
    """
    return World(
        scenario, posts, policy, seed=seed, warm_until=warm_until, sample_seconds=sample_seconds
    ).run(until, progress)
