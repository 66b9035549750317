"""The agent: what it decides, and what it does about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partialmethod
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from fleet import agent, roles
from fleet.agent import DRAIN_SECONDS, HEARTBEAT_SECONDS, KEEP_SECONDS, Notice, Seen, Step, decide, watch
from tests.userdata import machine
from userdata.host import aws, names
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.metadata import Metadata
from userdata.host.signals import Signals


@pytest.mark.parametrize(
    ("going", "busy", "drain", "heartbeat", "step"),
    [
        (False, 0, None, None, Step.WAIT),
        (True, 0, None, None, Step.DRAIN),
        (True, 2, 1.0, None, Step.HEARTBEAT),
        (True, 2, 30.0, 29.0, Step.WAIT),
        (True, 2, 90.0, HEARTBEAT_SECONDS, Step.HEARTBEAT),
        (True, 0, 90.0, 0.0, Step.STOP),
        (True, 2, DRAIN_SECONDS, 0.0, Step.STOP),
    ],
)
def test_decide(going: bool, busy: int, drain: float | None, heartbeat: float | None, step: Step) -> None:
    seen = Seen(going=going, busy=busy, drain_seconds=drain, heartbeat_seconds=heartbeat)
    assert decide(seen) is step


@pytest.mark.parametrize(
    ("notice", "going", "busy", "drain", "left", "step"),
    [
        (Notice.REBALANCE, False, 0, None, False, Step.DRAIN),
        (Notice.REBALANCE, False, 2, 60.0, False, Step.LEAVE),
        (Notice.REBALANCE, False, 2, 60.0, True, Step.WAIT),
        (Notice.REBALANCE, True, 2, 60.0, False, Step.WAIT),
        (Notice.REBALANCE, False, 0, 60.0, False, Step.LEAVE),
        (Notice.REBALANCE, False, 0, 60.0, True, Step.WAIT),
        (Notice.REBALANCE, True, 0, 60.0, True, Step.STOP),
        (Notice.INTERRUPTION, False, 0, None, False, Step.HAND_BACK),
        (Notice.INTERRUPTION, False, 2, 60.0, False, Step.HAND_BACK),
        (Notice.INTERRUPTION, True, 2, 60.0, False, Step.HAND_BACK),
        (None, False, 0, 5.0, False, Step.LEAVE),
        (None, True, 0, 5.0, False, Step.STOP),
    ],
)
def test_decide_on_a_spot_host(
    notice: Notice | None, going: bool, busy: int, drain: float | None, left: bool, step: Step
) -> None:
    seen = Seen(
        going=going,
        busy=busy,
        drain_seconds=drain,
        heartbeat_seconds=0.0,
        notice=notice,
        left=left,
    )
    assert decide(seen) is step


def test_a_group_hears_no_heartbeat_before_it_waits() -> None:
    seen = Seen(
        going=False, busy=2, drain_seconds=60.0, heartbeat_seconds=None, notice=Notice.REBALANCE, left=True
    )
    assert decide(seen) is Step.WAIT
    assert decide(replace(seen, going=True)) is Step.HEARTBEAT


@given(
    going=st.booleans(),
    busy=st.integers(min_value=1, max_value=60),
    drain=st.one_of(st.none(), st.floats(min_value=0, max_value=DRAIN_SECONDS - 1)),
    heartbeat=st.one_of(st.none(), st.floats(min_value=0, max_value=1e6)),
    notice=st.sampled_from([None, Notice.REBALANCE]),
)
def test_a_busy_host_is_never_stopped_before_the_limit(
    going: bool, busy: int, drain: float | None, heartbeat: float | None, notice: Notice | None
) -> None:
    seen = Seen(going=going, busy=busy, drain_seconds=drain, heartbeat_seconds=heartbeat, notice=notice)
    assert decide(seen) not in (Step.STOP, Step.HAND_BACK)


@dataclass
class World:
    """A role, a group and a clock."""

    targets: list[str | None]
    busy_for: float = 0.0  # seconds of draining
    broken: int = 0  # so many times, draining fails
    waits_at: float = 0.0  # from then on the group waits for the hook
    now: float = 0.0
    drained: float | None = None
    notices: dict[float, Notice] = field(default_factory=dict)  # by when they come
    stopped: bool = False
    log: list[str] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    tended: list[float] = field(default_factory=list)
    told_again: list[float] = field(default_factory=list)

    def target(self) -> str | None:
        return self.targets.pop(0) if len(self.targets) > 1 else self.targets[0]

    def drain(self) -> None:
        if self.broken:
            self.broken -= 1
            raise HostError("podman is not there")
        if self.drained is not None:
            self.told_again.append(self.now)
            return
        self.drained = self.now
        self.log.append("drain")

    def busy(self) -> int:
        if self.drained is None:
            return 1
        return int(self.now - self.drained < self.busy_for and not self.stopped)

    def stop(self) -> None:
        self.drained = self.now if self.drained is None else self.drained
        self.stopped = True
        self.log.append("stop")

    def unfit(self) -> None:
        self.log.append("leave")
        self.targets = ["Terminated"]

    def notice(self) -> Notice | None:
        return next((notice for at, notice in reversed(self.notices.items()) if at <= self.now), None)

    def keep(self) -> None:
        self.kept.append(self.now)
        if len(self.kept) % 2:
            raise HostError("the table is not there")

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1e6, "it never ends"

    def complete(self) -> bool:
        self.log.append("complete" if self.now >= self.waits_at else "too early")
        return self.now >= self.waits_at

    def run(self) -> list[str]:
        watch(
            target=self.target,
            role=self,
            heartbeat=lambda: self.log.append("heartbeat"),
            complete=self.complete,
            unfit=self.unfit,
            notice=self.notice,
            keep=self.keep,
            tend=lambda: self.tended.append(self.now),
            sleep=self.sleep,
            clock=lambda: 1e5 + self.now,  # the machine has run for some time
        )
        return self.log


def test_it_tells_what_it_is_before_it_asks_anybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "Metadata", None)
    for words, code in ((["--help"], 0), (["--nope"], 2), (["now"], 2)):
        with pytest.raises(SystemExit) as raised:
            agent.main(words)
        assert raised.value.code == code
    assert "Shuts this host down in order" in capsys.readouterr().out


def test_its_unit_starts_it_without_a_word() -> None:
    unit = machine.REPOSITORY / "userdata/roles/common/units/openqa-agent.service"
    assert "\nExecStart=/usr/bin/python3 -m fleet.agent\n" in unit.read_text()


def test_an_idle_host_goes_at_once() -> None:
    assert World(targets=["InService", "InService", "Terminated"]).run() == ["drain", "stop", "complete"]


def test_a_job_is_waited_for_with_heartbeats() -> None:
    world = World(targets=["Terminated"], busy_for=4 * HEARTBEAT_SECONDS)
    assert world.run() == ["drain", *["heartbeat"] * 4, "stop", "complete"]


def test_an_endless_job_is_not_waited_for_beyond_the_limit() -> None:
    world = World(targets=["Terminated"], busy_for=1e9)
    assert world.run()[-2:] == ["stop", "complete"]
    assert world.now >= DRAIN_SECONDS


def test_draining_goes_on_when_the_metadata_stops_to_say_so() -> None:
    assert World(targets=["Terminated", None], busy_for=60).run()[-1] == "complete"


def test_heartbeats_go_on_when_the_metadata_stops_to_say_so() -> None:
    world = World(targets=["Terminated", None], busy_for=4 * HEARTBEAT_SECONDS)
    assert world.run() == ["drain", *["heartbeat"] * 4, "stop", "complete"]


def test_who_cannot_be_told_to_end_is_told_again_and_the_group_waits() -> None:
    world = World(targets=["Terminated"], broken=3)
    assert world.run() == [*["heartbeat"] * 3, "drain", "stop", "complete"]
    assert world.now <= 3 * roles.TOLD_AGAIN_SECONDS + 4 * agent.POLL_SECONDS


def test_a_hook_that_does_not_wait_yet_is_completed_when_it_does() -> None:
    world = World(targets=["Terminated"], waits_at=30.0)
    log = world.run()
    assert log == ["drain", "stop", *["too early"] * 6, "complete"]


def test_a_detached_host_ends_although_no_hook_waits_for_it() -> None:
    world = World(targets=["Detached"], waits_at=1e9)
    assert world.run()[-1] == "too early"
    assert agent.HOOK_SECONDS <= world.now <= agent.HOOK_SECONDS + 2 * agent.POLL_SECONDS


def test_a_hook_that_cannot_be_completed_is_tried_again() -> None:
    world = World(targets=["Terminated"])
    failures = [HostError("throttled"), HostError("throttled")]

    def complete() -> bool:
        if failures:
            raise failures.pop()
        return world.complete()

    watch(
        target=world.target,
        role=world,
        heartbeat=lambda: None,
        complete=complete,
        unfit=world.unfit,
        notice=world.notice,
        keep=world.keep,
        tend=lambda: None,
        sleep=world.sleep,
        clock=lambda: world.now,
    )
    assert world.log[-1] == "complete"


class Stuck(World):
    """A host whose volume, or whose workers, systemd cannot stop at first."""

    def stop(self) -> None:
        if self.now < 120.0:
            raise HostError("srv-data.mount is busy")
        super().stop()


def test_a_host_that_cannot_stop_yet_is_not_let_go_before_it_has() -> None:
    assert Stuck(targets=["Terminated"]).run() == ["drain", "stop", "complete"]


def test_jobs_that_cannot_be_handed_back_are_handed_back_again() -> None:
    world = Stuck(targets=["InService"], busy_for=1e9, notices={60.0: Notice.INTERRUPTION})
    assert world.run() == ["stop", "leave", "stop", "complete"]


def test_an_interrupted_host_hands_its_jobs_back_at_once_and_leaves() -> None:
    world = World(targets=["InService"], busy_for=1e9, notices={60.0: Notice.INTERRUPTION})
    assert world.run() == ["stop", "leave", "stop", "complete"]
    assert world.now <= 60.0 + 4 * agent.POLL_SECONDS


def test_an_interruption_ends_the_patience_of_a_host_that_drains() -> None:
    world = World(targets=["Terminated"], busy_for=1e9, notices={90.0: Notice.INTERRUPTION})
    assert world.run()[-3:] == ["stop", "stop", "complete"]
    assert world.now <= 90.0 + 2 * agent.POLL_SECONDS


def test_a_host_at_risk_leaves_and_finishes_its_jobs() -> None:
    world = World(targets=["InService"], busy_for=300.0, notices={60.0: Notice.REBALANCE})
    assert world.run() == ["drain", "leave", *["heartbeat"] * 5, "stop", "complete"]
    assert world.now >= 360.0


def test_a_host_at_risk_may_be_interrupted_before_it_is_idle() -> None:
    notices = {60.0: Notice.REBALANCE, 120.0: Notice.INTERRUPTION}
    world = World(targets=["InService"], busy_for=1e9, notices=notices)
    log = world.run()
    assert [step for step in log if step != "heartbeat"] == ["drain", "leave", "stop", "stop", "complete"]
    assert world.now <= 120.0 + 2 * agent.POLL_SECONDS


def test_a_group_is_told_once_that_a_host_is_of_no_more_use() -> None:
    class Slow(World):
        def unfit(self) -> None:
            self.log.append("leave")
            self.targets = [*["InService"] * 9, "Terminated"]

    log = Slow(targets=["InService"], notices={0.0: Notice.REBALANCE}).run()
    assert log == ["drain", "leave", "stop", "complete"]


@pytest.mark.parametrize(
    ("known", "notice"),
    [
        ({}, None),
        ({agent.REBALANCE: "{}"}, Notice.REBALANCE),
        ({agent.INTERRUPTION: "{}", agent.REBALANCE: "{}"}, Notice.INTERRUPTION),
    ],
)
def test_notices_come_from_the_metadata(known: dict[str, str], notice: Notice | None) -> None:
    class Known(Metadata):
        def find(self, path: str) -> str | None:
            return known.get(path)

    assert agent.find_notice(Known()) is notice


def test_the_name_is_kept_every_minute_while_workers_may_use_it() -> None:
    world = World(targets=[*["InService"] * 100, "Terminated"], busy_for=600)
    world.run()
    between = [after - before for before, after in pairwise(world.kept)]
    assert world.kept[0] == 0
    assert all(KEEP_SECONDS <= pause <= KEEP_SECONDS + 2 * agent.POLL_SECONDS for pause in between)
    assert world.now - world.kept[-1] <= KEEP_SECONDS + 2 * agent.POLL_SECONDS


@pytest.mark.parametrize("slow", [0.0, 56.0, 300.0])
def test_a_table_that_does_not_answer_keeps_no_host_from_its_end(slow: float) -> None:
    class Slow(World):
        def keep(self) -> None:
            self.now += slow
            raise HostError("the table does not answer")

    world = Slow(targets=["Terminated"], busy_for=7200.0)
    log = world.run()
    assert log[0] == "drain"
    assert log[-2:] == ["stop", "complete"]
    # Well within the hook's time.
    assert log.count("heartbeat") >= 7200 / (slow + KEEP_SECONDS + 2 * agent.POLL_SECONDS) - 2


def test_what_cannot_be_asked_keeps_no_host_from_its_heartbeat() -> None:
    class Dumb(World):
        def busy(self) -> int:
            if self.now < 600:
                raise HostError("podman does not answer")
            return super().busy()

        def notice(self) -> Notice | None:
            raise HostError("the metadata do not answer")

    log = Dumb(targets=["Terminated"]).run()
    assert log == ["drain", *["heartbeat"] * 10, "stop", "complete"]


class Group:
    """What a host says to its group."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def unhealthy(self) -> None:
        self.said.append("unhealthy")

    def complete(self, hook: str, result: str) -> bool:
        self.said.append(f"{hook} {result}")
        return True


