"""The policy's own numbers, and when a fleet whose launches fail rests."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.model import Fleet


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


def why_it_rests(fleet: Fleet, now: float, rules: Rules) -> str | None:
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
