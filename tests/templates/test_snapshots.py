"""What would be deployed, in files that a reviewer can read: `make snapshots` rewrites them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import settings
from tests.environments import SHIPPED
from tests.templates.synthesis import Json, Synthesized, document

SNAPSHOTS = Path(__file__).with_name("snapshots")

# Every change of a script or a recipe changes these; that they do is tested elsewhere.
HASHES = ((re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"), (re.compile(r"\b[0-9a-f]{16}\b"), "<recipe>"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Shipped environments must have a snapshot; one's own has one once `make snapshots` wrote it."""
    if "name" in metafunc.fixturenames:
        names = settings.names()
        if not metafunc.config.getoption("--update-snapshots"):
            written = {path.stem for path in SNAPSHOTS.glob("*.json")}
            names = tuple(name for name in names if name in written or name in SHIPPED)
        metafunc.parametrize("name", names)


def test_snapshot(
    name: str, synthesized: Callable[[str], Synthesized], request: pytest.FixtureRequest
) -> None:
    snapshot = SNAPSHOTS / f"{name}.json"
    text = rendered(synthesized(name))
    if request.config.getoption("--update-snapshots"):
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(text)
    assert snapshot.exists(), "no snapshot: make snapshots"
    assert json.loads(text) == json.loads(snapshot.read_text()), "templates changed: make snapshots"


def test_snapshots_are_of_environments_that_exist() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} <= set(settings.names())


def rendered(synthesized: Synthesized) -> str:
    templates = {name: normalized(template) for name, template in synthesized.templates.items()}
    return json.dumps(templates, indent=1, ensure_ascii=False) + "\n"


def normalized(template: Json) -> Json:
    """Returns a template without what every stack of the CDK has, and with hosts' documents to read."""
    without = {"Rules": {"CheckBootstrapVersion"}, "Parameters": {"BootstrapVersion"}}
    kept = {
        section: {key: value for key, value in content.items() if key not in without.get(section, ())}
        if isinstance(content, dict)
        else content
        for section, content in template.items()
    }
    return {section: readable(content) for section, content in kept.items() if content}


def readable(node: Any) -> Any:
    """Returns a part of a template with hashes masked, and what user data and a dashboard hold to read."""
    if isinstance(node, str):
        for pattern, name in HASHES:
            node = pattern.sub(name, node)
        return node
    if isinstance(node, list):
        return [readable(child) for child in node]
    if not isinstance(node, dict):
        return node
    if "UserData" in node:
        node = {**node, "UserData": {"userdata/boot.sh": document(node)}}
    if "DashboardBody" in node:
        node = {**node, "DashboardBody": json.loads(node["DashboardBody"])}
    return {key: readable(child) for key, child in node.items()}
