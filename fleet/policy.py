"""What the fleets shall do, as a pure function of what was seen: `decide`.

The same input gives the same answer. The controller acts on it every few seconds; the simulator plays weeks
with it. Needs only the standard library.

How it decides:

1. *Look.* If what was seen is stale, contradicts itself or makes no sense, nothing changes.
2. *Plan.* All waiting jobs are placed on the present slots, in openQA's order, ahead in time: slots free now,
   slots of hosts that boot, slots whose job will have ended before a new host could be up; among equals, the
   slot whose host costs least to keep (`fleet.board`). A slot is left alone if keeping its host for the job
   would cost much more than a new host. Then come the chained jobs whose parents will be done by then.
3. *Launch* for what found no place, whole clusters first, in the fleet where an hour of work is cheapest
   (`Plan._cheapest`), and some spare hosts where many boot: the first to come up serve.
4. *Close* the workers of hosts that further jobs would keep longer, except those on which something is
   planned now (`Plan._open`): openQA deals jobs out at random, so a large host would otherwise never be
   empty.
5. *Release* idle hosts on which nothing is planned, and only those: a host with a job is never released.
   *Drain* busy hosts whose launch template is old: first one, then all others once a host of the new template
   has come up.

Where all hosts are large and boot slowly (metal), what is launched for one job serves many later ones: such
*roomy* hosts are chosen, launched and kept with those in mind (`Rules.linger_roomy`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from fleet.faults import find_fault
from fleet.model import Decision, Fleet, Host, Seen, State
from fleet.openqa_scheduler import Classes, Unit, units
from fleet.plan import Plan
from fleet.rules import DEFAULT_RULES, Rules, why_it_rests


def decide(seen: Seen, rules: Rules = DEFAULT_RULES) -> Decision:
    """Decide what the fleets shall do.

    Args:
        seen: What was seen.
        rules: The policy's numbers.

    Returns:
        What to do; if what was seen cannot be relied on, to do nothing, and why.
    """
    unusable = find_fault(seen, rules)
    staying = Counter(host.fleet for host in seen.hosts if host.state is not State.DRAINING)
    if unusable:
        desired = {fleet.name: staying[fleet.name] for fleet in seen.fleets} if _countable(seen) else {}
        return Decision(desired=desired, unusable=unusable)
    going = _replaced(seen, rules)
    hosts = [_meant(host, host.id in going) for host in seen.hosts]
    drain = tuple(host.id for host in seen.hosts if host.id in going and host.running)
    return replace(Plan(replace(seen, hosts=hosts), rules).decision(), drain=drain)


def unserved(seen: Seen) -> Counter[Classes]:
    """Count, by classes, the waiting jobs that no fleet can run as it is.

    No fleet has all their classes, or none that has them has slots for a whole cluster, or its ``max`` is 0.
    """
    fleets = [fleet for fleet in seen.fleets if fleet.max]
    found: Counter[Classes] = Counter()
    for unit in units(job for job in seen.jobs if not job.after):
        whole = any(unit.classes <= fleet.classes and unit.size <= fleet.slots for fleet in fleets)
        if not whole and not _runs_apart(unit, fleets):
            found[unit.classes] += unit.size
    return found


def _runs_apart(unit: Unit, fleets: Iterable[Fleet]) -> bool:
    """Tell whether the jobs of a cluster can run on several hosts."""
    apart = [fleet.classes for fleet in fleets if not fleet.one_host]
    return all(any(job.classes <= classes for classes in apart) for job in unit.jobs)


def _meant(host: Host, goes: bool) -> Host:
    """Return a host as the plan shall see it: taking no jobs if it goes, and not as old if it stays."""
    if goes and host.running:
        return replace(host, state=State.DRAINING)
    return replace(host, outdated=False) if _is_old(host) and not goes else host


def _is_old(host: Host) -> bool:
    """Tell whether a host in service has an old launch template."""
    return host.outdated and host.state is State.READY


def _replaced(seen: Seen, rules: Rules) -> set[str]:
    """Choose the hosts that go now because their launch template is old; the others stay as if it were new.

    Hosts of a new template may never come up. So one goes first, and no other if since then no host could be
    launched or none came up; the others go once a host of the new template is in service.
    """
    going: set[str] = set()
    for fleet in seen.fleets:
        hosts = [host for host in seen.hosts if host.fleet == fleet.name]
        old = [host for host in hosts if _is_old(host)]
        if not old or why_it_rests(fleet, seen.now, rules):
            continue
        if any(host.state is State.READY and not host.outdated for host in hosts):
            going.update(host.id for host in old)
        elif not _troubled(fleet, seen.now, rules) and all(host.state is State.READY for host in hosts):
            going.add(min(old, key=lambda host: (_end(host, rules), host.id)).id)
    return going


def _troubled(fleet: Fleet, now: float, rules: Rules) -> bool:
    """Tell whether the hosts last wanted of a fleet have not come up."""
    troubles = (fleet.last_failure if fleet.failures else None, fleet.no_capacity_at)
    return any(at is not None and now - at < rules.trouble_seconds for at in troubles)


def _end(host: Host, rules: Rules) -> float:
    """When a host will be done with its jobs, if all take their usual time; 0 if it has none."""
    usual = rules.unknown_seconds
    return max((r.since + (r.expected_seconds or usual) for r in host.running), default=0.0)


def _countable(seen: Seen) -> bool:
    return len({host.id for host in seen.hosts}) == len(seen.hosts)
