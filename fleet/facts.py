"""What the controller is told about each fleet: the SSM parameters ``/openqa/ENVIRONMENT/fleets/NAME``.

The workers' stack writes them, so that a changed fleet changes nothing about the web UI's host. They do not
say how many hosts a fleet may have: the Auto Scaling group itself knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet import warm
from fleet.openqa_scheduler import Classes
from fleet.warm import Warm

# For types without a known price: high enough to make them the last choice.
UNKNOWN_PRICE = 100.0


def parameters(environment: str) -> str:
    """Return the path of the SSM parameters of an environment's fleets."""
    return f"/openqa/{environment}/fleets"


def namespace(environment: str) -> str:
    """Return the CloudWatch namespace of an environment, the only one that its hosts may write to."""
    return f"openQA/{environment}"


class FactsError(Exception):
    """A fleet's parameter is invalid; the message tells why, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A fleet.

    Attributes:
        name: Its name.
        group: Its Auto Scaling group's name.
        subnets: Where its hosts may boot; first the one in the zone of the web UI's host. Empty: an older
            release, which did not write them, wrote the parameter; the group's subnets stay as they are.
        classes: What its workers offer.
        workers: Workers on a host, by instance type; the preferred type first.
        prices: What a host costs an hour by instance type, on demand, its volume included, in US dollars.
        boot_seconds: From launch to the first job, until launches have been measured.
        one_host: Its workers take a parallel cluster only as a whole.
        warm: Hosts that the operator wants ready beforehand.
        spare: The additional hosts that the operator wants, as `fleet.model.Fleet.spare`.
    """

    name: str
    group: str
    subnets: tuple[str, ...]
    classes: Classes
    workers: Mapping[str, int]
    prices: Mapping[str, float]
    boot_seconds: float
    one_host: bool
    warm: tuple[Warm, ...] = ()
    spare: float | None = None

    @property
    def slots(self) -> int:
        """The number of workers that each host has at least."""
        return min(self.workers.values())

    def price(self, instance_type: str | None = None) -> float:
        """What a host costs an hour, on demand, its volume included, in US dollars.

        Args:
            instance_type: Its type; None takes the preferred one.
        """
        return self.prices.get(instance_type or next(iter(self.workers)), UNKNOWN_PRICE)


def parse(name: str, text: str) -> Facts:
    """Read a fleet's parameter.

    Args:
        name: The fleet's name, the end of the parameter's.
        text: Its value.

    Raises:
        FactsError: It is invalid.
    """
    try:
        return _parse(name, json.loads(text))
    except KeyError as error:
        raise FactsError(f"The parameter of fleet {name} lacks {error.args[0]!r}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise FactsError(f"The parameter of fleet {name} is invalid: {error}.") from error


def _parse(name: str, data: Mapping[str, Any]) -> Facts:
    workers = {str(kind): int(count) for kind, count in data["workers"].items()}
    if not workers or min(workers.values()) < 1:
        raise ValueError("it has no workers")
    subnets = tuple(map(str, data.get("subnets", ())))
    if "subnets" in data and not subnets:
        raise ValueError("it has no subnets")
    return Facts(
        name=name,
        group=str(data["group"]),
        subnets=subnets,
        classes=frozenset(map(str, data["classes"])),
        workers=workers,
        prices={str(kind): float(price) for kind, price in data["prices"].items()},
        boot_seconds=float(data["boot_seconds"]),
        one_host=bool(data["one_host"]),
        warm=tuple(warm.parse(text) for text in data["warm"]),
        spare=None if data.get("spare") is None else float(data["spare"]),
    )
