"""Builds that are scheduled by hand, against an openQA that only answers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pytest

import settings
from ops import schedule
from ops.deployment import DeploymentError

WORDS = ["DISTRI=sample", "VERSION=1", "FLAVOR=cd", "ARCH=x86_64", "BUILD=a=b"]


@dataclass
class FakeOpenQa:
    answer: dict[str, Any]
    url: str = "https://openqa.example.org"
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        self.requests.append((method, path, arguments))
        if path == "isos":
            return self.answer
        return {"job": {"name": f"job {path}", "settings": {"WORKER_CLASS": "qemu_x86_64"}}}


def run(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> tuple[int, FakeOpenQa]:
    openqa = FakeOpenQa(answer)
    monkeypatch.setattr(schedule, "connect", lambda *_, **__: openqa)
    options = argparse.Namespace(url=None, settings=WORDS)
    return schedule.run_iso(settings.load("local"), options), openqa


def test_what_got_scheduled_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"job_name": "upgrade", "error_message": "START_AFTER_TEST=absent"}
    code, openqa = run(monkeypatch, {"ids": [7, 6], "failed": [failed]})
    expected = {"DISTRI": "sample", "VERSION": "1", "FLAVOR": "cd", "ARCH": "x86_64", "BUILD": "a=b"}
    assert openqa.requests[0] == ("POST", "isos", {"data": expected})
    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "  https://openqa.example.org/tests/6  job jobs/6  qemu_x86_64",
        "  https://openqa.example.org/tests/7  job jobs/7  qemu_x86_64",
        "  not scheduled: upgrade: START_AFTER_TEST=absent",
        "Scheduled 2 jobs; 1 could not be scheduled.",
    ]


@pytest.mark.parametrize(("answer", "expected"), [({"ids": [1]}, 0), ({"ids": [], "failed": []}, 1)])
def test_success_is_jobs(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], expected: int) -> None:
    assert run(monkeypatch, answer)[0] == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["distri=x"], "'distri=x' is not a setting"),
        (["DISTRI"], "'DISTRI' is not a setting"),
        ([*WORDS, "DISTRI=other"], "DISTRI is given twice"),
        (["DISTRI=x", "ARCH="], "VERSION, FLAVOR, ARCH missing"),
    ],
)
def test_settings_that_are_none(words: list[str], reason: str) -> None:
    with pytest.raises(DeploymentError, match=reason):
        schedule.parse(words)
