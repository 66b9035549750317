"""The form of a workload file, which docs/fleet.md describes: `read` refuses any other."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

TOLD = 5  # lines of an error: a mistake in a file is often made in every row
Amount = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Clock = Annotated[str, Field(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Minutes = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
Places = list[Annotated[int, Field(ge=0)]]
COLUMNS = ("suite", "flavor", "classes", "priority", "minutes", "start after", "parallel with")
Row = tuple[str, str, Annotated[list[str], Field(min_length=1)], int, Minutes, Places, Places]


class WorkloadError(ValueError):
    """A file is not a valid workload; the message has a line for each reason."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Compose(_Table):
    kind: str
    per_day: Amount
    start_utc: list[Clock]
    hours: Amount
    triggers: list[str]


class _Arrivals(_Table):
    updates_per_day: Amount
    update_hour_weights_utc: Annotated[list[Amount], Field(min_length=24, max_length=24)]
    update_weekend_factor: Share
    update_mix: dict[str, Amount]
    update_triggers: list[str]
    retry_share: Share
    composes: list[_Compose]


class _Workload(_Table):
    model_config = ConfigDict(extra="ignore")

    flavors_of_group: dict[str, Literal["all"] | list[str]]
    arrivals: _Arrivals
    triggers: dict[str, list[Row]]


def read(path: Path) -> Mapping[str, Any]:
    """Read a workload file.

    Args:
        path: The file.

    Returns:
        Its contents, as JSON has them.

    Raises:
        WorkloadError: It cannot be read, or is not a valid workload.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        facts: Mapping[str, Any] = json.loads(text)
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        raise WorkloadError(f"{path} is not JSON: {error}") from None
    try:
        wrong = list(_problems(_Workload.model_validate_json(text)))
    except ValidationError as error:
        wrong = [_sentence(detail) for detail in error.errors()]
    if wrong:
        raise WorkloadError("\n".join(f"{path}: {one}" for one in wrong[:TOLD]))
    return facts


def _sentence(error: ErrorDetails) -> str:
    """Put pydantic's finding into words."""
    key = _key(error["loc"])
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a key of its table"
    said = "Input should be a time such as 05:15" if "pattern" in error["type"] else error["msg"]
    return f"{key} {_shown(error['input'])}: {said.replace('Input', 'it', 1).replace('List', 'it', 1)}"


def _key(location: Sequence[str | int]) -> str:
    parts = [str(part) for part in location if "[" not in str(part)]  # kinds that pydantic tried in turn
    if parts[:1] == ["triggers"] and len(parts) > 3:
        parts[3] = COLUMNS[int(parts[3])]
    return ".".join(parts) or "all"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return f"= {text if len(text) <= 60 else f'{text[:57]}...'}"


def _problems(workload: _Workload) -> Iterator[str]:
    """Tell what fits the form but makes no sense."""
    arrivals, triggers = workload.arrivals, workload.triggers
    for place, compose in enumerate(arrivals.composes):
        key = f"arrivals.composes.{place}"
        if compose.start_utc and compose.per_day > len(compose.start_utc):
            yield f"{key}.per_day = {compose.per_day:g}: it starts at most once at each time of start_utc"
        yield from _unknown(f"{key}.triggers", compose.triggers, triggers)
    yield from _unknown("arrivals.update_triggers", arrivals.update_triggers, triggers)
    yield from _unknown("arrivals.update_mix", arrivals.update_mix, workload.flavors_of_group)
    if arrivals.updates_per_day:
        for key in ("update_hour_weights_utc", "update_mix"):
            weights = getattr(arrivals, key)
            if not sum(weights.values() if isinstance(weights, dict) else weights):
                yield f"arrivals.{key}: all are 0, but there are updates_per_day"
    updates = {row[1] for name in arrivals.update_triggers for row in triggers.get(name, ())}
    for group, flavors in workload.flavors_of_group.items():
        for flavor in flavors if isinstance(flavors, list) else ():
            if f"updates-{flavor}" not in updates:
                yield f"flavors_of_group.{group} names {_shown(flavor)[2:]}: no update has updates-{flavor}"
    for name, rows in triggers.items():
        yield from _rows(f"triggers.{name}", rows)


def _unknown(key: str, names: Iterable[str], known: Mapping[str, object]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{key} names {_shown(name)[2:]}; allowed: {', '.join(known) or 'none, there are none'}"


def _rows(key: str, rows: Sequence[Row]) -> Iterator[str]:
    last = len(rows) - 1
    for place, (*_, after, parallel) in enumerate(rows):
        for column, others in zip(COLUMNS[-2:], (after, parallel), strict=True):
            for other in others:
                if other > last or other == place:
                    yield f"{key}.{place}.{column} = {other}: it should be another row, from 0 to {last}"
                    return
    first = clusters(rows, range(len(rows)))
    order: TopologicalSorter[int] = TopologicalSorter()
    for place, row in enumerate(rows):
        order.add(first.get(place, place), *(first.get(parent, parent) for parent in row[5]))
    try:
        order.prepare()
    except CycleError as error:
        yield f"{key}: the rows {', '.join(map(str, sorted({*error.args[1]})))} wait for each other"


def clusters(rows: Sequence[Any], chosen: Sequence[int]) -> dict[int, int]:
    """Find the parallel clusters.

    Args:
        rows: A trigger's rows.
        chosen: The indices of those that count.

    Returns:
        For each row in a cluster, the cluster's first row.
    """
    links: defaultdict[int, set[int]] = defaultdict(set)
    for row in chosen:
        for other in rows[row][6]:
            links[row].add(other)
            links[other].add(row)
    clusters: dict[int, int] = {}
    for row in sorted(links):
        todo = [] if row in clusters else [row]
        while todo:
            member = todo.pop()
            if member not in clusters:
                clusters[member] = row
                todo += links[member]
    return clusters
