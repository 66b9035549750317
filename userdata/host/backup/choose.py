"""Which backup a restore starts from, and when the next one is due. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from userdata.host.backup import names
from userdata.host.backup.manifests import Base, moment
from userdata.host.errors import HostError

# Base backups are taken at night, in UTC.
HOUR = time(2, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """What to restore.

    Attributes:
        time: restore the state at this time; None: the latest.
        timeline: the timeline to follow; None: the one last written to.
    """

    time: datetime | None = None
    timeline: int | None = None


@dataclass(frozen=True)
class Lineage:
    """A timeline and its ancestors.

    Attributes:
        timeline: the timeline.
        ends: by ancestor, the position in bytes at which the next timeline branched off.
    """

    timeline: int
    ends: Mapping[int, int]

    def has(self, base: Base) -> bool:
        """Returns whether a base backup lies on it."""
        if base.timeline == self.timeline:
            return True
        return base.timeline in self.ends and names.position(base.stop) <= self.ends[base.timeline]


def parse_target(text: str, *, timeline: int | None = None) -> Target:
    """Parses what an operator asks for.

    Args:
        text: ``latest``, or an ISO 8601 time with its zone.
        timeline: the timeline to follow; None: the newest.

    Raises:
        HostError: it is neither.
    """
    if timeline is not None and timeline < 1:
        raise HostError(f"--timeline {timeline}: timelines are counted from 1")
    if text == "latest":
        return Target(timeline=timeline)
    try:
        return Target(time=moment(text), timeline=timeline)
    except (ValueError, OverflowError) as error:
        raise HostError(
            f"--to {text}: neither 'latest' nor a time with its zone such as 2026-01-31T03:00:00Z"
        ) from error


def parse_history(timeline: int, text: str) -> Lineage:
    """Parses a timeline's history file: lines of ancestor, position and reason.

    Raises:
        HostError: it is malformed.
    """
    ends = {}
    for line in text.splitlines():
        words = line.split("\t")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            ends[int(words[0])] = names.position(words[1])
        except (IndexError, ValueError) as error:
            raise HostError(f"the history of timeline {timeline} is malformed: {line!r}") from error
    return Lineage(timeline, ends)


def candidates(bases: Iterable[Base], target: Target, lineages: Mapping[str, Lineage]) -> list[Base]:
    """Returns the base backups that a restore may start from, the best first.

    They are all of one cluster: the one with the newest of them.

    Args:
        bases: all base backups.
        target: what to restore.
        lineages: the timeline to follow, by system identifier.
    """
    found = sorted(
        (
            base
            for base in bases
            if (target.time is None or base.end <= target.time)
            and base.system in lineages
            and lineages[base.system].has(base)
        ),
        key=lambda base: base.end,
        reverse=True,
    )
    return [base for base in found if base.system == found[0].system]


def is_due(ends: Sequence[datetime], failed: Sequence[datetime], now: datetime) -> bool:
    """Returns whether a base backup is due.

    After a failure the next attempt waits an hour longer each time: what a failed one wrote stays, and costs.

    Args:
        ends: when the base backups of this cluster and timeline finished.
        failed: when this cluster's failed ones since the last complete one began.
        now: the current time.
    """
    last = datetime.combine(now.astimezone(UTC).date(), HOUR)
    if last > now:
        last -= timedelta(days=1)
    tried = [began for began in failed if began >= last]
    pause = timedelta(hours=len(tried))
    return not any(end >= last for end in ends) and all(now - began >= pause for began in tried)
