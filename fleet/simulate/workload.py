"""Jobs over time, generated from a workload file: what is tested, how often, how long it takes.

`fedora.json` holds Fedora's workload. What it cannot say is estimated in the constants here: how job times
scatter, how large assets are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from fleet.openqa_scheduler import Classes
from fleet.simulate import form

FEDORA = Path(__file__).parent.parent / "workload" / "fedora.json"

DAY = 86400.0
HOUR = 3600.0
SCATTER = 0.25  # standard deviation of the logarithm of a job's time around its scenario's usual time
OVERHEAD_SECONDS = 30.0  # for openQA to hand over a job, and for its results to be uploaded
GB = 1e9
# Bytes that a job needs besides what its parent leaves, by the end of its flavor's name. Estimated from the
# sizes of Fedora's published images, and of the disk images that update tests start from.
ASSETS = {
    "boot-iso": 1.0 * GB,
    "dvd-iso": 2.9 * GB,
    "dvd_ostree-iso": 3.2 * GB,
    "live-iso": 2.5 * GB,
    "colive-iso": 1.0 * GB,
    "qcow2": 0.5 * GB,
    "raw.xz": 1.5 * GB,
    "universal": 2.9 * GB,
}
DISK_IMAGE = 1.5 * GB  # for all other flavors: a disk image that stays the same for days
LEFT_BY_PARENT = 2.0 * GB  # the disk image or ISO that a parent job uploads for its children


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A job as it will happen.

    Attributes:
        id: Its number; later jobs have higher ones.
        classes: The worker classes it asks for.
        priority: Lower numbers go first.
        cluster: The same number for all jobs of a parallel cluster; None for a job on its own.
        parents: Ids of the jobs that must be done before.
        seconds: How long it will hold a worker once its assets are there.
        fails_after: The seconds after which it fails, to be run once more; None if it passes.
        expected_seconds: How long such jobs usually take.
        assets: What it needs: name and bytes.
    """

    id: int
    classes: Classes
    priority: int
    cluster: int | None
    parents: tuple[int, ...]
    seconds: float
    fails_after: float | None
    expected_seconds: float
    assets: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Post:
    """Jobs that are scheduled at once.

    Attributes:
        time: When, in seconds from the start, which is a Monday at 00:00 UTC.
        tasks: The jobs.
    """

    time: float
    tasks: tuple[Task, ...]


def generate(
    *, workload: Path = FEDORA, days: float, seed: int, load: int = 1, architecture: str | None = None
) -> list[Post]:
    """Generate the jobs of some days.

    Args:
        workload: The workload file.
        days: How many days.
        seed: The same seed gives the same jobs.
        load: The factor by which to multiply the workload's arrivals.
        architecture: Only the triggers of this architecture; None for all.

    Returns:
        What is scheduled, in the order of time.

    Raises:
        WorkloadError: The file is not a valid workload, or has nothing for the architecture.
    """
    facts = form.read(workload)
    random = Random(f"{seed} arrivals")  # noqa: S311
    ends = "" if architecture is None else f"-{architecture}"
    if not any(name.endswith(ends) for name in facts["triggers"]):
        names = ", ".join(facts["triggers"]) or "none"
        raise form.WorkloadError(f"{workload} has no trigger that ends in {ends}; its triggers: {names}")
    posts: list[Post] = []
    count = 0
    for number, (time, trigger, flavors) in enumerate(
        sorted(_arrivals(facts, days, load, random), key=_when)
    ):
        if trigger.endswith(ends):
            # Its own random numbers, so that nothing else that is generated changes them.
            details = Random(f"{seed} {number}")  # noqa: S311
            tasks = _tasks(facts, trigger, flavors, count, number, details)
            count += len(tasks)
            if tasks:
                posts.append(Post(time, tasks))
    return posts


Arrival = tuple[float, str, Sequence[str] | None]


def _when(arrival: Arrival) -> tuple[float, str]:
    return arrival[0], arrival[1]


