"""The controller: round after round, with whatever does not answer."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fleet import closings, controller, metrics
from fleet.closings import Closings
from fleet.controller import Controller, Round, describe, read_facts, run, show
from fleet.facts import Facts, FactsError, parse
from fleet.groups import AwsError, Group, Launches, Member, Version
from fleet.openqa_api import ListedJob, ListedWorker, OpenQaError, Queue
from fleet.rules import DEFAULT_RULES
from tests.userdata.machine import DOCUMENTS
from userdata.host import aws, document
from userdata.host.layout import Layout

NOW = 1_800_000_000.0
PARAMETER = {
    "group": "openqa-test-fleet-small",
    "subnets": ["near", "far"],
    "classes": ["qemu_x86_64"],
    "workers": {"c8i.xlarge": 1},
    "prices": {"c8i.xlarge": 0.2},
    "boot_seconds": 100,
    "one_host": False,
    "warm": [],
}
FACTS = parse("small", json.dumps(PARAMETER))
VERSION = Version(template="lt-1", number="1")


@dataclass
class World:
    """openQA, Auto Scaling, the lock and a clock, all at one's command.

    Auto Scaling keeps AWS's rules on desired capacity; hosts of a launch appear with `arrive`.
    """

    now: float = NOW
    jobs: list[ListedJob] = field(default_factory=list)
    workers: list[ListedWorker] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    facts: Sequence[Facts] = (FACTS,)
    desired: int = 0
    min: int = 0
    max: int = 5
    evens_out: bool = False
    subnets: Sequence[str] = ("near",)
    history: Launches = field(default_factory=Launches)
    held: bool = True
    openqa_fails: str = ""
    aws_fails: str = ""
    act_fails: str = ""
    telling_fails: str = ""
    told: list[Closings] = field(default_factory=list)
    reading_takes: float = 0.0
    aws_takes: float = 0.0
    calls: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def controller(self) -> Controller:
        return Controller(
            openqa=self,
            groups=self,  # type: ignore[arg-type]
            read_facts=self.read_facts,
            held=lambda: self.held,
            tell=self.tell,
            closed={},
            clock=lambda: self.now,
        )

    def read(self, names: Sequence[str] | None = None) -> Any:
        return self._queue() if names is None else self._groups(names)

    def _queue(self) -> Queue:
        at = self.now
        self.now += self.reading_takes
        if self.openqa_fails:
            raise OpenQaError(self.openqa_fails)
        return Queue(at=at, jobs=tuple(self.jobs), workers=tuple(self.workers))

    def finished(self) -> tuple[ListedJob, ...]:
        self.asked.append("finished")
        return ()

    def read_facts(self) -> Sequence[Facts]:
        self.asked.append("facts")
        return self.facts

    def _groups(self, names: Sequence[str]) -> tuple[float, dict[str, Group]]:
        at = self.now
        self.now += self.aws_takes
        if self.aws_fails:
            raise AwsError(self.aws_fails)
        group = Group(
            name=FACTS.group,
            min=self.min,
            max=self.max,
            desired=self.desired,
            version=VERSION,
            members=tuple(self.members),
            evens_out=self.evens_out,
            subnets=frozenset(self.subnets),
        )
        return at, {FACTS.group: group} if FACTS.group in names else {}

    def launches(self, name: str) -> Launches:
        self.asked.append("launches")
        return self.history

    def terminate(self, instance: str, *, decrement: bool) -> None:
        self._refuse()
        assert not decrement or self.desired > self.min
        self.desired -= decrement
        self.calls.append(f"terminate {instance}")

    def set_desired(self, name: str, desired: int) -> None:
        self._refuse()
        assert self.min <= desired <= self.max
        self.desired = desired
        self.calls.append(f"desire {desired}")

    def keep_uneven(self, name: str) -> None:
        self._refuse()
        self.evens_out = False
        self.calls.append(f"keep {name} uneven")

    def use_subnets(self, name: str, subnets: Sequence[str]) -> None:
        self._refuse()
        self.subnets = subnets
        self.calls.append(f"{name} in {' '.join(subnets)}")

    def tell(self, closings: Closings) -> None:
        if self.telling_fails:
            raise OSError(self.telling_fails)
        self.told.append(closings)

    def _refuse(self) -> None:
        if self.act_fails:
            raise AwsError(self.act_fails)

    def arrive(self, number: int, *, state: str = "InService") -> None:
        self.members = [member for member in self.members if member.id != f"i-{number}"]
        self.members.append(
            Member(
                id=f"i-{number}",
                state=state,
                healthy=True,
                type="c8i.xlarge",
                version=VERSION,
                launched=NOW,
            )
        )
        if state == "InService":
            self.workers.append(ListedWorker(id=number, instance=f"i-{number}", number=1, connected=True))


def job(id: int) -> ListedJob:
    return ListedJob(
        id=id, scheduled=True, priority=50, classes=frozenset({"qemu_x86_64"}), kind=("base", "", "", "")
    )


def test_from_none_to_a_host_and_back() -> None:
    world = World(jobs=[job(1)])
    control = world.controller()
    control.round()
    assert world.desired >= 1
    world.arrive(1, state="Pending:Wait")
    world.now += 5
    control.round()
    world.arrive(1)
    world.jobs = [replace(job(1), scheduled=False, worker=1, started=world.now)]
    world.workers[0] = replace(world.workers[0], job=1)
    for _ in range(3):
        world.now += 5
        control.round()
    world.calls.clear()
    # As long as it has a job it stays.
    for _ in range(40):
        world.now += 5
        control.round()
    assert world.calls == []
    world.jobs, world.workers[0] = [], replace(world.workers[0], job=None)
    for _ in range(8):
        world.now += 5
        control.round()
    assert world.calls == ["terminate i-1"]
    assert world.desired == 0
    # Auto Scaling may show it in service for a while.
    for _ in range(5):
        world.now += 5
        control.round()
    assert world.calls == ["terminate i-1"]
    assert world.desired == 0


def test_a_new_group_launches_no_hosts_for_its_zones() -> None:
    world = World(evens_out=True)
    control = world.controller()
    for _ in range(2):
        control.round()
        world.now += 5
    assert world.calls == ["keep openqa-test-fleet-small uneven"]


def test_a_zone_without_hosts_is_left_for_ten_minutes() -> None:
    world = World(history=Launches(no_capacity_at=NOW - 5))
    control = world.controller()
    for _ in range(70):
        control.round()
        world.now += 10
    group = "openqa-test-fleet-small"
    assert world.calls == [f"{group} in near far", f"{group} in near"]


@pytest.mark.parametrize("broken", ["openqa_fails", "aws_fails"])
def test_what_does_not_answer_changes_nothing_and_is_said_once(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(jobs=[job(1)])
    control = world.controller()
    setattr(world, broken, "It is away.")
    for _ in range(30):
        world.now += 5
        done = control.round()
        assert done is not None
        assert done.unusable == "It is away."
    assert world.calls == []
    assert caplog.messages == ["nothing is changed: It is away."]
    setattr(world, broken, "")
    world.now += 5
    control.round()
    assert world.desired >= 1
    assert "all is well" in caplog.messages


def test_old_data_is_not_acted_on() -> None:
    world = World(jobs=[job(1)], reading_takes=121.0)
    done = world.controller().round()
    assert done is not None
    assert done.unusable
    assert "121 s old" in done.unusable
    assert world.calls == []


def test_data_that_got_old_with_the_last_act_closes_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(desired=1)
    world.arrive(1)
    control = world.controller()
    control.round()
    world.now += 100
    terminate, told = world.terminate, len(world.told)

    def slow(instance: str, *, decrement: bool) -> None:
        world.now += 130
        terminate(instance, decrement=decrement)

    monkeypatch.setattr(world, "terminate", slow)
    control.round()
    assert world.calls == ["terminate i-1"]
    assert len(world.told) == told


def test_the_oldest_of_what_is_known_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(desired=2)
    world.arrive(1)
    world.arrive(2)
    control = world.controller()
    control.round()
    world.now += 100
    world.reading_takes = 100.0
    terminate = world.terminate

    def slow(instance: str, *, decrement: bool) -> None:
        world.now += 30
        terminate(instance, decrement=decrement)

    monkeypatch.setattr(world, "terminate", slow)
    told = len(world.told)
    control.round()
    assert len(world.calls) == 1
    assert len(world.told) == told, "openQA's queue is 130 s old by now"


def test_without_the_lock_nothing_is_even_read() -> None:
    world = World(jobs=[job(1)], held=False)
    assert world.controller().round() is None
    assert (world.calls, world.asked) == ([], [])


def test_a_lock_that_is_lost_in_a_round_ends_it() -> None:
    world = World(jobs=[job(1)])
    answers = iter([True, False, False])
    control = Controller(
        openqa=world,
        groups=world,  # type: ignore[arg-type]
        read_facts=world.read_facts,
        held=lambda: next(answers),
        tell=world.tell,
        closed={},
        clock=lambda: world.now,
    )
    assert control.round() is not None
    assert (world.calls, world.told) == ([], [])


def test_a_lock_that_comes_back_in_a_round_does_not_bring_the_round_back() -> None:
    world = World(desired=2)
    world.arrive(1)
    world.arrive(2)
    answers: Iterator[bool] = iter(())
    control = Controller(
        openqa=world,
        groups=world,  # type: ignore[arg-type]
        read_facts=world.read_facts,
        held=lambda: next(answers, True),
        tell=world.tell,
        closed={},
        clock=lambda: world.now,
    )
    control.round()
    world.calls.clear()
    told = len(world.told)
    world.now += 100
    answers = iter([True, False, True, True])
    control.round()
    assert (world.calls, len(world.told)) == ([], told)
    control.round()
    assert len(world.calls) == 2, "the next one acts"


def test_hosts_are_told_in_every_round_which_workers_take_no_jobs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(desired=1, facts=(parse("small", json.dumps(PARAMETER | {"workers": {"c8i.xlarge": 2}})),))
    world.arrive(1)
    world.workers = [
        ListedWorker(id=number, instance="i-1", number=number, connected=True, job=7 if number == 2 else None)
        for number in (1, 2)
    ]
    world.jobs = [replace(job(7), scheduled=False, worker=2, started=NOW - 1000)]
    control = world.controller()
    for _ in range(2):
        control.round()
    assert world.told == [{"i-1": {1, 2}}] * 2, "its job is nearly done"
    world.jobs = [replace(job(7), scheduled=False, worker=2, started=NOW)]
    control.round()
    assert world.told[-1] == {}, "it will be busy for long anyway"
    world.telling_fails = "the disk is full"
    for _ in range(2):
        control.round()
    assert caplog.text.count("cannot be told which workers take no jobs: the disk is full") == 1
    world.telling_fails, world.openqa_fails = "", "openQA does not answer."
    control.round()
    assert len(world.told) == 3


def test_a_host_whose_workers_went_as_they_were_told_is_idle_and_goes() -> None:
    """Else it would look like one that lost them, and be paid for until it is given up."""
    world = World(desired=1, facts=(parse("small", json.dumps(PARAMETER | {"workers": {"c8i.xlarge": 2}})),))
    world.arrive(1)
    world.workers = [ListedWorker(id=id, instance="i-1", number=id, connected=True) for id in (1, 2)]
    world.jobs = [replace(job(7), scheduled=False, worker=1, started=NOW - 1000)]
    control = world.controller()
    control.round()
    assert world.told == [{"i-1": {1, 2}}]
    world.jobs, world.workers = [], [replace(worker, connected=False) for worker in world.workers]
    for _ in range(2):
        control.round()
        world.now += 10
    assert world.calls == ["terminate i-1"]


def test_a_controller_that_starts_anew_knows_what_hosts_were_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host whose workers were told to go is idle; else it would look like one that lost them."""
    world = World(now=time.time(), desired=1)
    world.arrive(1)
    world.workers = [replace(world.workers[0], connected=False)]
    layout = _on_a_host(world, tmp_path, monkeypatch)
    closings.write(layout.closings, {"i-1": {1}}, at=world.now)
    assert controller.main(["--once", "--dry-run", "--json"]) == 0
    (host,) = json.loads(capsys.readouterr().out)["hosts"]
    assert host["idle_since"] is not None


