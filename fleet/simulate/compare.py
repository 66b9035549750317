"""Several policies on the same load: what they cost, how long jobs wait."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.openqa_scheduler import Classes
from fleet.simulate import policies
from fleet.simulate.parts import Span, parts
from fleet.simulate.policies import Policy
from fleet.simulate.progress import Progress
from fleet.simulate.scenario import WEBUI, Scenario, scenario
from fleet.simulate.workload import DAY, Post
from fleet.simulate.world import Outcome, play
from fleet.warm import Warm

SIMULATED = ("ours", "count-based", "target-tracking", "static")
IDEALS = ("clairvoyant", "clairvoyant-patient", "floor")
# Fedora's own fleet: on x86_64 a plain, a tap and a tap2 host with 60 workers each, on aarch64 one with 60.
STATIC_SLOTS = 60
SLOWEST_NESTED_BOOT = 600.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to run.

    Attributes:
        architecture: ``x86_64`` or ``aarch64``.
        boot_seconds: From launch to the first job; a long time means metal.
        load: The factor by which to multiply the workload's arrivals.
        spot_mean_hours: Mean time to an interruption of spot hosts; None for on-demand hosts.
        warm: Times at which hosts are wanted beforehand, by fleet.
        spare: The share of spare slots to launch, by fleet.
        webui: The instance type of the web UI's host, from which all fetch.
    """

    architecture: str
    boot_seconds: float
    load: int = 1
    spot_mean_hours: float | None = None
    warm: Mapping[str, Sequence[Warm]] = field(default_factory=dict)
    spare: Mapping[str, float] = field(default_factory=dict)
    webui: str = WEBUI

    @property
    def metal(self) -> bool:
        """Whether hosts are metal: no nested host takes so long to boot."""
        return self.boot_seconds > SLOWEST_NESTED_BOOT

    @property
    def scenario(self) -> Scenario:
        """The fleets there."""
        world = scenario(
            architecture=self.architecture,
            boot_seconds=self.boot_seconds,
            metal=self.metal,
            webui=self.webui,
        )
        fleets = tuple(replace(fleet, spare=self.spare.get(fleet.name)) for fleet in world.fleets)
        return replace(world, fleets=fleets, spot_mean_hours=self.spot_mean_hours, warm=self.warm)

    @property
    def chosen(self) -> Mapping[Classes, str]:
        """For each queue, the fleet that is cheapest when counting: ``python -m bench.fleet --choose``."""
        names = CHOSEN[self.architecture, self.metal]
        queues = (frozenset[str](), frozenset({"tap"}), frozenset({"tap2"}))
        return dict(zip(queues, names, strict=True))


CHOSEN = {
    ("x86_64", False): ("plain-1", "tap-8", "tap2-4"),
    ("x86_64", True): ("plain-48", "tap-48", "tap2-48"),
    ("aarch64", False): ("arm-8", "arm-1", "arm-4"),
    ("aarch64", True): ("arm-4", "arm-4", "arm-32"),
}


def policy(name: str, place: Place) -> Policy:
    """Make a policy by name.

    Args:
        name: One of `SIMULATED`.
        place: Where it is to run.

    Returns:
        The policy, with the fleets that suit it there.
    """
    if name == "ours":
        return policies.ours()
    if name == "count-based":
        return policies.count_based(place.chosen)
    if name == "target-tracking":
        return policies.target_tracking(place.chosen)
    slots = {fleet.name: fleet.slots for fleet in place.scenario.fleets}
    return policies.static(
        {fleet: math.ceil(STATIC_SLOTS / slots[fleet]) for fleet in set(place.chosen.values())}
    )


def run(
    name: str,
    place: Place,
    posts: Sequence[Post],
    *,
    seed: int,
    days: float,
    sample_seconds: float | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Play one policy; after the days it has as long again and a day to finish, without warm hosts."""
    until = days * DAY if name == "static" else 2 * days * DAY + DAY
    return play(
        place.scenario,
        posts,
        policy(name, place),
        seed=seed,
        until=until,
        warm_until=days * DAY,
        sample_seconds=sample_seconds,
        progress=progress,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def bill(spans: Sequence[Span], place: Place) -> dict[str, float]:
    """The parts of a bill in dollars, as `parts` names them."""
    fleets = {fleet.name: fleet for fleet in place.scenario.fleets}
    return {f"dollars_{name}": round(dollars, 2) for name, dollars in parts(spans, fleets).items()}


def summary(outcome: Outcome, place: Place) -> dict[str, float]:
    """The numbers of an outcome that matter, waits in seconds."""
    return {
        "dollars": round(outcome.dollars, 2),
        "wait_p50": round(percentile(outcome.waits, 0.50), 1),
        "wait_p95": round(percentile(outcome.waits, 0.95), 1),
        "wait_p99": round(percentile(outcome.waits, 0.99), 1),
        "wait_longest": round(max(outcome.waits, default=0.0), 1),
        "cluster_wait_p95": round(percentile(outcome.cluster_waits, 0.95), 1),
        "setup_mean": round(sum(outcome.setups) / max(1, len(outcome.setups)), 1),
        "fetched_gb": round(outcome.fetched / 1e9),
        "work_hours": round(sum(span.held for span in outcome.spans) / 3600, 1),
        "launches": outcome.launches,
        "killed": outcome.killed,
        "interrupted": outcome.interrupted,
        "unfinished": outcome.unfinished,
        **bill(outcome.spans, place),
    }
