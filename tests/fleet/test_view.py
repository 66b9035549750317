"""What the controller makes of what it reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet import view
from fleet.acts import acts, closings
from fleet.faults import find_fault
from fleet.groups import Launches
from fleet.model import Decision, State
from fleet.openqa_api import ListedWorker, Queue
from fleet.policy import decide
from fleet.rules import DEFAULT_RULES
from fleet.view import Memory
from fleet.warm import parse
from tests.fleet.moments import FACTS, NOW, OLD, PLAIN, group, job, look, member, only, worker


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
    assert acts(decision, found, {"group": group(*members)}, [FACTS]) == []
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
        assert acts(decide(found.seen), found, {"group": group(ended, desired=1, max=1)}, [FACTS]) == []


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
    assert closings(Decision(desired={}), found) == {"i-1": {1}}


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
    assert acts(decide(found.seen), found, {}, [FACTS]) == []
