"""Why what was seen cannot be acted on: `find_fault`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fleet.model import Fleet, Host, Seen
from fleet.openqa_scheduler import Job
from fleet.rules import DEFAULT_RULES, Rules


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
