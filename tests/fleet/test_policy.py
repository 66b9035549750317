"""The fleet's policy: what it does for a given sight, and what it never does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.model import Decision, Fleet, Host, Running, Seen, State
from fleet.openqa_scheduler import Job, units
from fleet.policy import decide, unserved
from fleet.rules import DEFAULT_RULES, Rules

NOW = 1_000_000.0
PLAIN = frozenset({"qemu_x86_64"})
TAP = frozenset({"qemu_x86_64", "tap"})
SMALL = Fleet(name="small", classes=PLAIN, slots=1, price=0.11, boot_seconds=180, max=50)
LARGE = Fleet(name="large", classes=PLAIN, slots=8, price=0.86, boot_seconds=180, max=10)
TAPS = Fleet(name="tap", classes=TAP, slots=4, price=0.43, boot_seconds=180, max=5)


def see(*, jobs: list[Job] | None = None, hosts: list[Host] | None = None, fleets: tuple[Fleet, ...]) -> Seen:
    return Seen(now=NOW, jobs_at=NOW, hosts_at=NOW, jobs=jobs or [], hosts=hosts or [], fleets=fleets)


def job(number: int, classes: frozenset[str] = PLAIN, **more: object) -> Job:
    facts = {"since": NOW - 10, "expected_seconds": 1200.0, **more}
    return Job(id=number, classes=classes, **facts)  # type: ignore[arg-type]


def host(name: str, fleet: Fleet, jobs: int = 0, state: State = State.READY, **more: object) -> Host:
    running = tuple(
        Running(job=10_000 + 100 * int(name[1:]) + n, since=NOW - 600, expected_seconds=1200)
        for n in range(jobs)
    )
    facts = {"launched": NOW - 3600, "idle_since": None if jobs else NOW - 3000, **more}
    return Host(id=name, fleet=fleet.name, state=state, running=running, **facts)  # type: ignore[arg-type]


def plainly(seen: Seen) -> Decision:
    """Decide without spare hosts, so that the numbers are easy to follow."""
    return decide(seen, Rules(spare=0))


def test_nothing_to_do_is_nothing() -> None:
    assert plainly(see(fleets=(SMALL,))) == Decision(desired={"small": 0})


def test_each_waiting_job_gets_a_slot() -> None:
    assert plainly(see(jobs=[job(n) for n in range(3)], fleets=(SMALL,))).desired == {"small": 3}


def test_hosts_on_their_way_are_counted() -> None:
    booting = [
        host(f"h{n}", SMALL, state=State.BOOTING, launched=NOW - 60, idle_since=None) for n in range(2)
    ]
    decision = plainly(see(jobs=[job(n) for n in range(3)], hosts=booting, fleets=(SMALL,)))
    assert decision.desired == {"small": 3}


def test_a_host_that_is_far_too_late_is_not_counted_on() -> None:
    late = host("h1", SMALL, state=State.BOOTING, launched=NOW - 1000, idle_since=None)
    decision = plainly(see(jobs=[job(1)], hosts=[late], fleets=(SMALL,)))
    # It stays until it comes up or its launch fails: only that counts as a failure.
    assert decision == Decision(desired={"small": 2})
    assert plainly(see(hosts=[late], fleets=(SMALL,))) == Decision(desired={"small": 0}, release=("h1",))


def test_what_was_planned_on_a_host_that_boots_stays_planned() -> None:
    small = replace(SMALL, price=0.21, max=40)
    large = replace(LARGE, price=1.2)
    jobs = [job(n) for n in range(12)]
    launched = plainly(see(jobs=jobs, fleets=(small, large))).desired
    assert launched == {"small": 4, "large": 1}
    booting = [
        host(f"h{n}", fleet, state=State.BOOTING, launched=NOW - 2, idle_since=None)
        for n, fleet in enumerate([small] * launched["small"] + [large] * launched["large"])
    ]
    assert plainly(see(jobs=jobs, hosts=booting, fleets=(small, large))).desired == launched


def test_a_slot_that_will_be_free_before_a_new_host_is_enough() -> None:
    soon = replace(
        host("h1", SMALL, jobs=1), running=(Running(job=9, since=NOW - 120, expected_seconds=160),)
    )
    decision = plainly(see(jobs=[job(1)], hosts=[soon], fleets=(SMALL,)))
    assert decision.desired == {"small": 1}


def test_a_worker_that_is_not_fit_is_no_free_slot() -> None:
    full = [host("h1", TAPS, jobs=3)]
    assert plainly(see(jobs=[job(1, TAP)], hosts=full, fleets=(TAPS,))).desired == {"tap": 1}
    assert plainly(see(jobs=[job(1, TAP)], hosts=[replace(full[0], unfit=1)], fleets=(TAPS,))).desired == {
        "tap": 2
    }


def test_who_has_waited_for_long_waits_for_no_busy_worker() -> None:
    soon = replace(
        host("h1", SMALL, jobs=1), running=(Running(job=9, since=NOW - 120, expected_seconds=160),)
    )
    long = replace(job(1), since=NOW - 2 * SMALL.boot_seconds)
    assert plainly(see(jobs=[long], hosts=[soon], fleets=(SMALL,))).desired == {"small": 2}
    booting = host("h2", SMALL, state=State.BOOTING, launched=NOW - 60, idle_since=None)
    assert plainly(see(jobs=[long], hosts=[soon, booting], fleets=(SMALL,))).desired == {"small": 2}
    idle = host("h2", SMALL)
    assert plainly(see(jobs=[long], hosts=[soon, idle], fleets=(SMALL,))).desired == {"small": 2}


def test_a_cluster_gets_one_host_that_holds_it_whole() -> None:
    cluster = [job(n, TAP, cluster=1) for n in range(1, 4)]
    pairs = Fleet(name="pairs", classes=TAP, slots=2, price=0.2, boot_seconds=180, max=9)
    assert plainly(see(jobs=cluster, fleets=(pairs, TAPS))).desired == {"pairs": 0, "tap": 1}


def test_free_slots_on_two_hosts_are_not_enough_for_a_cluster() -> None:
    cluster = [job(n, TAP, cluster=1) for n in range(1, 4)]
    hosts = [host("h1", TAPS, jobs=2), host("h2", TAPS, jobs=2)]
    assert plainly(see(jobs=cluster, hosts=hosts, fleets=(TAPS,))).desired == {"tap": 3}


def test_a_cluster_that_no_host_can_hold_launches_nothing() -> None:
    cluster = [job(n, TAP, cluster=1) for n in range(1, 6)]
    assert plainly(see(jobs=cluster, fleets=(TAPS,))).desired == {"tap": 0}


def test_a_cluster_that_no_host_can_hold_is_spread_where_hosts_share_a_network() -> None:
    mesh = replace(TAPS, one_host=False)
    cluster = [job(n, TAP, cluster=1) for n in range(1, mesh.slots + 2)]
    assert plainly(see(jobs=cluster, fleets=(mesh,))).desired == {"tap": 2}
    pair = replace(mesh, slots=1)
    assert plainly(see(jobs=cluster[:2], fleets=(pair,))).desired == {"tap": 2}
    # One that a host of another fleet can hold is planned there, whole.
    pairs = replace(mesh, name="pairs", slots=2, price=0.2)
    assert plainly(see(jobs=cluster[:3], fleets=(pairs, TAPS))).desired == {"pairs": 0, "tap": 1}
    hosts = [host("h1", mesh), host("h2", mesh)]
    decision = plainly(see(jobs=cluster, hosts=hosts, fleets=(mesh,)))
    assert (decision.desired, decision.release) == ({"tap": 2}, ())
    # All of them wait for each one's parents.
    blocked = [replace(cluster[0], after=(999,)), *cluster[1:]]
    assert plainly(see(jobs=blocked, fleets=(mesh,))).desired == {"tap": 0}


def test_clusters_that_a_fleet_cannot_hold_hide_no_jobs_from_it() -> None:
    large = replace(TAPS, name="large", max=0)
    small = replace(TAPS, name="tap", slots=1, max=50)
    clusters = [job(n, TAP, cluster=n - n % 2) for n in range(2, 12)]
    alone = [job(n, TAP) for n in range(20, 25)]
    assert plainly(see(jobs=clusters + alone, fleets=(large, small))).desired == {"large": 0, "tap": 5}


def test_blocked_jobs_launch_nothing_while_their_parent_has_long_to_run() -> None:
    parent = host("h1", SMALL, jobs=1)
    children = [job(n, after=(parent.running[0].job,)) for n in (1, 2)]
    assert plainly(see(jobs=children, hosts=[parent], fleets=(SMALL,))).desired == {"small": 1}


def test_chained_jobs_have_their_hosts_launched_before_the_parent_ends() -> None:
    parent = replace(
        host("h1", SMALL), idle_since=None, running=(Running(job=9, since=NOW - 300, expected_seconds=240),)
    )
    children = [job(n, after=(9,)) for n in range(1, 4)]
    # One of them takes the parent's own slot.
    assert plainly(see(jobs=children, hosts=[parent], fleets=(SMALL,))).desired == {"small": 3}


def test_children_of_a_job_that_waits_are_foreseen_from_when_it_will_have_ended() -> None:
    # It is late, and so counted on in 20 seconds.
    late = host("h1", SMALL, state=State.BOOTING, launched=NOW - 200, idle_since=None)
    children = [job(n, after=(1,)) for n in (2, 3)]
    for seconds, desired in ((150.0, 2), (165.0, 1)):
        parent = job(1, expected_seconds=seconds)
        decision = plainly(see(jobs=[parent, *children], hosts=[late], fleets=(SMALL,)))
        assert decision.desired == {"small": desired}


def test_a_job_that_is_late_is_taken_to_last_for_a_while_yet() -> None:
    for age, desired in ((500, 1), (1000, 2)):
        late = running(since=NOW - age, expected_seconds=200.0)
        assert plainly(see(jobs=[job(1)], hosts=[late], fleets=(SMALL,))).desired == {"small": desired}


def test_units_that_a_fleet_cannot_hold_wait_for_their_own() -> None:
    cluster = [job(n, TAP, cluster=1) for n in range(1, 4)]
    pairs = Fleet(name="pairs", classes=TAP, slots=2, price=0.15, boot_seconds=180, max=9)
    pair = [job(n, TAP, cluster=4) for n in (4, 5)]
    assert plainly(see(jobs=cluster + pair, fleets=(pairs, TAPS))).desired == {"pairs": 1, "tap": 1}


def test_once_quick_hosts_are_used_up_jobs_wait_for_as_long_as_slow_ones_boot() -> None:
    quick = replace(TAPS, slots=1, max=1, price=0.1)
    slow = replace(SMALL, name="slow", boot_seconds=1200)
    busy = replace(running(since=NOW - 600, expected_seconds=750.0), fleet="slow")
    jobs = [job(1, TAP), job(2)]
    assert plainly(see(jobs=jobs[1:], hosts=[busy], fleets=(quick, slow))).desired == {"tap": 1, "slow": 1}
    assert plainly(see(jobs=jobs, hosts=[busy], fleets=(quick, slow))).desired == {"tap": 1, "slow": 1}


def test_what_stays_free_on_a_new_host_is_there_for_jobs_of_other_kinds() -> None:
    jobs = [job(1), job(2, TAP)]
    assert plainly(see(jobs=jobs, fleets=(SMALL, TAPS))).desired == {"small": 0, "tap": 1}


def test_the_cheaper_fleet_is_chosen_and_the_next_where_it_is_full() -> None:
    dear = replace(SMALL, name="dear", price=0.2)
    decision = plainly(see(jobs=[job(n) for n in range(3)], fleets=(dear, replace(SMALL, max=2))))
    assert decision.desired == {"dear": 1, "small": 2}


# Boots take twenty minutes, and there are no small ones.
METAL = Fleet(name="metal", classes=PLAIN, slots=24, price=4.0, boot_seconds=1200, max=9)
BIGGER = replace(METAL, name="bigger", slots=48, price=4.9)


def test_jobs_that_scatter_get_hosts_of_their_own() -> None:
    # A large host costs 2 % less a worker, but the last of its eight jobs keeps it longer.
    decision = plainly(see(jobs=[job(n) for n in range(8)], fleets=(LARGE, SMALL)))
    assert decision.desired == {"large": 0, "small": 8}


def test_a_roomy_host_is_larger_than_what_waits_needs_if_others_like_it_will_come() -> None:
    seen = see(jobs=[job(n) for n in range(10)], fleets=(METAL, BIGGER))
    assert plainly(seen).desired == {"metal": 1, "bigger": 0}
    assert plainly(replace(seen, recent={PLAIN: 100})).desired == {"metal": 0, "bigger": 1}
    assert plainly(replace(seen, recent={PLAIN: 10, TAP: 90})).desired == {"metal": 1, "bigger": 0}


def test_of_equal_roomy_hosts_the_one_that_suits_more_is_launched() -> None:
    tap = replace(METAL, name="tap", classes=TAP)
    seen = see(jobs=[job(1)], fleets=(METAL, tap))
    assert plainly(replace(seen, recent={PLAIN: 80})).desired == {"metal": 1, "tap": 0}
    assert plainly(replace(seen, recent={PLAIN: 80, TAP: 20})).desired == {"metal": 0, "tap": 1}


def test_a_roomy_host_is_launched_as_soon_as_no_worker_is_free() -> None:
    full = host("h1", METAL, jobs=24)
    # They end while a new host would still boot.
    full = replace(full, running=tuple(replace(busy, expected_seconds=700) for busy in full.running))
    assert plainly(see(jobs=[job(1)], hosts=[full], fleets=(METAL,))).desired == {"metal": 2}
    # Where there are small hosts, too, jobs wait for the workers that are there.
    small = replace(METAL, name="small", slots=4, price=1.0)
    decision = plainly(see(jobs=[job(1)], hosts=[full], fleets=(METAL, small)))
    assert decision.desired == {"metal": 1, "small": 0}


def test_an_idle_roomy_host_stays_longer() -> None:
    idle = host("h1", METAL, idle_since=NOW - 2300)
    assert plainly(see(hosts=[idle], fleets=(METAL,))).release == ()
    decision = plainly(see(hosts=[replace(idle, idle_since=NOW - 2500)], fleets=(METAL,)))
    assert (decision.release, decision.open) == (("h1",), {})
    small = replace(METAL, name="small", slots=4, price=1.0)
    assert plainly(see(hosts=[idle], fleets=(METAL, small))).release == ("h1",)


def test_a_host_whose_first_job_came_before_it_was_in_service_stays() -> None:
    for more in ({}, {"outdated": True}):
        early = host("h1", SMALL, jobs=1, state=State.BOOTING, launched=NOW - 20, **more)
        large = host("h2", LARGE, jobs=1, state=State.BOOTING, launched=NOW - 20, **more)
        decision = plainly(see(hosts=[early, large], fleets=(SMALL, LARGE)))
        assert decision == Decision(desired={"small": 1, "large": 1})


def test_idle_hosts_go() -> None:
    decision = plainly(see(hosts=[host("h1", SMALL)], fleets=(SMALL,)))
    assert decision.release == ("h1",)
    assert decision.desired == {"small": 0}


def test_a_host_with_a_job_or_without_workers_is_never_released() -> None:
    busy = host("h1", SMALL, jobs=1, idle_since=NOW - 5000)
    silent = host("h2", SMALL, idle_since=None)
    assert plainly(see(hosts=[busy, silent], fleets=(SMALL,))) == Decision(desired={"small": 2})


def test_of_idle_hosts_as_many_stay_as_the_fleet_shall_have_those_that_are_idle_last() -> None:
    idle = [host(f"h{n}", SMALL, idle_since=NOW - 1000 + n) for n in (1, 2, 3)]
    for fleet in (replace(SMALL, min=1), replace(SMALL, warm=1)):
        decision = plainly(see(hosts=idle, fleets=(fleet,)))
        assert decision == Decision(desired={"small": 1}, release=("h1", "h2"))


def test_warm_hosts_stay_and_are_launched() -> None:
    warm = replace(SMALL, warm=2)
    decision = plainly(see(hosts=[host("h1", SMALL)], fleets=(warm,)))
    assert decision == Decision(desired={"small": 2})


def busy_for(seconds: float, fleet: Fleet, name: str = "h1") -> Host:
    """A host with one job that has so long to run."""
    running = Running(job=10_000 + int(name[1:]), since=NOW - 100, expected_seconds=100 + seconds)
    return replace(host(name, fleet), idle_since=None, running=(running,))


def test_a_host_that_will_be_empty_soon_takes_no_jobs_that_nobody_foresaw() -> None:
    fleets = (LARGE, SMALL)
    assert plainly(see(hosts=[busy_for(40, LARGE)], fleets=fleets)).open == {"h1": 0}
    assert plainly(see(hosts=[busy_for(1800, LARGE)], fleets=fleets)).open == {}
    fresh = host("h1", LARGE, idle_since=NOW - 1)
    assert plainly(see(hosts=[fresh], fleets=fleets)) == Decision(desired={"large": 1, "small": 0}), (
        "no job yet"
    )
    assert plainly(see(hosts=[busy_for(40, SMALL)], fleets=fleets)).open == {}, "it has one worker"


def test_a_host_opens_as_many_workers_as_jobs_are_planned_on_it() -> None:
    short = [job(n, expected_seconds=60.0) for n in (1, 2)]
    seen = see(jobs=short, hosts=[busy_for(40, LARGE), busy_for(60, LARGE, "h2")], fleets=(LARGE, SMALL))
    decision = decide(seen, Rules(spare=0, welcome=9))
    # On the one that both keep no longer; the other one need not stay for them.
    assert decision.open == {"h1": 0, "h2": 3}
    assert decision.desired == {"large": 2, "small": 0}


def test_a_job_that_would_keep_a_large_host_for_long_gets_a_small_one_of_its_own() -> None:
    seen = see(jobs=[job(1)], hosts=[busy_for(60, LARGE)], fleets=(LARGE, SMALL))
    decision = plainly(seen)
    assert decision.desired == {"large": 1, "small": 1}
    assert decision.open == {"h1": 0}
    alone = plainly(replace(seen, fleets=(LARGE, replace(SMALL, max=0))))
    assert (alone.desired, alone.open) == ({"large": 1, "small": 0}, {"h1": 2}), "there is no other for it"
    slow = tuple(replace(fleet, boot_seconds=1200) for fleet in (LARGE, SMALL))
    waited = plainly(replace(seen, fleets=slow))
    assert (waited.desired, waited.open) == ({"large": 1, "small": 0}, {"h1": 2}), "a new one takes long"


def test_of_two_hosts_a_job_goes_to_the_one_that_it_keeps_least_longer() -> None:
    hosts = [busy_for(300, LARGE), busy_for(1300, LARGE, "h2"), busy_for(5000, LARGE, "h3")]
    decision = plainly(see(jobs=[job(1)], hosts=hosts, fleets=(LARGE,)))
    # h3 is open to all, as it stays for long; of the others the one that fits.
    assert decision.open == {"h1": 0}
    metal = [busy_for(300, METAL), busy_for(1300, METAL, "h2"), busy_for(5000, METAL, "h3")]
    decision = plainly(see(jobs=[job(1, METAL.classes)], hosts=metal, fleets=(METAL,)))
    assert decision.open == {"h1": 0, "h2": 2, "h3": 0}


OLD = (
    host("h1", SMALL, jobs=1, outdated=True),
    host("h2", SMALL, jobs=1, outdated=True),
    host("h3", SMALL, outdated=True),
)


def test_an_idle_host_of_an_old_template_goes_even_if_the_fleet_shall_have_it() -> None:
    assert plainly(see(hosts=[OLD[2]], fleets=(replace(SMALL, min=1),))).release == ("h3",)


def gone(decision: Decision) -> set[str]:
    return {*decision.drain, *decision.release}


def test_hosts_of_an_old_template_go_once_one_of_the_new_has_come_up() -> None:
    decision = plainly(see(hosts=[*OLD, host("h4", SMALL, jobs=1)], fleets=(SMALL,)))
    assert (decision.drain, decision.release) == (("h1", "h2"), ("h3",))
    assert decision.desired == {"small": 1}, "none comes for those that go, as nothing waits"


def test_until_then_one_goes_at_a_time_the_one_that_is_done_first() -> None:
    jobs = [job(n) for n in range(5)]
    later = replace(OLD[0], running=(replace(OLD[0].running[0], expected_seconds=9e6),))
    for hosts, first in ((OLD, "h3"), ((later, OLD[1]), "h2")):
        assert gone(plainly(see(jobs=jobs, hosts=[*hosts], fleets=(SMALL,)))) == {first}
        rest = [replace(old, state=State.DRAINING) if old.id == first else old for old in hosts]
        assert gone(plainly(see(jobs=jobs, hosts=rest, fleets=(SMALL,)))) == set()
    boots = host("h4", SMALL, state=State.BOOTING, launched=NOW - 10)
    assert gone(plainly(see(jobs=jobs, hosts=[*OLD, boots], fleets=(SMALL,)))) == set()


@pytest.mark.parametrize(
    "trouble",
    [{"failures": 3, "last_failure": NOW - 60}, {"no_capacity_at": NOW - 30}],
    ids=["breaker", "none"],
)
def test_hosts_of_an_old_template_stay_and_work_while_none_can_replace_them(
    trouble: dict[str, float],
) -> None:
    troubled = replace(SMALL, **trouble)  # type: ignore[arg-type]
    new = host("h4", SMALL, jobs=1)
    decision = plainly(see(jobs=[job(1)], hosts=[*OLD, new], fleets=(troubled,)))
    assert gone(decision) == set()
    assert decision.desired == {"small": 4}


@pytest.mark.parametrize(
    "trouble",
    [{"failures": 1, "last_failure": NOW - 7200}, {"no_capacity_at": NOW - 7200}],
    ids=["failure", "no capacity"],
)
def test_hosts_of_an_old_template_do_not_go_one_by_one_where_none_came_for_the_first(
    trouble: dict[str, float],
) -> None:
    troubled = replace(SMALL, **trouble)  # type: ignore[arg-type]
    seen = see(jobs=[job(1)], hosts=[*OLD], fleets=(troubled,))
    assert gone(plainly(seen)) == set()
    new = [*OLD, host("h4", SMALL, jobs=1)]
    assert gone(plainly(replace(seen, hosts=new))) == {"h1", "h2", "h3"}
    later = NOW + 86_400
    assert gone(plainly(replace(seen, now=later, jobs_at=later, hosts_at=later))) == {"h3"}, "the day after"


def test_a_job_for_one_host_keeps_it_and_its_workers() -> None:
    (idle, other) = (host(name, SMALL, idle_since=NOW - 5000) for name in ("i-1", "i-2"))
    only = job(1, frozenset({*SMALL.classes, "i-1"}))
    assert plainly(see(jobs=[only], hosts=[idle, other], fleets=(SMALL,))).release == ("i-2",)
    metal = host("i-1", METAL, idle_since=NOW - 5000)
    only = job(1, frozenset({*METAL.classes, "i-1"}))
    decision = plainly(see(jobs=[only], hosts=[metal], fleets=(METAL,)))
    assert (decision.release, decision.open) == ((), {"i-1": 1})


def test_the_breaker_holds_launches_and_tries_again() -> None:
    broken = replace(SMALL, failures=3, last_failure=NOW - 100)
    decision = plainly(see(jobs=[job(1)], fleets=(broken,)))
    assert decision.desired == {"small": 0}
    assert decision.held["small"] == "3 hosts in a row did not come up; the next try is in 200 s."
    rested = replace(broken, last_failure=NOW - 301)
    twice = replace(broken, failures=2, last_failure=NOW - 1)
    unknown = replace(broken, last_failure=None)
    for fleet in (rested, twice, unknown):
        assert plainly(see(jobs=[job(1)], fleets=(fleet,))) == Decision(desired={"small": 1})


@pytest.mark.parametrize(
    ("failures", "rest"), [(3, 300), (4, 600), (5, 1200), (6, 2400), (7, 3600), (99, 3600)]
)
def test_each_further_failure_doubles_the_rest_an_hour_at_most(failures: int, rest: float) -> None:
    for age, desired in ((rest - 1, 0), (rest, 1)):
        broken = replace(SMALL, failures=failures, last_failure=NOW - age)
        assert plainly(see(jobs=[job(1)], fleets=(broken,))).desired == {"small": desired}


def test_without_capacity_the_next_fleet_is_taken() -> None:
    dry = replace(SMALL, no_capacity_at=NOW - 60)
    other = replace(SMALL, name="other", price=0.2)
    assert plainly(see(jobs=[job(1)], fleets=(dry, other))).desired == {"small": 0, "other": 1}


def running(name: str = "h1", **changes: float) -> Host:
    """A host with job 9."""
    facts = {"since": NOW - 60, "expected_seconds": 1200.0, **changes}
    return replace(host(name, SMALL, idle_since=None), running=(Running(job=9, **facts),))


def test_clocks_may_differ_a_little() -> None:
    soon = NOW + DEFAULT_RULES.clock_seconds
    hosts = [running(since=soon), host("h2", SMALL, idle_since=soon, launched=soon)]
    seen = see(jobs=[job(1, since=soon)], hosts=hosts, fleets=(SMALL,))
    assert decide(replace(seen, jobs_at=soon, hosts_at=soon)).unusable is None


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"jobs_at": NOW - 121}, "121 s old"),
        ({"hosts_at": NOW - 200}, "the hosts is 200 s old"),
        ({"jobs_at": NOW + 60}, "future"),
        ({"jobs_at": float("nan")}, "old"),
        ({"fleets": (SMALL, SMALL)}, "same name"),
        ({"fleets": (replace(SMALL, price=float("nan")),)}, "make no sense"),
        ({"fleets": (replace(SMALL, min=3, max=2),)}, "make no sense"),
        ({"jobs": [job(1), job(1)]}, "twice"),
        ({"jobs": [job(1, since=NOW + 999)]}, "make no sense"),
        ({"jobs": [job(1, expected_seconds=float("inf"))]}, "make no sense"),
        ({"hosts": [host("h1", SMALL), host("h1", SMALL)]}, "twice"),
        ({"hosts": [host("h1", LARGE)]}, "does not exist"),
        ({"hosts": [host("h1", SMALL, jobs=2)]}, "2 jobs on 1 workers"),
        ({"hosts": [host("h1", SMALL, unfit=1)]}, "lacks 1 of 1 workers"),
        ({"hosts": [host("h1", SMALL, launched=NOW + 999)]}, "make no sense"),
        ({"jobs": [job(10_100)], "hosts": [host("h1", SMALL, jobs=1)]}, "two places"),
        ({"hosts": [running(since=NOW - 5), running("h2", since=NOW - 5)]}, "Job 9 is in two places"),
        ({"hosts": [running(since=NOW + 999)]}, "times of job 9 make no sense"),
        ({"hosts": [running(expected_seconds=float("nan"))]}, "times of job 9 make no sense"),
        ({"hosts": [host("h1", SMALL, idle_since=NOW + 999)]}, "times of host h1 make no sense"),
        ({"hosts": [host("h1", SMALL, unfit=-1)]}, "lacks -1 of 1 workers"),
        ({"fleets": (replace(SMALL, slots=0),)}, "make no sense"),
        ({"fleets": (replace(SMALL, min=-1),)}, "make no sense"),
        ({"fleets": (replace(SMALL, warm=-1),)}, "make no sense"),
        ({"fleets": (replace(SMALL, spare=-0.1),)}, "make no sense"),
        ({"fleets": (replace(SMALL, price=0.0),)}, "make no sense"),
        ({"fleets": (replace(SMALL, price=float("inf")),)}, "make no sense"),
        ({"fleets": (replace(SMALL, boot_seconds=-1.0),)}, "make no sense"),
        ({"fleets": (replace(SMALL, boot_seconds=float("inf")),)}, "make no sense"),
        ({"doubt": "openQA hears nobody."}, "openQA hears nobody."),
    ],
)
def test_nonsense_changes_nothing_and_is_told(broken: dict[str, object], says: str) -> None:
    seen = replace(see(jobs=[job(1)], fleets=(SMALL,)), **broken)  # type: ignore[arg-type]
    decision = plainly(seen)
    assert decision.unusable is not None
    assert says in decision.unusable
    assert not decision.drain
    assert not decision.release
    assert decision.desired.get("small", 0) <= len(seen.hosts)


def test_spare_hosts_boot_beside_many_and_are_cancelled_when_nothing_waits() -> None:
    rules, jobs = Rules(spare=0.5), [job(n) for n in range(10)]
    assert decide(see(jobs=jobs, fleets=(SMALL,)), rules).desired == {"small": 15}
    booting = [
        host(f"h{n}", SMALL, state=State.BOOTING, launched=NOW - 60, idle_since=None) for n in range(15)
    ]
    still = decide(see(jobs=jobs, hosts=booting, fleets=(SMALL,)), rules)
    assert still == Decision(desired={"small": 15})
    done = decide(see(hosts=booting, fleets=(SMALL,)), rules)
    assert len(done.release) == 15


def test_the_operator_may_say_what_is_launched_to_spare() -> None:
    jobs = [job(n) for n in range(10)]
    for spare, desired in ((None, 13), (0.0, 10), (0.4, 14), (2.0, 22)):
        assert decide(see(jobs=jobs, fleets=(replace(SMALL, spare=spare),))).desired == {"small": desired}


def test_what_should_be_up_by_now_is_not_cancelled() -> None:
    late = host("h1", SMALL, state=State.BOOTING, launched=NOW - 200, idle_since=None)
    assert decide(see(hosts=[late], fleets=(SMALL,))) == Decision(desired={"small": 1})


def test_small_fleets_and_slow_ones_have_few_hosts_to_spare() -> None:
    jobs = [job(n) for n in range(4)]
    for most, desired in ((3, 3), (7, 5), (50, 6)):
        seen = see(jobs=jobs, fleets=(replace(SMALL, max=most),))
        assert decide(seen, Rules(spare=0.5)).desired == {"small": desired}
    assert decide(see(jobs=jobs, fleets=(replace(SMALL, max=8, warm=20),))).desired == {"small": 8}
    # Of large ones a part is enough to launch one more.
    pairs = replace(SMALL, slots=2, price=0.2)
    for fleet, desired in ((SMALL, 1), (pairs, 2)):
        assert decide(see(jobs=jobs[:1], fleets=(fleet,))).desired == {"small": desired}
    metal = replace(SMALL, boot_seconds=1200)
    for count, desired in ((2, 2), (3, 4), (7, 8), (8, 10)):
        jobs = [job(n) for n in range(count)]
        assert decide(see(jobs=jobs, fleets=(metal,))).desired == {"small": desired}


def test_a_host_of_an_old_template_takes_no_job_that_waits() -> None:
    old, new = host("h1", LARGE, outdated=True), host("h2", LARGE, jobs=8)
    decision = plainly(see(jobs=[job(1)], hosts=[old, new], fleets=(LARGE,)))
    assert (decision.release, decision.desired) == (("h1",), {"large": 2})


def test_a_chained_job_waits_for_the_last_of_its_parents() -> None:
    soon = running(since=NOW - 300, expected_seconds=240)
    long = host("h2", SMALL, jobs=1, idle_since=None)
    children = [job(n, after=(9, long.running[0].job)) for n in (1, 2)]
    assert plainly(see(jobs=children, hosts=[soon, long], fleets=(SMALL,))).desired == {"small": 2}
    children = [job(n, after=(9,)) for n in (1, 2)]
    assert plainly(see(jobs=children, hosts=[soon, long], fleets=(SMALL,))).desired == {"small": 3}


def test_a_late_boot_is_waited_for_only_until_a_new_host_could_be_up() -> None:
    late = host("h1", SMALL, state=State.BOOTING, launched=NOW - 350, idle_since=None)
    assert plainly(see(jobs=[job(1)], hosts=[late], fleets=(SMALL,))).desired == {"small": 1}
    overdue = replace(late, launched=NOW - 370)
    assert plainly(see(jobs=[job(1)], hosts=[overdue], fleets=(SMALL,))).desired == {"small": 2}


def test_hosts_that_boot_are_kept_where_no_more_can_be_launched() -> None:
    full = replace(SMALL, max=2)
    booting = [host(f"h{n}", full, state=State.BOOTING, launched=NOW - 60, idle_since=None) for n in range(2)]
    decision = decide(see(jobs=[job(n) for n in range(5)], hosts=booting, fleets=(full,)))
    assert decision == Decision(desired={"small": 2})


def test_a_steady_load_moves_nothing() -> None:
    hosts = [host(f"h{n}", LARGE, jobs=7) for n in range(4)]
    assert decide(see(hosts=hosts, fleets=(LARGE, SMALL))) == Decision(desired={"large": 4, "small": 0})


# What holds for whatever is seen


@st.composite
def sights(draw: st.DrawFn) -> Seen:
    fleets = tuple(
        Fleet(
            name=name,
            classes=classes,
            slots=draw(st.integers(1, 8)),
            price=draw(st.floats(0.05, 5)),
            boot_seconds=draw(st.sampled_from([90.0, 180.0, 1200.0])),
            min=draw(st.integers(0, 2)),
            max=draw(st.integers(2, 12)),
            warm=draw(st.integers(0, 3)),
            one_host=draw(st.booleans()),
            failures=draw(st.integers(0, 5)),
            last_failure=NOW - draw(st.floats(0, 2000)),
        )
        for name, classes in (("plain", PLAIN), ("other", PLAIN), ("tap", TAP))
    )
    numbers = iter(range(1, 10_000))
    hosts = []
    for number in range(draw(st.integers(0, 10))):
        fleet = draw(st.sampled_from(fleets))
        state = draw(st.sampled_from(State))
        busy = 0 if state is State.BOOTING else draw(st.integers(0, fleet.slots))
        running = tuple(
            Running(
                job=next(numbers),
                since=NOW - draw(st.floats(0, 5000)),
                expected_seconds=draw(st.none() | st.floats(0, 5000)),
            )
            for _ in range(busy)
        )
        idle = None if running or state is State.BOOTING else NOW - draw(st.floats(0, 5000))
        hosts.append(
            Host(
                id=f"i-{number}",
                fleet=fleet.name,
                state=state,
                launched=NOW - draw(st.floats(0, 9000)),
                idle_since=idle,
                running=running,
                outdated=draw(st.booleans()),
                unfit=draw(st.integers(0, fleet.slots - 1)),
            )
        )
    jobs: list[Job] = []
    for _ in range(draw(st.integers(0, 12))):
        classes = draw(st.sampled_from([PLAIN, TAP]))
        cluster = next(numbers)
        members = draw(st.integers(1, 5))
        after = tuple(draw(st.lists(st.integers(1, 60), max_size=2)))
        jobs += [
            Job(
                id=next(numbers),
                classes=classes,
                priority=draw(st.integers(0, 90)),
                cluster=cluster if members > 1 else None,
                after=after,
                since=NOW - draw(st.floats(0, 5000)),
                expected_seconds=draw(st.none() | st.floats(0, 5000)),
            )
            for _ in range(members)
        ]
    return see(jobs=jobs, hosts=hosts, fleets=fleets)


@settings(max_examples=200)
@given(seen=sights())
def test_what_it_never_does(seen: Seen) -> None:
    decision = decide(seen)
    assert decision.unusable is None
    by_id = {host.id: host for host in seen.hosts}
    for name in decision.release:
        assert not by_id[name].running, "a busy host was released"
        assert by_id[name].state is not State.DRAINING
    for name in decision.drain:
        assert by_id[name].state is State.READY
    assert not set(decision.drain) & set(decision.release)
    slots = {fleet.name: fleet.slots for fleet in seen.fleets}
    for name, workers in decision.open.items():
        assert 0 <= workers < slots[by_id[name].fleet]
        assert by_id[name].state is State.READY
        assert name not in {*decision.drain, *decision.release}
    there = Counter(host.fleet for host in seen.hosts)
    leaving = Counter(
        host.fleet
        for host in seen.hosts
        if host.state is State.DRAINING or host.id in {*decision.drain, *decision.release}
    )
    busy = Counter(host.fleet for host in seen.hosts if host.running)
    for fleet in seen.fleets:
        desired = decision.desired[fleet.name]
        launched = desired - (there[fleet.name] - leaving[fleet.name])
        assert launched >= 0
        assert launched == 0 or there[fleet.name] + launched <= fleet.max
        kept_busy = busy[fleet.name] - sum(
            1
            for host in seen.hosts
            if host.fleet == fleet.name
            and host.running
            and (host.state is State.DRAINING or host.id in decision.drain)
        )
        assert desired >= kept_busy
        if fleet.failures >= DEFAULT_RULES.breaker_failures and NOW - (fleet.last_failure or 0) < 300:
            assert launched == 0


@settings(max_examples=50)
@given(seen=sights(), random=st.randoms(use_true_random=False))
def test_the_same_sight_gives_the_same_answer_in_whatever_order(seen: Seen, random: object) -> None:
    hosts, jobs = list(seen.hosts), list(seen.jobs)
    random.shuffle(hosts)  # type: ignore[attr-defined]
    random.shuffle(jobs)  # type: ignore[attr-defined]
    assert decide(seen) == decide(seen)
    shuffled = decide(replace(seen, hosts=hosts, jobs=jobs))
    answer = decide(seen)
    assert shuffled.desired == answer.desired
    assert set(shuffled.release) == set(answer.release)
    assert shuffled.open == answer.open


@settings(max_examples=50)
@given(seen=sights(), age=st.floats(121, 1e6))
def test_stale_sights_change_nothing(seen: Seen, age: float) -> None:
    staying = Counter(host.fleet for host in seen.hosts if host.state is not State.DRAINING)
    for stale in (replace(seen, jobs_at=NOW - age), replace(seen, hosts_at=NOW - age)):
        decision = decide(stale)
        assert decision.unusable
        assert decision.desired == {fleet.name: staying[fleet.name] for fleet in seen.fleets}
        assert decision.drain == decision.release == ()


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_units_keep_clusters_whole(sizes: list[int]) -> None:
    jobs = [
        job(100 * number + member, cluster=number if size > 1 else None)
        for number, size in enumerate(sizes)
        for member in range(size)
    ]
    assert sorted(unit.size for unit in units(jobs)) == sorted(sizes)


TPM = frozenset({"qemu_x86_64", "tpm"})


@pytest.mark.parametrize(
    ("jobs", "fleets", "expected"),
    [
        ([job(1)], (SMALL,), {}),
        ([job(1), job(2), job(3, TAP)], (TAPS,), {}),
        ([job(1), job(2, TPM), job(3, TPM)], (SMALL, TAPS), {TPM: 2}),
        ([job(1)], (replace(SMALL, max=0),), {PLAIN: 1}),
        ([job(1, TPM, after=(7,))], (SMALL,), {}),  # it waits for another first
        ([job(n, TAP, cluster=1) for n in range(4)], (TAPS,), {}),
        ([job(n, TAP, cluster=1) for n in range(5)], (TAPS,), {TAP: 5}),
        ([job(n, TAP, cluster=1) for n in range(5)], (replace(TAPS, one_host=False),), {}),
        ([job(1, TAP, cluster=1), job(2, TPM, cluster=1)], (TAPS,), {TAP | TPM: 2}),
        (
            [job(1, TAP, cluster=1), job(2, TPM, cluster=1)],
            (replace(TAPS, one_host=False), replace(SMALL, classes=TPM, one_host=False)),
            {},
        ),
    ],
)
def test_jobs_that_no_fleet_can_run(
    jobs: list[Job], fleets: tuple[Fleet, ...], expected: dict[frozenset[str], int]
) -> None:
    assert unserved(see(jobs=jobs, fleets=fleets)) == expected
