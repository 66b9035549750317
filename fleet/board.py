"""The slots of a fleet on a time line: when each is expected to be free, and what is planned on it.

A plan places jobs as openQA will (`fleet.openqa`), but ahead in time: a slot is free now, when its host has
booted, or when its job is expected to end. Taking a slot costs O(log slots); a cluster that must be on one
host looks at each host, and once one finds no place, none of its kind looks again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain

from fleet.openqa import Classes, Unit


@dataclass(slots=True)
class Place:
    """A host, there or to be launched.

    Attributes:
        host: Its id; empty for one that is only planned.
        classes: What its workers offer.
        one_host: Its workers take whole clusters only.
        free_at: For each slot, when it is free: seconds since the epoch.
        used: Jobs planned on it.
    """

    host: str
    classes: Classes
    one_host: bool
    free_at: list[float]
    used: int = 0


@dataclass(slots=True)
class Board:
    """Places, and their slots in the order in which they become free.

    Attributes:
        until: Slots that are free later than this are of no interest.
        places: In order of preference: where two slots are free at once, the earlier place's is taken.
    """

    until: float
    places: list[Place] = field(default_factory=list)
    _heaps: dict[Classes, list[tuple[float, int, int]]] = field(default_factory=dict)
    _suiting: dict[Classes, list[Classes]] = field(default_factory=dict)
    _hopeless: dict[Classes, int] = field(default_factory=lambda: defaultdict(lambda: 1 << 30))

    def add(self, place: Place) -> None:
        """Add a place, after those that are there."""
        if place.classes not in self._heaps:
            self._heaps[place.classes] = []
            self._suiting.clear()
        heap = self._heaps[place.classes]
        index = len(self.places)
        self.places.append(place)
        self._hopeless.clear()
        for slot, time in enumerate(place.free_at):
            if time <= self.until:
                heappush(heap, (time, index, slot))

    def start(self, place: Place, units: Iterable[Sequence[float]]) -> None:
        """Add a new host and plan units on it.

        Args:
            place: The host; all its slots are free at the same time.
            units: For each unit the seconds that its jobs hold their slots; together no more than it has.
        """
        index, up = len(self.places), place.free_at[0]
        self.add(place)
        for slot, seconds in enumerate(chain.from_iterable(units)):
            self._hold(index, slot, up + seconds)

    def take(
        self, unit: Unit, seconds: Sequence[float], *, ready: float, limit: float
    ) -> tuple[float, str] | None:
        """Plan a unit on the slots that are free first.

        Args:
            unit: What to start.
            seconds: For each of its jobs, how long it will hold its slot.
            ready: It cannot start earlier than this.
            limit: It shall not start later than this.

        Returns:
            When it will start, and on which host; None if it cannot by the limit: nothing is planned then.
        """
        if unit.size > 1:
            return self._take_cluster(unit, seconds, ready, limit)
        heap = self._first(unit.classes, ready)
        if heap is None:
            return None
        time, index, slot = heap[0]
        start = max(time, ready)
        if start > limit:
            return None
        heappop(heap)
        self._hold(index, slot, start + seconds[0])
        return start, self.places[index].host

    def _first(self, classes: Classes, ready: float) -> list[tuple[float, int, int]] | None:
        best, best_time = None, 0.0
        for heap in self._pools(classes):
            while heap and self.places[heap[0][1]].free_at[heap[0][2]] != heap[0][0]:
                heappop(heap)
            # Pools come with the fewest classes first: what is special stays free if it can.
            if heap and (best is None or max(heap[0][0], ready) < best_time):
                best, best_time = heap, max(heap[0][0], ready)
        return best

    def _pools(self, classes: Classes) -> list[list[tuple[float, int, int]]]:
        if classes not in self._suiting:
            suiting = [pool for pool in self._heaps if classes <= pool]
            self._suiting[classes] = sorted(suiting, key=lambda pool: (len(pool), sorted(pool)))
        return [self._heaps[pool] for pool in self._suiting[classes]]

    def _hold(self, index: int, slot: int, until: float) -> None:
        place = self.places[index]
        place.free_at[slot] = until
        place.used += 1
        if until <= self.until:
            heappush(self._heaps[place.classes], (until, index, slot))

    def _take_cluster(
        self, unit: Unit, seconds: Sequence[float], ready: float, limit: float
    ) -> tuple[float, str] | None:
        size = unit.size
        if size >= self._hopeless[unit.classes]:
            return None
        best: tuple[float, int] | None = None
        for index, place in enumerate(self.places):
            if len(place.free_at) < size or not unit.classes <= place.classes:
                continue
            start = max(sorted(place.free_at)[size - 1], ready)
            if start <= limit and (best is None or start < best[0]):
                best = (start, index)
        if best is None:
            self._hopeless[unit.classes] = size
            return None
        start, index = best
        slots = sorted(range(len(self.places[index].free_at)), key=self.places[index].free_at.__getitem__)
        for slot, duration in zip(slots, seconds, strict=False):
            self._hold(index, slot, start + duration)
        return start, self.places[index].host