def _arrivals(facts: Mapping[str, Any], days: float, load: int, random: Random) -> Iterator[Arrival]:
    arrivals = facts["arrivals"]
    for day in range(int(days + 1)):
        for compose in arrivals["composes"]:
            for time in _starts(compose, load, random):
                at = day * DAY + time + compose["hours"] * HOUR * random.uniform(0.9, 1.1)
                if at < days * DAY:
                    yield from ((at, trigger, None) for trigger in compose["triggers"])
    mix = arrivals["update_mix"]
    for time in _updates(arrivals, days, load, random):
        group = random.choices(list(mix), list(mix.values()))[0]
        chosen = facts["flavors_of_group"][group]
        flavors = None if chosen == "all" else [f"updates-{flavor}" for flavor in chosen]
        yield from ((time, trigger, flavors) for trigger in arrivals["update_triggers"])


def _starts(compose: Mapping[str, Any], load: int, random: Random) -> Iterator[float]:
    """The times of a day at which one kind of compose starts, in seconds."""
    clock = [_seconds(text) for text in compose["start_utc"]]
    for number in range(load):
        shift = number * random.uniform(0, 3 * HOUR)
        if clock:
            share = compose["per_day"] / len(clock)
            yield from (time + shift for time in clock if random.random() < share)
        else:
            for _ in range(int(compose["per_day"] + random.random())):
                yield random.uniform(0, DAY)


def _seconds(clock: str) -> float:
    hours, minutes = clock.split(":")
    return int(hours) * HOUR + int(minutes) * 60


def _updates(arrivals: Mapping[str, Any], days: float, load: int, random: Random) -> Iterator[float]:
    """A Poisson process whose rate follows the hour of the day and the weekend."""
    if not arrivals["updates_per_day"]:
        return
    weights = arrivals["update_hour_weights_utc"]
    weekend = arrivals["update_weekend_factor"]
    per_weekday = load * arrivals["updates_per_day"] * 7 / (5 + 2 * weekend)
    peak = per_weekday * max(weights) / sum(weights) / HOUR
    time = random.expovariate(peak)
    while time < days * DAY:
        rate = weights[int(time / HOUR) % 24] / max(weights)
        if random.random() < rate * (weekend if int(time / DAY) % 7 >= 5 else 1):
            yield time
        time += random.expovariate(peak)


def _tasks(
    facts: Mapping[str, Any],
    trigger: str,
    flavors: Sequence[str] | None,
    first: int,
    number: int,
    random: Random,
) -> tuple[Task, ...]:
    rows = facts["triggers"][trigger]
    chosen = [row for row, facts_of in enumerate(rows) if flavors is None or facts_of[1] in flavors]
    ids = {row: first + place for place, row in enumerate(chosen)}
    clusters = form.clusters(rows, chosen)
    uploads = {parent for row in chosen for parent in rows[row][5]}
    tasks = []
    for row in chosen:
        _, flavor, classes, priority, minutes, after, _ = rows[row]
        cluster = clusters.get(row)
        parents = tuple(ids[parent] for parent in after if parent in ids)
        expected = minutes * 60 + OVERHEAD_SECONDS
        seconds = expected * random.lognormvariate(0, SCATTER)
        # A member of a cluster is not retried alone; its failure changes nothing for the fleet.
        fails = cluster is None and random.random() < facts["arrivals"]["retry_share"]
        tasks.append(
            Task(
                id=ids[row],
                classes=frozenset(classes),
                priority=priority,
                cluster=None if cluster is None else ids[cluster],
                parents=parents,
                seconds=seconds,
                fails_after=seconds * random.uniform(0.2, 1) if fails else None,
                expected_seconds=expected,
                assets=_assets(trigger, number, flavor, [parent for parent in after if parent in uploads]),
            )
        )
    return tuple(tasks)


def _assets(trigger: str, number: int, flavor: str, parents: Sequence[int]) -> tuple[tuple[str, float], ...]:
    left = [(f"{number}/{parent}", LEFT_BY_PARENT) for parent in parents]
    for end, size in ASSETS.items():
        if flavor.endswith(end):
            update = flavor.startswith("updates-")
            # An update's medium is built by a parent job; a compose's is the compose's own.
            return (*left, *([] if update else [(f"{number}/{flavor}", size)]))
    return (*left, (f"{trigger}/{flavor}", DISK_IMAGE))