def leased(root: Path, holder: str = machine.INSTANCE) -> Host:
    """A worker host whose name has this holder."""
    machine.make_names()
    host = machine.host(root, "worker")
    host.client("dynamodb").put_item(
        TableName="openqa-test-names",
        Item={"fleet": {"S": "standard"}, "number": {"N": "1"}, "instance": {"S": holder}},
    )
    return host


@mock_aws
def test_a_host_that_lost_its_name_is_to_be_replaced(tmp_path: Path) -> None:
    host, group = leased(tmp_path, "i-other"), Group()
    with pytest.raises(HostError, match="standard-1 belongs to another host now"):
        agent.keep_name(host, group)  # type: ignore[arg-type]
    assert group.said == ["unhealthy"]


@mock_aws
def test_a_host_gives_its_name_back_before_its_group_lets_it_go(tmp_path: Path) -> None:
    host, group = leased(tmp_path), Group()
    agent.keep_name(host, group)  # type: ignore[arg-type]
    agent.leave(host, group)  # type: ignore[arg-type]
    assert group.said == ["drain CONTINUE"]
    assert host.client("dynamodb").scan(TableName="openqa-test-names")["Items"] == []


@mock_aws
def test_a_host_goes_even_if_it_cannot_give_its_name_back(tmp_path: Path) -> None:
    group = Group()
    agent.leave(machine.host(tmp_path, "worker"), group)  # type: ignore[arg-type]
    agent.leave(machine.host(tmp_path / "database", "database"), group)  # type: ignore[arg-type]
    assert group.said == ["drain CONTINUE"] * 2


