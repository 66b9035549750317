"""``fleets``: shows an environment's fleets and what they may cost, from its file alone, without AWS."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from fleet import catalogue
from settings import Environment, Fleet

_ROW = "{:<16}  {:>9}  {:<18}  {:>7}  {:>8}"


def add_command(commands: Any) -> None:
    """Adds ``fleets`` to the command line."""
    parser = commands.add_parser(
        "fleets",
        help="show each fleet's hosts, workers and price, offline",
        description="Shows what the environment file says: hosts, workers per host by instance type, and the "
        "price per hour from fleet/catalogue.toml. Works offline.",
    )
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Prints the overview.

    Args:
        environment: whose fleets.
        options: none are used.

    Returns:
        0.
    """
    print("\n".join(overview(environment)))
    return 0


def overview(environment: Environment) -> list[str]:
    """Returns the lines: for each fleet, a table of its types and its totals at its maximum.

    Args:
        environment: whose fleets.
    """
    lines = [_ROW.format("fleet", "hosts", "type", "workers", "$/hour")]
    for fleet in environment.fleets:
        lines += [*_types(fleet), _largest(fleet)]
    total = sum(fleet.max * _dearest(fleet) for fleet in environment.fleets)
    last = f"All fleets at their max: at most ${total:.2f} an hour (us-east-1, without volumes and traffic)."
    return [*lines, last]


def _types(fleet: Fleet) -> Iterator[str]:
    first = (fleet.name, f"{fleet.min} to {fleet.max}")
    for name in fleet.instance_types:
        price = catalogue.load()[name].price
        shown = "unknown" if price is None else f"{price:.3f}"
        yield _ROW.format(*first, name, fleet.workers(name), shown)
        first = ("", "")


def _largest(fleet: Fleet) -> str:
    workers = sorted({fleet.workers(name) * fleet.max for name in fleet.instance_types})
    count = " to ".join(str(number) for number in dict.fromkeys((workers[0], workers[-1])))
    spot = fleet.max - fleet.on_demand_max
    kinds = f"{fleet.on_demand_max} on demand, {spot} spot"
    # A spot host never costs more than one on demand, and usually far less.
    price = fleet.max * _dearest(fleet)
    hosts = "1 host" if fleet.max == 1 else f"{fleet.max} hosts"
    return f"  at max: {count} workers on {hosts} ({kinds}), at most ${price:.2f} an hour"


def _dearest(fleet: Fleet) -> float:
    return max(catalogue.load()[name].price or 0.0 for name in fleet.instance_types)
