"""Other ways to scale a fleet, for comparison: each a function from the same `Seen` to the same `Decision`.

None of them kills a job either: they release hosts that have been idle for a while.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet import policy
from fleet.model import Decision, Host, Seen, State
from fleet.openqa_scheduler import Classes
from fleet.rules import DEFAULT_RULES, Rules

TAP = frozenset({"tap", "tap2"})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy and how often it looks.

    Attributes:
        decide: What it does.
        interval: Seconds from one look to the next.
    """

    decide: Callable[[Seen], Decision]
    interval: float


def ours(rules: Rules = DEFAULT_RULES) -> Policy:
    """This project's policy: `fleet.policy.decide`, every two seconds."""
    return Policy(decide=lambda seen: policy.decide(seen, rules), interval=2.0)


def static(hosts: Mapping[str, int]) -> Policy:
    """The same hosts always.

    Args:
        hosts: How many of each fleet.
    """
    return Policy(
        decide=lambda seen: Decision(desired={f.name: hosts.get(f.name, 0) for f in seen.fleets}),
        interval=60.0,
    )


def count_based(chosen: Mapping[Classes, str], *, idle_seconds: float = 600.0) -> Policy:
    """Like Buildkite's agent scaler: desired = ceil((scheduled + running) / slots), idle hosts go.

    Looks every ten seconds and counts jobs that are not blocked. It only adds hosts; a host without a job for
    ``idle_seconds`` goes by itself. (buildkite-agent-scaler's scaling calculator and its README;
    elastic-ci-stack's ``ScaleInIdlePeriod``.)

    Args:
        chosen: For the classes of jobs, the fleet that serves them: one queue each. `queue_of` finds it.
        idle_seconds: How long a host stays without a job.
    """

    def decide(seen: Seen) -> Decision:
        wanted = _demand(seen, chosen)
        have = Counter(host.fleet for host in seen.hosts if host.state is not State.DRAINING)
        released = [host for host in seen.hosts if _idle(host, seen.now, idle_seconds)]
        gone = Counter(host.fleet for host in released)
        desired = {}
        for fleet in seen.fleets:
            need = min(fleet.max, math.ceil(wanted[fleet.name] / fleet.slots))
            desired[fleet.name] = max(need, have[fleet.name] - gone[fleet.name])
        return Decision(desired=desired, release=tuple(host.id for host in released))

    return Policy(decide=decide, interval=10.0)


def target_tracking(chosen: Mapping[Classes, str], *, idle_seconds: float = 900.0) -> Policy:
    """Target tracking on the backlog per host, as Auto Scaling offers it: a step every minute.

    Keeps (scheduled + running) / hosts at the slots of a host. Adds missing hosts at once, and releases one
    idle host at a time after fifteen idle minutes, which stand for the fifteen samples of its scale-in alarm.

    Args:
        chosen: As for `count_based`.
        idle_seconds: How long a host is idle before it may go.
    """

    def decide(seen: Seen) -> Decision:
        wanted = _demand(seen, chosen)
        desired, release = {}, []
        for fleet in seen.fleets:
            hosts = [h for h in seen.hosts if h.fleet == fleet.name and h.state is not State.DRAINING]
            need = min(fleet.max, math.ceil(wanted[fleet.name] / fleet.slots))
            idle = [host for host in hosts if _idle(host, seen.now, idle_seconds)]
            if len(hosts) > need and idle:
                release.append(min(idle, key=lambda host: host.launched).id)
            desired[fleet.name] = max(need, len(hosts) - bool(len(hosts) > need and idle))
        return Decision(desired=desired, release=tuple(release))

    return Policy(decide=decide, interval=60.0)


def queue_of(classes: Classes) -> Classes:
    """The queue of a job for policies that do not know about classes: by its tap class."""
    return frozenset(sorted(classes & TAP)[:1])


def _demand(seen: Seen, chosen: Mapping[Classes, str]) -> Counter[str]:
    """Jobs that wait or run, by fleet. Running ones are counted where they run, if that is a chosen fleet."""
    demand: Counter[str] = Counter(chosen[queue_of(job.classes)] for job in seen.jobs if not job.after)
    for host in seen.hosts:
        demand[host.fleet] += len(host.running)
    return demand


def _idle(host: Host, now: float, seconds: float) -> bool:
    return (
        host.state is State.READY
        and not host.running
        and host.idle_since is not None
        and now - host.idle_since >= seconds
    )
