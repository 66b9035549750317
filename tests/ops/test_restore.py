"""What ``restore`` and ``reconcile`` have the hosts do; the rest is tested on a local deployment."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ops import __main__ as main
from ops import restore

DATABASE = ("database", "restore")
RECONCILED: tuple[object, ...] = ("webui", "reconcile", {}, 1200)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What hosts were told to do, and for how long who is not there yet is waited for."""
    told: list[tuple[object, ...]] = []

    class Host:
        def __init__(self, environment: object, part: str) -> None:
            self.part = part

        def run(
            self, command: str, parameters: Mapping[str, str] | None = None, *, wait_seconds: float = 0
        ) -> None:
            told.append((self.part, command, parameters or {}, wait_seconds))

    monkeypatch.setattr(restore, "StatefulHost", Host)
    return told


def run(*words: str) -> int:
    return main.main(["--env", "dev", *words])


def test_all_there_is_is_restored_and_openqa_brought_in_line(done: list[tuple[object, ...]]) -> None:
    assert run("restore", "--to", "latest") == 0
    assert done == [(*DATABASE, {"To": "latest", "Timeline": "", "Overwrite": ""}, 0), RECONCILED]


def test_the_operator_says_when_by_which_timeline_and_over_what(done: list[tuple[object, ...]]) -> None:
    words = ("--to", "2026-01-31T03:00:00Z", "--timeline", "2", "--yes-overwrite", "--database-only")
    assert run("restore", *words) == 0
    told = {"To": "2026-01-31T03:00:00+00:00", "Timeline": "--timeline=2", "Overwrite": "--yes-overwrite"}
    assert done == [(*DATABASE, told, 0)]


def test_openqa_may_be_brought_in_line_alone(done: list[tuple[object, ...]]) -> None:
    assert run("reconcile") == 0
    assert done == [RECONCILED]


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--to", "yesterday"], "yesterday"), (["--to", "latest", "--timeline", "0"], "--timeline")],
)
def test_what_makes_no_sense_reaches_no_host(
    words: list[str], says: str, done: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run("restore", *words)
    except SystemExit as exit:
        code = int(exit.code or 0)
    assert code != 0
    assert says in capsys.readouterr().err
    assert done == []