@pytest.mark.parametrize(("name", "noticed"), [("worker", Notice.INTERRUPTION), ("database", None)])
def test_the_agent_does_what_the_group_waits_for(
    name: str, noticed: Notice | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, given = machine.host(tmp_path, name), dict[str, Any]()
    said: list[tuple[str, ...]] = []

    def keep(host: Host) -> bool:
        said.append(("keep",))
        return True

    monkeypatch.setattr(agent, "_host", lambda metadata: host)
    monkeypatch.setattr(agent, "watch", lambda **more: given.update(more))
    monkeypatch.setattr(Metadata, "find", lambda self, path: path)
    for action in ("heartbeat", "complete", "unhealthy"):
        note = partialmethod(lambda self, action, *words: said.append((action, *words)), action)
        monkeypatch.setattr(Signals, action, note)
    monkeypatch.setattr(names, "release", lambda host: said.append(("release",)))
    monkeypatch.setattr(names, "keep", keep)
    monkeypatch.setattr(agent, "Told", lambda url, instance: lambda: (url, instance))
    monkeypatch.setattr(roles.Workers, "close", lambda self, told: said.append(("close", *told)))
    assert agent.main([]) == 0
    assert isinstance(given["role"], roles.ContainerWorkers if name == "worker" else roles.Stateful)
    assert given["target"]() == "autoscaling/target-lifecycle-state"
    assert given["notice"]() is noticed
    for action in ("heartbeat", "unfit", "complete"):
        given[action]()
    released = [("release",)] if name == "worker" else []
    assert said == [("heartbeat", "drain"), ("unhealthy",), *released, ("complete", "drain", "CONTINUE")]
    said.clear()
    given["keep"]()
    given["tend"]()
    told = ("close", f"http://{host.document.webui_host}", host.instance)
    assert said == ([("keep",), told] if name == "worker" else [])


def test_no_round_waits_for_an_aws_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spot host's end comes two minutes after its notice, whatever else the agent does meanwhile."""
    monkeypatch.setattr(agent, "this_host", lambda *_: machine.host(tmp_path, "worker"))
    made = agent._host(Metadata())
    assert made
    config = made.client("autoscaling").meta.config
    assert config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout) <= 30
    asked, given = list[str](), dict[str, Any]()

    class Silent:
        def record_lifecycle_action_heartbeat(self, **_: object) -> None:
            asked.append("heartbeat")
            raise EndpointConnectionError(endpoint_url="https://autoscaling")

    monkeypatch.setattr(aws, "client", lambda *_, **more: Silent())
    monkeypatch.setattr(agent, "watch", lambda **more: given.update(more))
    agent.main([])
    with pytest.raises(HostError, match="record_lifecycle_action_heartbeat failed"):
        given["heartbeat"]()
    assert asked == ["heartbeat"]


def test_a_host_that_cannot_be_known_yet_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> Host:
        raise HostError("the metadata do not answer")

    monkeypatch.setattr(agent, "this_host", unknown)
    assert agent._host(Metadata()) is None


def test_workers_that_start_while_the_host_drains_are_told_too() -> None:
    world = World(targets=["Terminated"], busy_for=4 * roles.TOLD_AGAIN_SECONDS)
    world.run()
    assert len(world.told_again) == 3
    assert all(after - before >= roles.TOLD_AGAIN_SECONDS for before, after in pairwise(world.told_again))
    back = World(targets=["InService"], busy_for=1e9, notices={0.0: Notice.INTERRUPTION})
    back.run()
    assert back.told_again == [], "its jobs were handed back"


def test_workers_are_tended_only_while_the_host_stays() -> None:
    world = World(targets=[*["InService"] * 3, "Terminated"], busy_for=300)
    world.run()
    assert len(world.tended) == 3
    assert world.drained is not None
    assert max(world.tended) < world.drained
