"""Which parts of the project import which: what docs/architecture.md says below "The house"."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.templates.synthesis import ROOT

# Each may import what stands after it.
ORDER = ("app", "stacks", "constructs", "settings", "fleet", "userdata")
ALLOWED: Mapping[str, set[str]] = {
    **{part: set(ORDER[place:]) for place, part in enumerate(ORDER)},
    **{part: {*ORDER[place:], "images"} for place, part in enumerate(ORDER[:3])},
    "images": {"images"},
    "ops": {"ops", "settings", "fleet", "userdata"},
    "localcloud": {"localcloud", "settings", "images"},
    "bench": {"bench", "ops", "localcloud", "settings", "fleet", "tests"},
}
SIMULATION = ("fleet.simulate", "fleet.catalogue")


def files(part: str) -> list[Path]:
    return [ROOT / "app.py"] if part == "app" else sorted((ROOT / part).rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Yields the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    ours = {*ALLOWED, "tests"}
    found = {(file, name.split(".")[0]) for file in files(part) for name in imported(file)}
    assert found
    assert not {(str(file), name) for file, name in found if name in ours - ALLOWED[part]}


def test_nothing_that_an_instance_runs_imports_what_is_on_none() -> None:
    running = [file for file in files("fleet") if "simulate" not in file.parts and file.stem != "catalogue"]
    wrong = [
        (str(file), name)
        for file in (*running, *files("userdata"))
        for name in imported(file)
        if name.startswith(SIMULATION)
    ]
    assert wrong == []


def test_the_local_clouds_commands_load_no_moto() -> None:
    """They would take four times as long to begin, and it is changed for the whole of a process."""
    loads = "import sys, localcloud.__main__; sys.exit('moto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loads], cwd=ROOT, check=False).returncode == 0
