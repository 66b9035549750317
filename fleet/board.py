"""The slots of the hosts on a time line: when each is expected to be free, and what is planned on it.

A plan places jobs as openQA will (`fleet.openqa_scheduler`), but ahead in time: a slot is free now, when its
host has booted, or when its job is expected to end. Of the slots that are free first, a job takes the one
whose host costs least to keep for it. openQA would choose by chance, but which workers take jobs is up to
the policy.

Finding a place means looking at each host; where a job finds none, no other of its kind looks again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from fleet.openqa_scheduler import Classes, Unit


@dataclass(slots=True)
class Place:
    """A host, there or to be launched.

    Attributes:
        host: Its id; empty for one that is only planned.
        classes: What its workers offer.
        price: What it costs an hour, in US dollars.
        free_at: For each slot, when it is free: seconds since the epoch.
        end: When it is expected to be empty.
        boots: It is still booting and has no job yet.
        thrifty: It takes no job that would keep it much longer (`Board.thrift`).
        used: Jobs planned on it.
        begun: Jobs planned on it that start as soon as they can.
    """

    host: str
    classes: Classes
    price: float
    free_at: list[float]
    end: float
    boots: bool = False
    thrifty: bool = False
    used: int = 0
    begun: int = 0


@dataclass(slots=True)
class Board:
    """Places, and what is planned on them.

    Attributes:
        thrift: A thrifty place is not taken if this times the cost of keeping it longer exceeds a new host's.
        places: The hosts.
    """

    thrift: float
    places: list[Place] = field(default_factory=list)
    _suiting: dict[Classes, list[Place]] = field(default_factory=dict)
    _hopeless: dict[tuple[Classes, int, int, bool], float] = field(default_factory=dict)

    def add(self, place: Place) -> None:
        """Add a place."""
        self.places.append(place)
        for classes, places in self._suiting.items():
            if classes <= place.classes:
                places.append(place)
        self._hopeless.clear()

    def start(self, place: Place, units: Iterable[Sequence[float]]) -> None:
        """Add a new host and plan units on it.

        Args:
            place: The host; all its slots are free at the same time.
            units: For each unit the seconds that its jobs hold their slots; together no more than it has.
        """
        up = place.free_at[0]
        self.add(place)
        for slot, seconds in enumerate(chain.from_iterable(units)):
            self._hold(place, slot, up + seconds)

    def take(
        self,
        unit: Unit,
        seconds: Sequence[float],
        *,
        ready: float,
        limit: float,
        anew: float,
        impatient: bool,
    ) -> tuple[float, Place] | None:
        """Plan a unit on the slots that are free first; among equals, on the host that costs least to keep.

        Args:
            unit: What to start.
            seconds: For each of its jobs, how long it will hold its slot.
            ready: It cannot start earlier than this.
            limit: It shall not start later than this.
            anew: What a new host for it would cost, in dollars.
            impatient: It waits for hosts that boot, but not for busy workers.

        Returns:
            When it will start, and where; None if it cannot start by the limit: then nothing is planned.
        """
        size, longest = len(seconds), max(seconds)
        # Where a job of about this length found no place, the next one finds none either.
        kind = (unit.classes, size, int(4 * math.log2(max(1.0, longest))), impatient)
        if limit <= self._hopeless.get(kind, -math.inf):
            return None
        best: tuple[float, float, int, float] | None = None
        chosen: Place | None = None
        for place in self._suits(unit.classes):
            free_at = place.free_at
            if size == 1:
                free = min(free_at)
            elif size <= len(free_at):
                free = sorted(free_at)[size - 1]
            else:
                continue
            start = free if free > ready else ready
            if start > limit or (best is not None and start > best[0]):
                continue
            if impatient and start > ready and not place.boots:
                continue
            longer = place.price * max(0.0, start + longest - max(place.end, start)) / 3600
            if place.thrifty and self.thrift * longer > anew:
                continue
            key = (start, longer, len(place.classes), abs(place.end - start - longest))
            if best is None or key < best:
                best, chosen = key, place
        if best is None or chosen is None:
            self._hopeless[kind] = max(limit, self._hopeless.get(kind, -math.inf))
            return None
        start = best[0]
        slots = sorted(range(len(chosen.free_at)), key=chosen.free_at.__getitem__)
        for slot, duration in zip(slots, seconds, strict=False):
            self._hold(chosen, slot, start + duration)
        return start, chosen

    def _suits(self, classes: Classes) -> list[Place]:
        if classes not in self._suiting:
            self._suiting[classes] = [place for place in self.places if classes <= place.classes]
        return self._suiting[classes]

    def _hold(self, place: Place, slot: int, until: float) -> None:
        place.free_at[slot] = until
        place.end = max(place.end, until)
        place.used += 1
