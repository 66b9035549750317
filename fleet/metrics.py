"""What the controller tells CloudWatch once a minute: the queue, the slots, the cost, and its own state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.facts import namespace
from fleet.model import Decision, State
from fleet.openqa_scheduler import Classes
from fleet.policy import unserved
from fleet.rules import DEFAULT_RULES
from fleet.view import View

# How many sets of worker classes get a metric of their own: each metric costs money.
MOST_CLASSES = 20
_BATCH = 500  # PutMetricData takes 1000
_UNITS = {"OldestWait": "Seconds", "CostPerHour": "None"}

Datum = Mapping[str, Any]


def of_view(view: View, decision: Decision) -> list[Datum]:
    """The metrics of a moment that made sense."""
    seen = view.seen
    waiting = [job for job in seen.jobs if not job.after]
    queue: Counter[Classes] = Counter(job.classes for job in waiting)
    broken = {fleet.name: fleet.failures >= DEFAULT_RULES.breaker_failures for fleet in seen.fleets}
    without_capacity = {name for name in decision.held if not broken[name]}
    data = [
        _datum("JobsWaiting", len(waiting)),
        _datum("JobsBlocked", len(seen.jobs) - len(waiting)),
        _datum("OldestWait", max((seen.now - job.since for job in waiting), default=0.0)),
        _datum("JobsUnserved", unserved(seen).total()),
        _datum("CostPerHour", sum(view.hourly.values())),
        _datum("BreakersOpen", sum(broken.values())),
        _datum("FleetsWithoutCapacity", len(without_capacity)),
        _datum("HostsLost", len(view.lost)),
    ]
    data += [
        _datum("JobsWaiting", count, Classes="+".join(sorted(classes)).strip(" ") or "none")
        for classes, count in queue.most_common(MOST_CLASSES)
    ]
    for fleet in seen.fleets:
        hosts = [host for host in seen.hosts if host.fleet == fleet.name]
        ready = [host for host in hosts if host.state is State.READY]
        busy = sum(len(host.running) for host in hosts)
        numbers: dict[str, float] = {
            "SlotsBusy": busy,
            "SlotsIdle": sum(max(0, fleet.slots - host.unfit - len(host.running)) for host in ready),
            "SlotsUnfit": sum(host.unfit for host in ready),
            "HostsBooting": sum(host.state is State.BOOTING for host in hosts),
            "HostsReady": len(ready),
            "HostsDraining": sum(host.state is State.DRAINING for host in hosts),
            "HostsWanted": decision.desired.get(fleet.name, 0),
            "BreakerOpen": float(broken[fleet.name]),
            "NoCapacity": float(fleet.name in without_capacity),
            "CostPerHour": view.hourly[fleet.name],
        }
        data += [_datum(name, value, Fleet=fleet.name) for name, value in numbers.items()]
    return data


def of_rounds(*, rounds: int, blind: int, acted: int, failed: int) -> list[Datum]:
    """The metrics of the controller itself.

    Args:
        rounds: Decisions since the last time.
        blind: How many of them were blind: something did not answer, or made no sense.
        acted: How many acts succeeded.
        failed: How many acts AWS refused.
    """
    numbers = {
        "Rounds": rounds,
        "RoundsBlind": blind,
        "Blind": int(blind == rounds),
        "Refused": int(failed > 0 and not acted),
        "Acts": acted,
        "ActsFailed": failed,
    }
    return [_datum(name, value) for name, value in numbers.items()]


def put(client: Any, environment: str, data: Sequence[Datum]) -> None:
    """Send metrics to CloudWatch.

    Args:
        client: CloudWatch.
        environment: The environment's name.
        data: The metrics.
    """
    for begin in range(0, len(data), _BATCH):
        client.put_metric_data(Namespace=namespace(environment), MetricData=data[begin : begin + _BATCH])


def _datum(name: str, value: float, **dimensions: str) -> Datum:
    # Dimensions are printable ASCII: the CloudWatch API reference, "Dimension".
    dimensions = {key: re.sub("[^ -~]", "?", text)[:1024] for key, text in dimensions.items()}
    return {
        "MetricName": name,
        "Value": float(value),
        "Unit": _UNITS.get(name, "Count"),
        "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
    }
