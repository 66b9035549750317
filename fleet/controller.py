"""The fleets' controller: ``python3 -m fleet.controller`` on the web UI's host.

Every few seconds it reads openQA's queue and workers and the Auto Scaling groups, lets `fleet.policy` decide,
and acts: on the groups, and through `fleet.closings` on which workers take jobs. Only one controller acts at
a time (`fleet.lock`). If something cannot be read, or makes no sense, nothing is changed.

``--once --dry-run --json`` shows what is seen and what would be done, and does nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Protocol

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fleet import acts, closings, lock, metrics, policy, view
from fleet import facts as fleet_facts
from fleet.acts import Act, LetGo
from fleet.closings import Closings
from fleet.facts import Facts, FactsError
from fleet.groups import AwsError, Groups, Launches
from fleet.lock import Lock
from fleet.model import Decision, Fleet, Host, State
from fleet.openqa_api import OpenQaApi, OpenQaError, Queue
from fleet.rules import DEFAULT_RULES
from fleet.view import Memory, View
from userdata.host import aws, document
from userdata.host.document import Document
from userdata.host.errors import HostError
from userdata.host.layout import Layout

log = logging.getLogger(__name__)

PAUSE_SECONDS = 2.0
# Reading is work for the web UI: the controller then pauses for so many times as long as a round took.
PAUSE_SHARE = 3.0
PAUSE_MOST_SECONDS = 30.0
FACTS_SECONDS = 60.0
LAUNCHES_SECONDS = 30.0
LEARN_SECONDS = 600.0
METRICS_SECONDS = 60.0
WEBUI = "http://127.0.0.1"
# Retrying a call for longer than this would mean acting on old data.
_CALLS = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=15)


class OpenQa(Protocol):
    """openQA, as `fleet.openqa_api.OpenQaApi`."""

    def read(self) -> Queue:
        """Read the queue and the workers."""

    def finished(self) -> Sequence[Any]:
        """Read the jobs that ended most recently."""


@dataclass(kw_only=True)
class Round:
    """The result of one round.

    Attributes:
        view: What was seen; None if something could not be read.
        decision: The policy's; None likewise.
        acts: What is to be done.
        unusable: Why nothing is changed; None if all is well.
    """

    view: View | None = None
    decision: Decision | None = None
    acts: list[Act] = field(default_factory=list)
    unusable: str | None = None


@dataclass(kw_only=True)
class _Counts:
    """What happened since the last metrics."""

    rounds: int = 0
    blind: int = 0
    acted: int = 0
    failed: int = 0


class Controller:
    """Looks, decides and acts.

    Args:
        openqa: openQA's API.
        groups: The Auto Scaling groups.
        read_facts: Reads the fleets' parameters; raises `AwsError`.
        held: Whether this controller may act.
        tell: Tells the hosts which workers take no jobs.
        closed: What they were told last.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        openqa: OpenQa,
        groups: Groups,
        read_facts: Callable[[], Sequence[Facts]],
        held: Callable[[], bool],
        tell: Callable[[Closings], None],
        closed: Closings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._openqa = openqa
        self._groups = groups
        self._read_facts = read_facts
        self._held = held
        self._tell = tell
        self._clock = clock
        self._memory = Memory(closed=closed)
        self._facts: Sequence[Facts] = ()
        self._launches: dict[str, Launches] = {}
        self._done_at: dict[str, float] = {}
        self._said: dict[str, str] = {}
        self._counts = _Counts()

    def look(self) -> Round:
        """Read everything and decide, without acting."""
        try:
            return self._look()
        except (OpenQaError, AwsError) as error:
            return Round(unusable=str(error))

    def _look(self) -> Round:
        queue = self._openqa.read()
        if self._is_due("learn", LEARN_SECONDS):
            self._learn()
        if self._is_due("facts", FACTS_SECONDS):
            self._facts = self._read_facts()
            self._done("facts")
        names = [fleet.group for fleet in self._facts]
        at, groups = self._groups.read(names)
        if self._is_due("launches", LAUNCHES_SECONDS):
            self._launches = {name: self._groups.launches(name) for name in groups}
            self._done("launches")
        seen = view.look(
            now=self._clock(),
            queue=queue,
            groups=groups,
            groups_at=at,
            facts=self._facts,
            launches=self._launches,
            memory=self._memory,
        )
        decision = policy.decide(seen.seen)
        return Round(
            view=seen,
            decision=decision,
            acts=acts.acts(decision, seen, groups, self._facts),
            unusable=decision.unusable,
        )

    def _learn(self) -> None:
        """Learn how long jobs take. If that fails, what was known stays; the round goes on."""
        self._done("learn")
        try:
            self._memory.learn(self._openqa.finished())
        except OpenQaError as error:
            self._say("learn", f"how long jobs take cannot be read again: {error}")
        else:
            self._say("learn", "")

    def _is_due(self, what: str, seconds: float) -> bool:
        # Also if the clock was set back by more than that.
        return abs(self._clock() - self._done_at.get(what, -math.inf)) >= seconds

    def _done(self, what: str) -> None:
        self._done_at[what] = self._clock()

    def round(self) -> Round | None:
        """Do one round; None if this is not the controller that acts."""
        if not self._held():
            self._say("held", "")
            return None
        done = self.look()
        self._counts.rounds += 1
        if done.unusable:
            self._counts.blind += 1
        self._say("unusable", f"nothing is changed: {done.unusable}" if done.unusable else "all is well")
        if done.decision is not None:
            for fleet in done.decision.desired:
                why = done.decision.held.get(fleet, "")
                self._say(f"held {fleet}", f"{fleet}: no launches: {why.partition(';')[0]}" if why else "")
        if done.view is None or done.decision is None or done.unusable:
            return done
        for act in done.acts:
            if not self._may_act(done.view):
                # Even if the lock is regained: another controller may have acted meanwhile.
                return done
            self._do(act)
        if self._may_act(done.view):
            self._close(acts.closings(done.decision, done.view))
        return done

    def _close(self, wanted: Closings) -> None:
        """Tell hosts which workers take no jobs; in every round, as closings count for only a minute."""
        try:
            self._tell(wanted)
        except OSError as error:
            self._say("closings", f"the hosts cannot be told which workers take no jobs: {error}")
        else:
            self._memory.closed = wanted
            self._say("closings", "")

    def _do(self, act: Act) -> None:
        try:
            act.carry_out(self._groups)
        except AwsError as error:
            self._counts.failed += 1
            self._say(f"act {act.fleet}", f"{act.text} failed: {error}")
        else:
            if isinstance(act, LetGo):
                self._memory.told[act.instance] = self._clock()
            self._counts.acted += 1
            self._said.pop(f"act {act.fleet}", None)
            log.info("%s", act.text)

    def _may_act(self, seen: View) -> bool:
        """Whether what was seen is fresh enough, and this still is the controller that acts."""
        oldest = min(seen.seen.jobs_at, seen.seen.hosts_at)
        return self._clock() - oldest <= DEFAULT_RULES.stale_seconds and self._held()

    def report(self, done: Round) -> list[metrics.Datum]:
        """The metrics since the last report; none if it is too early for them."""
        if not self._is_due("metrics", METRICS_SECONDS):
            return []
        self._done("metrics")
        counts, self._counts = self._counts, _Counts()
        data = metrics.of_rounds(**asdict(counts))
        if done.view is not None and done.decision is not None and not done.unusable:
            data += metrics.of_view(done.view, done.decision)
        return data

    def _say(self, about: str, text: str) -> None:
        """Log what is new; what stays the same is logged only once."""
        if text and text != self._said.get(about, "all is well"):
            log.info("%s", text)
        self._said[about] = text


