"""What the controller makes of what it reads, and what it does about a decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import view
from fleet.facts import Facts
from fleet.groups import Group, Launches, Member, Version
from fleet.policy import DEFAULT_RULES, Decision, Host, State, decide, find_fault
from fleet.reading import ListedJob, ListedWorker, Queue
from fleet.view import Act, Memory, View
from fleet.warm import parse

NOW = 1_800_000_000.0
OLD, NEW = Version(template="lt-1", number="1"), Version(template="lt-1", number="2")
PLAIN = frozenset({"qemu_x86_64"})
FACTS = Facts(
    name="small",
    group="group",
    subnets=("near", "far"),
    classes=PLAIN,
    workers={"c8i.xlarge": 2},
    prices={"c8i.xlarge": 0.2, "c8i.2xlarge": 0.4},
    boot_seconds=180.0,
    one_host=False,
)


def member(id: str, state: str = "InService", **changes: Any) -> Member:
    made = Member(
        id=id,
        state=state,
        healthy=True,
        type="c8i.xlarge",
        version=NEW,
        launched=NOW - 1000,
    )
    return replace(made, **changes)


def group(*members: Member, **changes: Any) -> Group:
    made = Group(
        name="group",
        min=0,
        max=9,
        desired=len(members),
        version=NEW,
        members=members,
        subnets=frozenset({"near"}),
    )
    return replace(made, **changes)


def job(id: int, **changes: Any) -> ListedJob:
    made = ListedJob(id=id, scheduled=True, priority=50, classes=PLAIN, kind=("base", "", "", ""))
    return replace(made, **changes)


def worker(id: int, *, number: int = 1, **changes: Any) -> ListedWorker:
    """One of host i-NUMBER; each host has worker 1 unless told."""
    return replace(ListedWorker(id=id, instance=f"i-{number}", number=1, connected=True), **changes)


def look(
    *members: Member,
    jobs: tuple[ListedJob, ...] = (),
    workers: tuple[ListedWorker, ...] = (),
    memory: Memory | None = None,
    now: float = NOW,
    launches: Launches | None = None,
    facts: Facts = FACTS,
    subnets: tuple[str, ...] = ("near",),
    least: int = 0,
) -> View:
    return view.look(
        now=now,
        queue=Queue(at=now, jobs=jobs, workers=workers),
        groups={"group": group(*members, subnets=frozenset(subnets), min=least)},
        groups_at=now,
        facts=[facts],
        launches={"group": launches} if launches else {},
        memory=memory if memory is not None else Memory(),
    )


def only(found: View) -> Host:
    (host,) = found.seen.hosts
    return host


@pytest.mark.parametrize(
    ("state", "healthy", "expected"),
    [
        ("Pending", True, State.BOOTING),
        ("Pending:Wait", True, State.BOOTING),
        ("Pending:Proceed", True, State.BOOTING),
        ("InService", True, State.READY),
        ("InService", False, State.DRAINING),
        ("Terminating:Wait", True, State.DRAINING),
        ("Standby", True, State.DRAINING),
        ("Detaching", True, State.DRAINING),
    ],
)
def test_states(state: str, healthy: bool, expected: State) -> None:
    assert only(look(member("i-1", state, healthy=healthy), workers=(worker(1),))).state is expected


@pytest.mark.parametrize(
    ("told", "launched"),
    [(NOW - 1000, NOW - 1000), (None, NOW), (NOW + 60, NOW)],
    ids=["told", "unknown yet", "clocks differ"],
)
def test_when_a_host_was_launched(told: float | None, launched: float) -> None:
    assert only(look(member("i-1", launched=told))).launched == launched


def test_workers_are_mapped_to_hosts() -> None:
    running = job(7, scheduled=False, worker=12, started=NOW - 60)
    found = look(
        member("i-1"),
        member("i-2"),
        jobs=(running,),
        workers=(worker(11, number=1), worker(12, number=2, job=7), worker(13, number=77, job=8)),
    )
    first, second = found.seen.hosts
    assert (first.running, first.idle_since) == ((), NOW)
    assert [(run.job, run.since) for run in second.running] == [(7, NOW - 60)]
    assert second.idle_since is None


def test_a_job_that_openqa_has_taken_back_waits() -> None:
    found = look(member("i-1"), jobs=(job(7, worker=1),), workers=(worker(1),))
    assert ([waiting.id for waiting in found.seen.jobs], only(found).running) == ([7], ())


def test_a_dead_worker_does_not_count() -> None:
    rows = (worker(1, connected=False, job=5), worker(2))
    assert only(look(member("i-1"), workers=rows)).running == ()


def test_a_worker_that_took_a_job_while_lists_were_read_is_busy_and_the_job_waits_no_more() -> None:
    memory = Memory(usual={("base", "", "", ""): 600.0})
    rows = (worker(1, job=7), worker(2, job=99))
    found = look(member("i-1"), jobs=(job(7), job(8)), workers=rows, memory=memory)
    assert {run.job: run.expected_seconds for run in only(found).running} == {7: 600.0, 99: None}
    assert [waiting.id for waiting in found.seen.jobs] == [8]
    assert find_fault(found.seen) is None


def test_reserved_workers_keep_their_host_and_what_waits_gets_another() -> None:
    reserved = tuple(worker(id, job=-id) for id in (1, 2))
    memory = Memory()
    for since in (0, 3600):
        found = look(member("i-1"), jobs=(job(7),), workers=reserved, memory=memory, now=NOW + since)
        decision = decide(found.seen)
        assert (decision.unusable, decision.release, found.given_up) == (None, (), ())
        assert decision.desired["small"] > 1


def test_jobs_that_run_after_each_other_on_one_worker_hold_one_slot() -> None:
    memory = Memory(usual={("base", "", "", ""): 600.0})
    own = tuple(job(id, scheduled=False, worker=1) for id in (7, 8, 9))
    (run,) = only(look(member("i-1"), jobs=own, workers=(worker(1, job=7),), memory=memory)).running
    assert (run.job, run.expected_seconds) == (7, 1800.0)
    own += (job(10, scheduled=False, worker=1, kind=("new", "", "", "")),)
    (run,) = only(look(member("i-1"), jobs=own, workers=(worker(1, job=7),), memory=memory)).running
    assert run.expected_seconds is None, "of one nothing is known"


def test_more_workers_than_the_plan_counts_on() -> None:
    began = {7: NOW - 50, 8: NOW - 20, 9: NOW - 90}
    jobs = tuple(job(id, scheduled=False, worker=id, started=at) for id, at in began.items())
    found = look(member("i-1"), jobs=jobs, workers=tuple(worker(id, job=id) for id in began))
    assert [run.job for run in only(found).running] == [8, 7], "those that began last keep the host longest"
    assert find_fault(found.seen) is None


def test_an_old_launch_template_is_outdated() -> None:
    assert only(look(member("i-1", version=OLD), workers=(worker(1),))).outdated
    assert not only(look(member("i-1", version=None), workers=(worker(1),))).outdated
    assert not group(member("i-1"), version=None).outdated(member("i-1"))


def test_idle_since_the_first_look_at_it_and_anew_after_a_job() -> None:
    memory, host, row = Memory(), member("i-1"), worker(1)
    assert only(look(host, workers=(row,), memory=memory)).idle_since == NOW
    assert only(look(host, workers=(row,), memory=memory, now=NOW + 50)).idle_since == NOW
    busy = replace(row, job=7)
    assert only(look(host, workers=(busy,), memory=memory, now=NOW + 60)).idle_since is None
    assert only(look(host, workers=(row,), memory=memory, now=NOW + 70)).idle_since == NOW + 70


@pytest.mark.parametrize("state", ["Pending:Wait", "Terminating:Wait"])
def test_a_host_is_idle_only_in_service(state: str) -> None:
    assert only(look(member("i-1", state), workers=(worker(1),))).idle_since is None


def test_a_clock_that_was_put_back_makes_times_begin_anew() -> None:
    memory, members = Memory(), [member("i-1"), member("i-2")]
    rows = (worker(1), worker(2, number=2, connected=False))
    look(*members, workers=rows, memory=memory, now=NOW + 7200)
    for seconds in (0, 60):
        found = look(*members, workers=rows, memory=memory, now=NOW + seconds)
        assert found.seen.hosts[0].idle_since == NOW
    assert found.lost == {"i-2"}


def test_a_host_without_workers_is_neither_idle_nor_counted_on_for_long() -> None:
    memory, host = Memory(), member("i-1")
    found = look(host, memory=memory)
    assert (only(found).state, only(found).idle_since, found.lost) == (State.READY, None, frozenset())
    found = look(host, memory=memory, now=NOW + view.LOST_SECONDS)
    assert (only(found).state, found.lost, found.given_up) == (State.DRAINING, frozenset({"i-1"}), ())
    for seconds in range(60, int(view.GIVEN_UP_SECONDS), 60):
        assert look(host, memory=memory, now=NOW + seconds).given_up == ()
    found = look(host, memory=memory, now=NOW + view.GIVEN_UP_SECONDS)
    assert found.given_up == ("i-1",)
    found = look(host, workers=(worker(1),), memory=memory, now=NOW + view.GIVEN_UP_SECONDS + 5)
    assert (only(found).state, found.given_up, memory.lost) == (State.READY, (), {})


def test_what_was_away_before_nobody_looked_may_have_been_back() -> None:
    memory, host, away = Memory(), member("i-1"), (worker(1, connected=False),)
    look(host, workers=away, memory=memory)
    found = look(host, workers=away, memory=memory, now=NOW + 1200)
    assert (only(found).state, found.given_up) == (State.READY, ())


def test_a_worker_that_was_away_before_nobody_looked_may_have_been_back() -> None:
    memory, host = Memory(), member("i-1")
    rows = (worker(1), replace(worker(2), instance="i-1", number=2, connected=False))
    look(host, workers=rows, memory=memory)
    assert only(look(host, workers=rows, memory=memory, now=NOW + 1200)).unfit == 0


def test_several_hosts_do_not_lose_their_workers_at_once_but_openqa() -> None:
    memory, members = Memory(), [member(f"i-{number}") for number in (1, 2, 3)]
    away = tuple(worker(number, number=number, connected=False) for number in (1, 2, 3))
    for seconds in range(0, 1200, 60):
        found = look(*members, workers=away, memory=memory, now=NOW + seconds)
    assert found.seen.doubt == "openQA hears no worker of any of the 3 hosts in service."
    decision = decide(found.seen)
    assert decision.unusable == found.seen.doubt
    assert view.acts(decision, found, {"group": group(*members)}, [FACTS]) == []
    heard = (*away[:2], replace(away[2], connected=True))
    # Not all are heard at the same moment again.
    found = look(*members, workers=heard, memory=memory, now=NOW + 1200)
    assert (found.seen.doubt, found.given_up) == (None, ())
    assert found.lost == {"i-1", "i-2"}
    for seconds in range(1260, 2100, 60):
        found = look(*members, workers=heard, memory=memory, now=NOW + seconds)
    assert found.given_up == ("i-1", "i-2")


def test_a_host_is_not_given_up_where_openqa_hears_no_other_either() -> None:
    memory, members = Memory(), [member("i-1"), member("i-2")]
    for seconds in range(0, 900, 60):
        look(*members, workers=(worker(2, number=2),), memory=memory, now=NOW + seconds)
    look(*members, memory=memory, now=NOW + 899)
    found = look(*members, memory=memory, now=NOW + 960)
    assert found.seen.doubt == "openQA hears no worker of any of the 2 hosts in service."
    assert found.given_up == ()


def test_a_host_that_ec2_has_ended_takes_no_room() -> None:
    for state in ("InService", "Terminating:Wait"):
        ended = member("i-1", state, gone=True)
        found = look(ended, jobs=(job(1),), workers=(worker(1, job=7),))
        assert found.seen.hosts == []
        assert found.lost == ({"i-1"} if ended.counts else set())
        # Its group replaces it by itself.
        assert view.acts(decide(found.seen), found, {"group": group(ended, desired=1, max=1)}, [FACTS]) == []


def test_a_host_that_ec2_has_ended_is_still_capacity_to_its_group() -> None:
    """As long as its group counts it, a host more must be desired for the job that waits."""
    ended = member("i-1", gone=True)
    found = look(ended, jobs=(job(1),))
    decision = decide(found.seen)
    assert brief(view.acts(decision, found, {"group": group(ended)}, [FACTS])) == [
        (None, False, decision.desired["small"] + 1)
    ]


def test_a_host_whose_workers_are_all_closed_is_idle_and_not_lost() -> None:
    memory = Memory(closed={"i-1": frozenset({1, 2})})
    rows = tuple(worker(number, number=1, connected=False, job=None) for number in (1, 2))
    rows = (rows[0], replace(rows[1], number=2))
    for now in (NOW, NOW + 2 * view.LOST_SECONDS):
        found = look(member("i-1"), workers=rows, memory=memory, now=now)
        assert (only(found).state, only(found).idle_since, found.lost) == (State.READY, NOW, frozenset())
    memory.closed = {"i-1": frozenset({1})}
    for now in (NOW, NOW + 2 * view.LOST_SECONDS):
        found = look(member("i-1"), workers=rows, memory=memory, now=now)
    assert only(found).state is State.DRAINING


def test_idle_workers_are_closed_before_busy_ones_and_closed_ones_stay_so() -> None:
    rows = tuple(
        replace(worker(number), number=number, connected=number != 2, job=7 if number == 4 else None)
        for number in (1, 2, 3, 4)
    )
    found = look(member("i-1"), workers=rows)

    def closed(workers: int) -> set[int]:
        return set(view.closings(Decision(desired={}, open={"i-1": workers}), found).get("i-1", ()))

    assert [closed(workers) for workers in (4, 3, 2, 1, 0)] == [set(), {2}, {2, 3}, {1, 2, 3}, {1, 2, 3, 4}]
    assert closed(5) == set(), "openQA does not know all of them yet"
    assert view.closings(Decision(desired={}), found) == {}
    for going in (Decision(desired={}, drain=("i-1",)), Decision(desired={}, release=("i-1",))):
        assert view.closings(going, found) == {"i-1": {1, 2, 3, 4}}, "it starts none on the way"
    assert view.closings(Decision(desired={}), replace(found, given_up=("i-1",))) == {"i-1": {1, 2, 3, 4}}


def test_a_host_that_goes_before_openqa_knows_it_has_no_workers_to_close() -> None:
    found = look(member("i-1", "Pending:Wait"))
    assert view.closings(Decision(desired={}, release=("i-1",)), found) == {}


def test_a_broken_worker_is_not_the_one_that_is_opened() -> None:
    rows = tuple(
        replace(worker(number), number=number, connected=number == 3, broken=number == 1, job=None)
        for number in (1, 2, 3)
    )
    found = look(member("i-1"), workers=rows)
    assert view.closings(Decision(desired={}, open={"i-1": 2}), found) == {"i-1": {1}}


@pytest.mark.parametrize("changes", [{"connected": False}, {"connected": False, "broken": True}])
def test_a_worker_that_is_away_for_a_minute_is_no_free_slot(changes: dict[str, bool]) -> None:
    memory = Memory()
    rows = (worker(1), replace(worker(2), instance="i-1", number=2, **changes))

    def unfit(workers: tuple[ListedWorker, ...], later: float) -> int:
        return only(look(member("i-1"), workers=workers, memory=memory, now=NOW + later)).unfit

    assert [unfit(rows, later) for later in (0, 59, 60)] == [0, 0, 1]
    assert unfit((rows[0], replace(rows[1], connected=True, broken=False)), 61) == 0
    assert [unfit(rows, later) for later in (62, 121, 122)] == [0, 0, 1]


def test_a_closed_worker_is_not_unfit() -> None:
    memory = Memory(closed={"i-1": frozenset({2})})
    rows = (worker(1), replace(worker(2), instance="i-1", number=2, connected=False))
    for later in (0, 100):
        assert only(look(member("i-1"), workers=rows, memory=memory, now=NOW + later)).unfit == 0


def test_a_host_of_more_workers_than_the_plan_counts_on_may_lack_some() -> None:
    memory, four = Memory(), replace(FACTS, workers={"c8i.xlarge": 4})
    rows = tuple(replace(worker(number), number=number, connected=number > 3) for number in range(1, 7))
    found = [
        look(member("i-1"), workers=rows, memory=memory, now=NOW + later, facts=four) for later in (0, 100)
    ]
    assert [only(view).unfit for view in found] == [0, 1]


def test_a_worker_that_openqa_has_not_heard_of_has_a_minute_from_the_first_of_its_host() -> None:
    memory, booting = Memory(), member("i-1", "Pending:Wait")
    look(booting, memory=memory, now=NOW - 100)
    found = [
        look(member("i-1"), workers=(worker(1),), memory=memory, now=NOW + later) for later in (0, 59, 60)
    ]
    assert [only(view).unfit for view in found] == [0, 0, 1]


def test_a_closed_worker_that_openqa_has_not_heard_of_is_not_unfit() -> None:
    memory = Memory(closed={"i-1": frozenset({2})})
    for later in (0, 100):
        assert only(look(member("i-1"), workers=(worker(1),), memory=memory, now=NOW + later)).unfit == 0


def test_a_host_that_lacks_all_its_workers_makes_sense() -> None:
    memory = Memory()
    rows = tuple(replace(worker(number), number=number, connected=False) for number in (1, 2))
    for later in (0, 100):
        assert find_fault(look(member("i-1"), workers=rows, memory=memory, now=NOW + later).seen) is None


def test_a_host_is_as_idle_as_before_while_its_workers_are_opened() -> None:
    memory = Memory(closed={"i-1": frozenset({1})})
    rows = (worker(1, connected=False),)
    look(member("i-1"), workers=rows, memory=memory)
    memory.closed = {}
    found = look(member("i-1"), workers=rows, memory=memory, now=NOW + 5)
    assert only(found).idle_since == NOW


def test_a_job_on_a_worker_that_was_closed_is_no_idle_host() -> None:
    memory = Memory(closed={"i-1": frozenset({1})})
    running = job(7, scheduled=False, worker=1)
    found = look(member("i-1"), jobs=(running,), workers=(worker(1, connected=False),), memory=memory)
    assert only(found).idle_since is None


def test_what_is_gone_is_forgotten() -> None:
    memory = Memory(idle={"i-9": 1.0}, lost={"i-9": 1.0}, told={"i-9": 1.0}, waiting={9: 1.0})
    memory.unfit = {"i-9": {1: 1.0}}
    memory.looked = NOW - 20
    look(memory=memory)
    assert memory == Memory(looked=NOW)


def test_a_host_that_was_told_to_go_is_draining_until_the_call_turns_out_to_be_lost() -> None:
    memory = Memory(told={"i-1": NOW})
    found = look(member("i-1"), workers=(worker(1),), memory=memory, now=NOW + view.TOLD_SECONDS)
    assert (only(found).state, found.told) == (State.DRAINING, frozenset({"i-1"}))
    found = look(member("i-1"), workers=(worker(1),), memory=memory, now=NOW + view.TOLD_SECONDS + 1)
    assert (only(found).state, found.told) == (State.READY, frozenset())


def test_a_host_that_drains_for_hours_has_still_been_told() -> None:
    memory = Memory(told={"i-1": NOW})
    found = look(member("i-1", "Terminating:Wait"), workers=(worker(1),), memory=memory, now=NOW + 7200)
    assert found.told == {"i-1"}
    assert view.closings(Decision(desired={}), found) == {"i-1": {1}}


def test_parallel_jobs_are_one_cluster_however_they_hang_together() -> None:
    jobs = (
        job(5, parallel=(7,)),
        job(6, parallel=(7,)),
        job(7, parallel=(5, 6)),
        job(8),
        job(9, parallel=(3,)),
        job(10, parallel=(11,)),
        job(11, parallel=(10,)),
    )
    clusters = {found.id: found.cluster for found in look(jobs=jobs[::-1]).seen.jobs}
    assert clusters == {5: 5, 6: 5, 7: 5, 8: None, 9: None, 10: 10, 11: 10}


def test_chained_jobs_wait_for_parents_that_are_not_done() -> None:
    running = job(4, scheduled=False, worker=1)
    jobs = (
        running,
        job(5, parents=(4, 2)),
        job(6, parents=(2,)),
        job(7, blocked_by=5),
        job(8, blocked_by=3),
        job(9, parents=(4, 5), blocked_by=4),
    )
    after = {found.id: found.after for found in look(jobs=jobs).seen.jobs}
    assert after == {5: (4,), 6: (), 7: (5,), 8: (), 9: (4, 5)}


def test_who_goes_first_is_openqas_priority() -> None:
    jobs = look(jobs=(job(5, priority=40), job(6, priority=60))).seen.jobs
    assert {found.id: found.priority for found in jobs} == {5: 40, 6: 60}


def test_a_cluster_does_not_wait_for_itself() -> None:
    pair = (job(1, parallel=(2,)), job(2, parallel=(1,), blocked_by=1))
    assert [waiting.after for waiting in look(jobs=pair).seen.jobs] == [(), ()]


def test_waiting_since_it_was_first_seen_unblocked() -> None:
    memory = Memory()
    look(jobs=(job(5), job(6, parents=(5,))), memory=memory)
    jobs = look(jobs=(job(5), job(6)), memory=memory, now=NOW + 60).seen.jobs
    assert {found.id: found.since for found in jobs} == {5: NOW, 6: NOW + 60}


def test_how_long_jobs_take_is_learned_from_the_newest_of_their_kind() -> None:
    memory = Memory()
    ended = [job(id, scheduled=False, started=NOW, finished=NOW + 100.0 * id) for id in range(1, 21)]
    memory.learn([*ended, job(30, started=NOW)])
    assert memory.usual == {("base", "", "", ""): 1600.0}
    assert look(memory=memory).seen.recent == {PLAIN: len(ended) + 1}
    assert look(jobs=(job(40),), memory=memory).seen.jobs[0].expected_seconds == 1600.0


def test_a_job_that_ended_before_it_began_does_not_blind_the_controller() -> None:
    memory = Memory()
    memory.learn([job(1, scheduled=False, started=NOW, finished=NOW - 60)])
    assert find_fault(look(member("i-1"), jobs=(job(2),), memory=memory).seen) is None


@pytest.mark.parametrize("started", [None, NOW])
def test_nothing_is_learned_from_a_job_that_took_no_time(started: float | None) -> None:
    memory = Memory()
    memory.learn([job(1, scheduled=False, started=started, finished=NOW)])
    assert memory.usual == {}


def test_numbers_of_a_fleet() -> None:
    launches = Launches(failures=2, last_failure=5.0, boot_seconds=90.0)
    warm = (parse("mon-sun 00:00-23:59 30"),)
    (fleet,) = look(launches=launches, facts=replace(FACTS, warm=warm), least=1).seen.fleets
    assert (fleet.slots, fleet.min, fleet.max, fleet.warm, fleet.one_host) == (2, 1, 9, 9, False)
    assert (fleet.failures, fleet.last_failure, fleet.no_capacity_at) == (2, 5.0, None)
    assert (fleet.boot_seconds, fleet.spare) == (90.0, None)
    assert look(facts=replace(FACTS, spare=0.4)).seen.fleets[0].spare == 0.4
    warm = (parse("fri 08:01-08:02 3"),)  # a minute after NOW
    assert look(launches=launches, facts=replace(FACTS, warm=warm)).seen.fleets[0].warm == 3
    quick = replace(launches, boot_seconds=10.0)
    assert look(launches=quick, facts=replace(FACTS, warm=warm)).seen.fleets[0].warm == 0
    assert fleet.price == 0.2


def test_a_zone_without_hosts_is_no_fleet_without_hosts() -> None:
    memory = Memory()
    near, far = ("near",), ("near", "far")
    (fleet,) = look(memory=memory, launches=Launches(no_capacity_at=NOW - 20), subnets=near).seen.fleets
    assert fleet.no_capacity_at is None
    # What was launched before the group had the other zones tells nothing about them.
    found = look(memory=memory, launches=Launches(no_capacity_at=NOW - 1), subnets=far)
    assert found.seen.fleets[0].no_capacity_at is None
    later = Launches(no_capacity_at=NOW + 30)
    (fleet,) = look(memory=memory, launches=later, subnets=far, now=NOW + 40).seen.fleets
    assert fleet.no_capacity_at == NOW + 30
    (fleet,) = look(memory=memory, launches=later, subnets=near, now=NOW + 50).seen.fleets
    assert fleet.no_capacity_at is None


def test_a_fleet_of_one_zone_without_hosts_there_has_none() -> None:
    one = replace(FACTS, subnets=("near",))
    (fleet,) = look(launches=Launches(no_capacity_at=NOW - 20), facts=one).seen.fleets
    assert fleet.no_capacity_at == NOW - 20


def test_hosts_boot_in_other_zones_until_the_web_uis_is_asked_again() -> None:
    memory = Memory()
    assert not look(memory=memory).wide
    assert look(memory=memory, launches=Launches(no_capacity_at=NOW - 20)).wide == {"group"}
    given = Launches(boot_seconds=90.0)  # elsewhere
    wait = DEFAULT_RULES.no_capacity_seconds
    assert look(memory=memory, launches=given, now=NOW + wait - 30).wide == {"group"}
    assert not look(memory=memory, launches=given, now=NOW - 20 + wait).wide


def test_cost_counts_every_host_there_is() -> None:
    going = member("i-2", "Terminating:Wait", type="c8i.2xlarge")
    found = look(member("i-1"), going, member("i-3", gone=True))
    assert found.hourly["small"] == pytest.approx(0.6)


def test_a_fleet_without_a_group_does_not_count_yet() -> None:
    found = view.look(
        now=NOW,
        queue=Queue(at=NOW, jobs=(), workers=()),
        groups={},
        groups_at=NOW,
        facts=[FACTS],
        launches={},
        memory=Memory(),
    )
    assert found.seen.fleets == []
    assert view.acts(decide(found.seen), found, {}, [FACTS]) == []


# -- acts


def moment(**changes: Any) -> View:
    empty = look().seen
    made = View(
        seen=empty,
        given_up=(),
        lost=frozenset(),
        told=frozenset(),
        hourly={},
        workers={},
        wide=frozenset(),
    )
    return replace(made, **changes)


def acts(decision: Decision, *members: Member, at: View | None = None, **changes: Any) -> list[Act]:
    return view.acts(decision, at or moment(), {"group": group(*members, **changes)}, [FACTS])


def brief(found: list[Act]) -> list[tuple[str | None, bool, int | None]]:
    return [(act.instance, act.decrement, act.desired) for act in found]


def test_launches_are_a_desired_capacity() -> None:
    assert brief(acts(Decision(desired={"small": 3}), member("i-1"))) == [(None, False, 3)]


def test_acts_say_what_they_do_and_why() -> None:
    acted = acts(Decision(desired={"small": 2}, release=("i-1",)), member("i-1"))
    assert [act.text for act in acted] == [
        "small: i-1 drains and goes (idle)",
        "small: 2 hosts wanted (1 before)",
    ]


def test_nothing_to_do_is_nothing_done() -> None:
    assert acts(Decision(desired={"small": 1}), member("i-1")) == []


def test_a_release_takes_the_host_and_its_place() -> None:
    decision = Decision(desired={"small": 1}, release=("i-2",))
    assert brief(acts(decision, member("i-1"), member("i-2"))) == [("i-2", True, None)]


def test_an_old_host_is_replaced_where_the_fleet_shall_not_shrink() -> None:
    decision = Decision(desired={"small": 1}, drain=("i-1",))
    assert brief(acts(decision, member("i-1"))) == [("i-1", False, None)]


def test_never_below_the_groups_minimum_or_above_its_maximum() -> None:
    assert brief(acts(Decision(desired={"small": 0}, release=("i-1",)), member("i-1"), min=1)) == [
        ("i-1", False, None)
    ]
    assert brief(acts(Decision(desired={"small": 50}), member("i-1"))) == [(None, False, 9)]


def test_launches_that_nobody_needs_any_more_are_called_off_while_there_is_no_host_yet() -> None:
    assert brief(acts(Decision(desired={"small": 1}), member("i-1"), desired=4)) == [(None, False, 1)]


def test_a_group_is_told_once_to_leave_its_zones_uneven() -> None:
    uneven = acts(Decision(desired={"small": 1}), member("i-1"), evens_out=True)
    assert brief(uneven) == [(None, False, None)]
    assert uneven[0].text == "small: zones are not evened out (which would launch hosts without work)"
    assert acts(Decision(desired={"small": 1}), member("i-1"), evens_out=False) == []


def test_a_group_is_told_where_hosts_shall_boot() -> None:
    stay = Decision(desired={"small": 1})
    (act,) = acts(stay, member("i-1"), at=moment(wide=frozenset({"group"})))
    assert (act.subnets, act.desired) == (("near", "far"), None)
    assert act.text == "small: hosts boot in near, far (the web UI's zone has none)"
    spread = frozenset({"far", "near"})
    assert acts(stay, member("i-1"), at=moment(wide=frozenset({"group"})), subnets=spread) == []
    (act,) = acts(stay, member("i-1"), subnets=spread)
    assert (act.subnets, act.text) == (("near",), "small: hosts boot in near (the web UI's zone, again)")
    assert acts(stay, member("i-1")) == []


def test_a_group_whose_subnets_are_not_told_keeps_those_it_has() -> None:
    untold = replace(FACTS, subnets=())
    short = Launches(no_capacity_at=NOW - 20)
    for subnets in (("near",), ("far", "near")):
        found = look(member("i-1"), launches=short, facts=untold, subnets=subnets)
        groups = {"group": group(member("i-1"), subnets=frozenset(subnets))}
        assert view.acts(Decision(desired={"small": 1}), found, groups, [untold]) == []
        (fleet,) = found.seen.fleets
        assert fleet.no_capacity_at == NOW - 20


def test_no_host_is_left_to_the_groups_choice() -> None:
    assert acts(Decision(desired={"small": 0}), member("i-1"), member("i-2")) == []


def test_a_host_that_was_told_to_go_is_not_replaced_by_accident() -> None:
    at = moment(told=frozenset({"i-1"}))
    assert acts(Decision(desired={"small": 0}), member("i-1"), at=at, desired=0) == []


def test_a_lost_host_still_is_capacity_to_its_group() -> None:
    at = moment(lost=frozenset({"i-1"}))
    assert brief(acts(Decision(desired={"small": 1}), member("i-1"), at=at)) == [(None, False, 2)]


def test_a_lost_host_that_is_given_up_goes() -> None:
    at = moment(lost=frozenset({"i-1"}), given_up=("i-1",))
    assert brief(acts(Decision(desired={"small": 0}), member("i-1"), at=at)) == [("i-1", True, None)]


def test_a_host_that_goes_already_is_left_alone() -> None:
    decision = Decision(desired={"small": 0}, release=("i-1",))
    assert acts(decision, member("i-1", "Terminating:Wait"), desired=0) == []


def test_a_fleet_whose_hosts_do_not_come_up_has_none_that_its_group_would_replace() -> None:
    booting = (member("i-1"), member("i-2", "Pending:Wait"), member("i-3", "Pending"))
    at = moment(seen=look(*booting, launches=Launches(failures=3, last_failure=NOW)).seen)
    decision = Decision(desired={"small": 3}, held={"small": "3 hosts in a row did not come up."})
    assert brief(acts(decision, *booting, at=at)) == [("i-2", True, None), ("i-3", True, None)]
    # The minimum is the group's own affair: to call off what it must launch again would never end.
    assert brief(acts(decision, *booting, at=at, min=2)) == [("i-2", True, None)]
    assert acts(decision, *booting, at=at, min=3) == []
    assert brief(acts(decision, *booting, at=at, min=4)) == [(None, False, 4)]
    # After its rest it is tried again.
    assert acts(Decision(desired={"small": 3}), *booting, at=at) == []


def test_hosts_that_boot_are_not_called_off_where_aws_has_no_more() -> None:
    at = moment(seen=look(launches=Launches(failures=2, last_failure=NOW, no_capacity_at=NOW)).seen)
    decision = Decision(desired={"small": 1}, held={"small": "AWS has no capacity for it."})
    assert acts(decision, member("i-1", "Pending:Wait"), at=at) == []


def test_a_host_that_boots_and_has_a_job_already_is_not_called_off() -> None:
    booting = member("i-1", "Pending:Wait", launched=NOW - 100)
    held = Launches(failures=3, last_failure=NOW - 10)
    found = look(booting, workers=(worker(1, job=7),), jobs=(job(8),), launches=held)
    assert view.acts(decide(found.seen), found, {"group": group(booting)}, [FACTS]) == []


def test_what_cannot_be_used_changes_nothing() -> None:
    decision = Decision(desired={"small": 9}, release=("i-1",), unusable="It is too old.")
    assert acts(decision, member("i-1")) == []


@given(
    states=st.lists(st.sampled_from(["Pending:Wait", "InService", "Terminating:Wait"]), max_size=6),
    desired=st.integers(min_value=0, max_value=9),
    least=st.integers(min_value=0, max_value=3),
    wanted=st.integers(min_value=0, max_value=9),
    going=st.sets(st.integers(min_value=0, max_value=5)),
)
def test_a_group_never_has_to_choose_a_host(
    states: list[str], desired: int, least: int, wanted: int, going: set[int]
) -> None:
    members = [member(f"i-{n}", state) for n, state in enumerate(states)]
    decision = Decision(desired={"small": wanted}, release=tuple(f"i-{n}" for n in going))
    left, capacity = [found for found in members if found.counts], max(desired, least)
    for act in acts(decision, *members, min=least, desired=capacity):
        if act.instance is not None:
            left = [found for found in left if found.id != act.instance]
            capacity -= act.decrement
        if act.desired is not None:
            capacity = act.desired
        assert least <= capacity <= 9
    assert capacity >= len(left)
