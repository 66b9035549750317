"""What goes from an environment file that several stacks know: CloudFormation takes back no export in use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import settings
from settings import Database, Rds
from settings.messages import Rule, Schedule
from tests.templates.synthesis import ROOT, Synthesized, exports, imports, synthesize
from userdata.messages.rules import IDENTITY

OPERATING = ROOT / "docs/operating.md"


def test_who_must_let_go_of_a_zone_is_in_the_manual(tmp_path: Path) -> None:
    rds = Database(engine="rds", rds=Rds(instance_class="db.m7g.large", volume_gib=200))
    asked = settings.load("fedora").model_copy(update={"database": rds})
    zones = asked.network.availability_zones
    fewer = asked.network.model_copy(update={"availability_zones": zones[:-1]})
    before, after = (
        synthesize(asked.model_copy(update={"network": network}), tmp_path / name, check=False)
        for name, network in (("before", asked.network), ("after", fewer))
    )
    assert letting_go(before, after) == told("| a zone ")


def test_who_must_let_go_of_builders_is_in_the_manual(
    synthesized: Callable[[str], Synthesized], tmp_path: Path
) -> None:
    fedora = synthesized("fedora")
    after = synthesize(fedora.environment.model_copy(update={"builders": ()}), tmp_path, check=False)
    assert letting_go(fedora, after) == told("| the last of `[[builders]]` ") - {"storage"}


def test_who_must_let_go_of_the_brokers_secret_is_in_the_manual(tmp_path: Path, local: Synthesized) -> None:
    post = dict.fromkeys(IDENTITY, "{id}")
    schedule = Schedule(
        broker="amqps://user@broker.example.org/%2F", exchange="pubsub", rules=(Rule(topic="#", post=post),)
    )
    before = synthesize(local.environment.model_copy(update={"schedule": schedule}), tmp_path, check=False)
    assert letting_go(before, local) == told("| the rules of `[schedule]` ")


def letting_go(before: Synthesized, after: Synthesized) -> set[str]:
    """Returns which stacks must be changed, or go, before those that no longer export what they use."""
    dropped = {
        name
        for part, template in before.templates.items()
        for name in exports(template) - exports(after.templates.get(part, {}))
    }
    users = {part for part, template in before.templates.items() if dropped & imports(template)}
    # They can be: what they are to use is there.
    there = {name for template in before.templates.values() for name in exports(template)}
    assert {name for part in users for name in imports(after.templates.get(part, {}))} <= there
    return users


def told(row: str) -> set[str]:
    """Returns the stacks that a row of the manual names, by how it begins."""
    (line,) = (line for line in OPERATING.read_text().splitlines() if line.startswith(row))
    return set(re.findall(r"openqa-NAME-(\w+)", line))