def run(
    controller: Controller,
    *,
    put: Callable[[list[metrics.Datum]], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    rounds: int | None = None,
) -> None:
    """Do round after round.

    Args:
        controller: The controller.
        put: Sends metrics.
        sleep: Waits; takes seconds.
        clock: Seconds, monotonic.
        rounds: So many; None: for ever.
    """
    while rounds is None or rounds > 0:
        rounds = None if rounds is None else rounds - 1
        began = clock()
        done = controller.round()
        if done is not None and (data := controller.report(done)):
            put(data)
        took = clock() - began
        sleep(max(PAUSE_SECONDS - took, min(took * PAUSE_SHARE, PAUSE_MOST_SECONDS)))


def read_facts(ssm: Any, environment: str) -> list[Facts]:
    """Read the fleets' parameters. An invalid one is left out, with a warning.

    Args:
        ssm: SSM.
        environment: The environment's name.

    Raises:
        AwsError: SSM does not answer.
    """
    path = fleet_facts.parameters(environment)
    found: list[Facts] = []
    try:
        for page in ssm.get_paginator("get_parameters_by_path").paginate(Path=path):
            for parameter in page["Parameters"]:
                name = parameter["Name"].rpartition("/")[2]
                try:
                    found.append(fleet_facts.parse(name, parameter["Value"]))
                except FactsError as error:
                    log.warning("%s", error)
    except (ClientError, BotoCoreError) as error:
        raise AwsError(f"the parameters below {path}: {error}") from error
    return sorted(found, key=lambda fleet: fleet.name)


def describe(done: Round) -> dict[str, Any]:
    """Describe a round, as data for JSON."""
    seen = done.view.seen if done.view else None
    return {
        "unusable": done.unusable,
        "fleets": [asdict(fleet) for fleet in seen.fleets] if seen else [],
        "hosts": [asdict(host) for host in seen.hosts] if seen else [],
        "jobs": [asdict(job) for job in seen.jobs] if seen else [],
        "decision": asdict(done.decision) if done.decision else None,
        "acts": [act.text for act in done.acts],
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else sorted(value)


def _closed(decision: Decision, hosts: Sequence[Host], fleet: Fleet) -> int:
    """How many workers of a fleet take no jobs, or no further one after the job that they have."""
    return sum(fleet.slots - decision.open.get(host.id, fleet.slots) for host in hosts)


def show(done: Round) -> str:
    """Describe a round in words."""
    if done.view is None or done.decision is None:
        return f"Nothing is changed: {done.unusable}"
    seen = done.view.seen
    waiting = sum(not job.after for job in seen.jobs)
    lines = [f"{waiting} jobs wait, {len(seen.jobs) - waiting} more for other jobs."]
    lines += [
        f"No fleet can run {count} jobs with {', '.join(map(repr, sorted(classes)))}."
        for classes, count in policy.unserved(seen).most_common()
    ]
    for fleet in seen.fleets:
        hosts = [host for host in seen.hosts if host.fleet == fleet.name]
        states = [f"{sum(host.state is state for host in hosts)} {state.value}" for state in State]
        facts = [
            *states,
            f"{done.decision.desired.get(fleet.name, 0)} wanted",
            f"{sum(len(host.running) for host in hosts)} jobs",
            f"{_closed(done.decision, hosts, fleet)} workers closed",
            f"${done.view.hourly[fleet.name]:.2f} an hour",
        ]
        held = done.decision.held.get(fleet.name)
        lines.append(f"{fleet.name}: {', '.join(facts)}{f'; no launches: {held}' if held else ''}")
    lines += [act.text for act in done.acts] or ["Nothing to do."]
    if done.unusable:
        lines.append(f"Nothing is changed: {done.unusable}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the controller; returns the exit code.

    Args:
        arguments: The command line's words; None takes the process's own.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.dry_run or options.json) and not options.once:
        parser.error("--dry-run and --json are for --once")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    layout = Layout()
    try:
        host = document.load(layout.document)
    except HostError as error:
        log.error("%s", error)
        return 1
    if not aws.has_credentials():
        # Clients keep for ever what they start with; systemd starts this again.
        log.error("the instance metadata tell no credentials of this host's role")
        return 1
    held = Lock(lambda: _session(host, layout))
    controller = Controller(
        openqa=OpenQaApi(options.url),
        groups=Groups(lambda service: _client(service, host)),
        read_facts=partial(read_facts, _client("ssm", host), host.environment),
        held=held.hold,
        tell=lambda wanted: closings.write(layout.closings, wanted, at=time.time()),
        closed=closings.read(layout.closings),
    )
    if options.once:
        return _once(controller, dry=options.dry_run, as_json=options.json)
    cloudwatch = _client("cloudwatch", host)
    run(controller, put=lambda data: _put(cloudwatch, host.environment, data))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m fleet.controller",
        description="Sizes this environment's worker fleets to fit openQA's queue.",
    )
    parser.add_argument("--once", action="store_true", help="do one round and describe it")
    parser.add_argument("--dry-run", action="store_true", help="with --once: change nothing, take no lock")
    parser.add_argument("--json", action="store_true", help="with --once: describe it as JSON")
    parser.add_argument("--url", default=WEBUI, help="where the web UI answers (%(default)s)")
    return parser


def _once(controller: Controller, *, dry: bool, as_json: bool) -> int:
    done = controller.look() if dry else controller.round()
    if done is None:
        print("Nothing is done without the lock.", file=sys.stderr)
        return 1
    print(json.dumps(describe(done), default=_plain, indent=2) if as_json else show(done))
    return 1 if done.unusable else 0


def _client(service: str, host: Document) -> Any:
    return aws.client(service, host.region, config=_CALLS)


def _session(host: Document, layout: Layout) -> Any:
    return lock.connect(
        host=host.database_host,
        password=layout.secrets / "database",
        certificate=layout.config / "database-ca.crt",
    )


def _put(cloudwatch: Any, environment: str, data: list[Mapping[str, Any]]) -> None:
    try:
        metrics.put(cloudwatch, environment, data)
    except (ClientError, BotoCoreError) as error:
        log.warning("metrics: %s", error)


if __name__ == "__main__":
    sys.exit(main())