def _on_a_host(world: World, root: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout = Layout(root)
    for file in (layout.document, layout.closings):
        file.parent.mkdir(parents=True)
    layout.document.write_text((DOCUMENTS / "webui.json").read_text())
    monkeypatch.setattr(controller, "Layout", lambda: layout)
    monkeypatch.setattr(aws, "has_credentials", lambda: True)
    monkeypatch.setattr(controller, "OpenQaApi", lambda url: world)
    monkeypatch.setattr(controller, "Groups", lambda client: world)
    monkeypatch.setattr(controller, "read_facts", lambda ssm, environment: world.facts)
    return layout


def test_a_database_that_is_away_is_no_other_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _on_a_host(World(), tmp_path, monkeypatch)
    assert controller.main(["--once"]) == 1
    assert capsys.readouterr().err.endswith("Nothing is done without the lock.\n")


def test_without_credentials_it_ends_to_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _on_a_host(World(), tmp_path, monkeypatch)
    monkeypatch.setattr(aws, "has_credentials", lambda: False)
    assert controller.main(["--once", "--dry-run"]) == 1
    assert "tell no credentials" in caplog.text


def test_what_one_round_could_not_see_is_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(now=time.time())
    _on_a_host(world, tmp_path, monkeypatch)
    assert controller.main(["--once", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("\nNothing to do.\n")
    world.openqa_fails = "It is away."
    assert controller.main(["--once", "--dry-run"]) == 1
    assert capsys.readouterr().out == "Nothing is changed: It is away.\n"


def test_no_call_goes_on_until_what_was_seen_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = _on_a_host(World(), tmp_path, monkeypatch)
    config = controller._client("autoscaling", document.load(layout.document)).meta.config
    longest = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
    assert longest <= DEFAULT_RULES.stale_seconds


def test_nonsense_changes_nothing() -> None:
    world = World(jobs=[replace(job(1))], facts=[FACTS, FACTS])
    done = world.controller().round()
    assert done is not None
    assert done.unusable == "Two fleets have the same name."
    assert (world.calls, world.told) == ([], [])


def test_a_refusal_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(jobs=[job(1)], act_fails="It may not.")
    control = world.controller()
    for _ in range(5):
        world.now += 5
        control.round()
    assert len([text for text in caplog.messages if "It may not." in text]) == 1
    world.act_fails = ""
    world.now += 5
    control.round()
    assert world.desired >= 1


def test_a_fleet_whose_hosts_do_not_come_up_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(jobs=[job(1)], history=Launches(failures=3, last_failure=NOW))
    control = world.controller()
    for _ in range(5):
        world.now += 5
        done = control.round()
    assert world.calls == []
    assert done is not None
    assert control.report(done)
    assert caplog.messages == ["small: no launches: 3 hosts in a row did not come up"]
    world.now = NOW + DEFAULT_RULES.breaker_seconds + 40
    control.round()
    assert world.desired >= 1


def test_what_changes_slowly_is_read_seldom() -> None:
    world = World()
    control = world.controller()
    for _ in range(24):  # two minutes
        control.round()
        world.now += 5
    assert {what: world.asked.count(what) for what in ("finished", "facts", "launches")} == {
        "finished": 1,
        "facts": 2,
        "launches": 4,
    }


def test_a_clock_that_is_put_back_stops_nothing() -> None:
    world = World(jobs=[job(1)], workers=[], desired=0)
    control = world.controller()
    control.round()
    world.now -= 3600
    world.asked.clear()
    done = control.round()
    assert done is not None
    assert done.unusable is None
    assert set(world.asked) == {"finished", "facts", "launches"}
    assert control.report(done)


def test_metrics_once_a_minute() -> None:
    world = World(jobs=[job(1), replace(job(2), parents=(1,))])
    sent: list[list[metrics.Datum]] = []
    moments = iter([NOW + 5.0 * n for n in range(1, 100)])

    def sleep(seconds: float) -> None:
        assert seconds > 0
        world.now = next(moments)

    run(world.controller(), put=sent.append, sleep=sleep, clock=lambda: world.now, rounds=26)
    assert len(sent) == 3
    plain = {datum["MetricName"]: datum["Value"] for datum in sent[1] if not datum["Dimensions"]}
    assert plain["Rounds"] == 12
    assert plain["RoundsBlind"] == 0
    assert plain["Blind"] == 0
    assert plain["JobsWaiting"] == 1
    assert plain["JobsBlocked"] == 1
    assert plain["BreakersOpen"] == 0
    by_class = {
        datum["Dimensions"][0]["Value"]: datum["Value"]
        for datum in sent[1]
        if [dimension["Name"] for dimension in datum["Dimensions"]] == ["Classes"]
    }
    assert by_class == {"qemu_x86_64": 1}


def test_metrics_of_a_blind_controller_are_its_own() -> None:
    world = World(openqa_fails="It is away.")
    control = world.controller()
    done = control.round()
    assert done is not None
    assert {datum["MetricName"]: datum["Value"] for datum in control.report(done)} == {
        "Rounds": 1,
        "RoundsBlind": 1,
        "Blind": 1,
        "Acts": 0,
        "ActsFailed": 0,
        "Refused": 0,
    }


def test_one_blind_round_is_no_blind_controller() -> None:
    data = metrics.of_rounds(rounds=30, blind=1, acted=0, failed=0)
    assert {datum["MetricName"]: datum["Value"] for datum in data}["Blind"] == 0


def test_classes_that_are_no_ascii_lose_no_metrics(put_metric_data: Callable[..., Any]) -> None:
    world = World(jobs=[replace(job(1), classes=frozenset({"qemu_ä\n"}))])
    control = world.controller()
    done = control.round()
    assert done is not None
    data = control.report(done)
    metrics.put(put_metric_data, "test", data)
    assert [d["Value"] for datum in data for d in datum["Dimensions"] if d["Name"] == "Classes"] == [
        "qemu_??"
    ]


def test_without_job_times_the_fleets_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Forgetful(World):
        def finished(self) -> tuple[ListedJob, ...]:
            super().finished()
            raise OpenQaError("It takes too long.")

    caplog.set_level(logging.INFO)
    world = Forgetful(jobs=[job(1)])
    control = world.controller()
    for _ in range(3):
        control.round()
    assert world.desired >= 1
    assert world.asked.count("finished") == 1
    assert "how long jobs take cannot be read again: It takes too long." in caplog.messages


def test_metrics_are_as_cloudwatch_wants_them(put_metric_data: Callable[..., Any]) -> None:
    world = World(jobs=[job(1)], desired=1)
    world.arrive(1)
    control = world.controller()
    done = control.round()
    assert done is not None
    metrics.put(put_metric_data, "test", control.report(done) * 40)


@pytest.mark.parametrize("answers", [True, False])
def test_metrics_that_cloudwatch_does_not_take_end_no_controller(
    caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    import boto3
    from botocore.config import Config
    from botocore.stub import Stubber

    # A port at which nobody listens.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = boto3.client(
            "cloudwatch",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            endpoint_url=f"http://127.0.0.1:{nobody.getsockname()[1]}",
            config=Config(retries={"total_max_attempts": 1}),
        )
        if answers:
            stub = Stubber(client)
            stub.add_client_error("put_metric_data", "Throttling")
            stub.activate()
        controller._put(client, "test", metrics.of_rounds(rounds=1, blind=0, acted=0, failed=0))
    assert ("Throttling" if answers else "Could not connect") in caplog.text


@pytest.fixture
def put_metric_data() -> Any:
    """A CloudWatch that checks what it gets by AWS's own model."""
    import boto3
    from botocore.stub import ANY, Stubber

    client = boto3.client(
        "cloudwatch",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    with Stubber(client) as stub:
        for _ in range(2):
            stub.add_response("put_metric_data", {}, {"Namespace": "openQA/test", "MetricData": ANY})
        yield client


def test_reading_rests_as_long_as_it_took_several_times() -> None:
    world = World(reading_takes=4.0)
    slept: list[float] = []
    run(world.controller(), put=lambda data: None, sleep=slept.append, clock=lambda: world.now, rounds=2)
    assert slept == [12.0, 12.0]


def test_once_for_people_and_for_programs() -> None:
    world = World(jobs=[job(1)], desired=1)
    world.arrive(1)
    done = world.controller().look()
    assert "small: 0 booting, 1 ready, 0 draining, 1 wanted, 0 jobs, 0 workers closed, $0.2" in show(done)
    told = json.loads(json.dumps(describe(done), default=controller._plain))
    assert told["hosts"][0]["state"] == "ready"
    assert told["jobs"][0]["classes"] == ["qemu_x86_64"]
    assert told["decision"]["desired"] == {"small": 1}
    assert show(Round(unusable="It is away.")) == "Nothing is changed: It is away."


def test_people_are_told_what_no_fleet_can_run() -> None:
    done = (
        World(jobs=[job(1), replace(job(2), classes=frozenset({"qemu_x86_64", "tpm"}))]).controller().look()
    )
    assert "No fleet can run 1 jobs with 'qemu_x86_64', 'tpm'.\n" in show(done)


@pytest.mark.parametrize("word", ["--dry-run", "--json"])
def test_what_is_for_one_round_starts_no_service(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        controller.main([word])
    assert ended.value.code == 2
    assert "--dry-run and --json are for --once" in capsys.readouterr().err


# -- facts


def test_facts() -> None:
    assert FACTS.slots == 1
    assert FACTS.price("no.such.type") > FACTS.price()


@pytest.mark.parametrize(
    "change",
    [
        {"workers": {}},
        {"subnets": []},
        {"workers": {"c8i.xlarge": 0}},
        {"workers": 5},
        {"classes": 5},
        {"boot_seconds": "soon"},
        {"warm": ["always 2"]},
        {"spare": "much"},
        {"group": None, "prices": None},
    ],
)
def test_facts_that_are_not_in_order(change: dict[str, Any]) -> None:
    with pytest.raises(FactsError, match="small"):
        parse("small", json.dumps(PARAMETER | change))


def test_facts_of_a_release_that_told_nothing_of_subnets() -> None:
    """The web UI's host is deployed first: until its fleets are, it reads what was written before."""
    before = {key: value for key, value in PARAMETER.items() if key != "subnets"}
    assert parse("small", json.dumps(before)) == replace(FACTS, subnets=())


@pytest.mark.parametrize("text", ["", "[]", "5", "{}"])
def test_facts_that_are_none(text: str) -> None:
    with pytest.raises(FactsError):
        parse("small", text)


def test_facts_are_read_below_the_environments_path(caplog: pytest.LogCaptureFixture) -> None:
    import boto3
    from botocore.stub import Stubber

    ssm = boto3.client(
        "ssm", region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    path = "/openqa/test/fleets"
    pages = [
        {"Parameters": [{"Name": f"{path}/small", "Value": json.dumps(PARAMETER)}], "NextToken": "more"},
        {"Parameters": [{"Name": f"{path}/odd", "Value": "{}"}]},
    ]
    with Stubber(ssm) as stub:
        stub.add_response("get_parameters_by_path", pages[0], {"Path": path})
        stub.add_response("get_parameters_by_path", pages[1], {"Path": path, "NextToken": "more"})
        assert read_facts(ssm, "test") == [FACTS]
        assert "The parameter of fleet odd lacks 'workers'." in caplog.messages
        stub.add_client_error("get_parameters_by_path", "ThrottlingException")
        with pytest.raises(AwsError):
            read_facts(ssm, "test")
