"""Where the money goes: `parts` breaks a bill down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet.model import Fleet

MINIMUM_BILLED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The life of one host; times in seconds.

    Attributes:
        fleet: The name of its fleet.
        begin: Its launch.
        up: When its workers were there; for a host that never came up, its end.
        end: The end of its bill.
        busy: How long at least one worker had a job.
        held: How long workers had jobs, summed over all workers.
        fetching: The part of `held` in which jobs waited for their assets.
    """

    fleet: str
    begin: float
    up: float
    end: float
    busy: float
    held: float
    fetching: float

    @property
    def billed(self) -> float:
        """Seconds to pay for."""
        return max(MINIMUM_BILLED_SECONDS, self.end - self.begin)


def dollars(spans: Iterable[Span], fleets: Mapping[str, Fleet]) -> float:
    """Add up what hosts cost."""
    return sum(fleets[span.fleet].price * span.billed / 3600 for span in spans)


def parts(spans: Iterable[Span], fleets: Mapping[str, Fleet]) -> dict[str, float]:
    """Break a bill down.

    Args:
        spans: The hosts.
        fleets: The fleets by name.

    Returns:
        US dollars that sum to the bill: ``work``, slots with running jobs; ``fetch``, slots whose job waits
        for its assets; ``empty``, slots without a job on hosts that have one, ``empty_tap`` on hosts for
        clusters; ``boot``, from launch until the workers are there; ``idle``, hosts without a job after that;
        ``unused``, hosts that never had a job.
    """
    sums = dict.fromkeys(("work", "fetch", "empty", "empty_tap", "boot", "idle", "unused"), 0.0)
    for span in spans:
        fleet = fleets[span.fleet]
        rate = fleet.price / 3600
        if not span.held:
            sums["unused"] += rate * span.billed
            continue
        tap = any(name.startswith("tap") for name in fleet.classes)
        sums["work"] += rate / fleet.slots * (span.held - span.fetching)
        sums["fetch"] += rate / fleet.slots * span.fetching
        sums["empty_tap" if tap else "empty"] += rate * (span.busy - span.held / fleet.slots)
        sums["boot"] += rate * (span.up - span.begin)
        sums["idle"] += rate * (span.billed - (span.up - span.begin) - span.busy)
    return sums
