"""The measurements' command lines: what would fail later, or never end, is refused before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ("backup", "boot", "fetch", "fleet", "synth")


def run(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, because the local cloud, which some import, changes moto for the whole of one."""
    program = [sys.executable, "-m", f"bench.{command}", *words]
    return subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def test_all_are_here() -> None:
    helpers = {"deployment_helpers"}
    assert {path.stem for path in (REPOSITORY / "bench").glob("*.py")} == helpers | set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_tells_what_it_takes(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: python -m bench.{command} ")


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("backup", "--mib 0", "--mib: '0' is not a whole number from 1 to 4096"),
        ("backup", "--runs 0", "--runs: '0' is not a whole number from 1 to 100"),
        ("boot", "--runs=-1", "--runs: '-1' is not a whole number from 1 to 100"),
        ("fetch", "--hosts 0", "--hosts: '0' is not a whole number from 1 to 16"),
        ("fetch", "--mib x", "--mib: 'x' is not a whole number from 1 to 16384"),
        ("fetch", "--fetches 0", "--fetches: '0' is not a whole number from 1 to 1000"),
        ("fleet", "--days 0", "--days: '0' is not a number from 1 to 92"),
        ("fleet", "--seeds 5 0", "--seeds: '0' is not a whole number from 1 to 1000000000"),
        ("fleet", "--plots /nope", "--plots: '/nope' is not a folder in which files may be written"),
        ("synth", "--runs 0", "--runs: '0' is not a whole number from 1 to 100"),
    ],
)
def test_what_is_refused(command: str, words: str, said: str) -> None:
    done = run(command, *words.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout


def test_an_environment_that_there_is_not_is_told_in_one_line() -> None:
    done = run("synth", "nope")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('environments: there is no environment "nope"; allowed: ')
