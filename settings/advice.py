"""What is allowed, but likely a mistake."""

from __future__ import annotations

from collections.abc import Iterator

from fleet import catalogue
from settings.content import KNOWN_CLASSES
from settings.model import FETCH_GBPS, Environment
from settings.problem import shown


def warnings(environment: Environment) -> tuple[str, ...]:
    """Tells what is allowed, but likely a mistake: one line for each.

    Args:
        environment: a valid one.
    """
    return (*_unknown_classes(environment), *_slow_fetches(environment))


def _unknown_classes(environment: Environment) -> Iterator[str]:
    profile = environment.content.profile
    for fleet in environment.fleets:
        known = KNOWN_CLASSES[fleet.architecture] | environment.content.known_classes
        for name in fleet.classes:
            if name not in known:
                yield (
                    f"{environment.name}: fleets.{fleet.name}.classes = {shown(name)}: no job asks for it "
                    f"that content {shown(profile)} has; known: {', '.join(sorted(known))}"
                )


def _slow_fetches(environment: Environment) -> Iterator[str]:
    name = environment.webui.instance_type
    hosts = sum(fleet.max for fleet in environment.fleets)
    gbps = catalogue.load()[name].network_gbps
    if gbps < FETCH_GBPS * hosts:
        yield (
            f"{environment.name}: webui.instance_type = {shown(name)}: {gbps:g} Gbit/s for {hosts} hosts "
            f"that may fetch assets at once; wanted: {FETCH_GBPS * hosts:g} Gbit/s, {FETCH_GBPS:g} for each"
        )
