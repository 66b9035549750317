"""The sample job's command against an openQA that answers from a list."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import settings
from ops import smoke
from ops.__main__ import main
from ops.deployment import DeploymentError, OpenQa

ROOT = Path(__file__).parents[2]


class FakeOpenQa:
    """Answers as openQA's API does, one state of the job after the other."""

    def __init__(self, states: list[dict[str, Any]]) -> None:
        self.url = "https://openqa.example.org"
        self.states = states
        self.posted: dict[str, Any] = {}

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        if (method, path) == ("POST", "jobs"):
            self.posted = arguments["data"]
            return {"id": 7}
        if path == "workers":
            return {
                "workers": [
                    {"host": "small-1", "instance": 1, "status": "idle"},
                    {"host": "small-2", "instance": 1, "status": "dead"},
                ]
            }
        assert path == "jobs/7"
        return {"job": self.states.pop(0) if len(self.states) > 1 else self.states[0]}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "POLL_SECONDS", 0)


def run_smoke(openqa: FakeOpenQa, monkeypatch: pytest.MonkeyPatch, minutes: float = 1) -> int:
    monkeypatch.setattr(smoke, "connect", lambda *_, **__: openqa)
    return smoke.run(settings.load("dev"), argparse.Namespace(url=None, minutes=minutes))


def test_a_passed_job_is_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    openqa = FakeOpenQa(
        [
            {"state": "scheduled", "result": "none"},
            {"state": "running", "result": "none"},
            {"state": "done", "result": "passed", "modules": [{"name": "console", "result": "passed"}]},
        ]
    )
    assert run_smoke(openqa, monkeypatch) == 0
    assert openqa.posted["DISTRI"] == "sample"
    assert openqa.posted["BUILD"].startswith("smoke-")
    shown = capsys.readouterr().out
    assert "running" in shown
    assert "console: passed" in shown
    assert "passed: https://openqa.example.org/tests/7" in shown


@pytest.mark.parametrize("result", ["failed", "incomplete", "softfailed", "timeout_exceeded"])
def test_any_other_result_is_failure(result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_smoke(FakeOpenQa([{"state": "done", "result": result}]), monkeypatch) == 1


def test_a_job_that_no_worker_takes_tells_which_workers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeploymentError, match=r"no worker took it; workers online: small-1:1 idle$"):
        run_smoke(FakeOpenQa([{"state": "scheduled", "result": "none"}]), monkeypatch, minutes=0)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_a_time_to_wait_that_is_none_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--env", "local", "smoke", f"--minutes={minutes}"])
    assert raised.value.code == 2
    assert f"--minutes: '{minutes}' is not a number from 0.1 to 1440" in capsys.readouterr().err


def test_what_cannot_be_printed_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ops", "--env", "local", "fleets"],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "[Errno 28] No space left on device\n")


@pytest.mark.parametrize("url", ["localhost:8443", "http://[::1", "https://localhost:99999", "file:///x", ""])
def test_an_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--env", "local", f"--url={url}", "smoke"])
    assert raised.value.code == 2
    assert f"--url: '{url}' is not an address such as https://localhost:8443" in capsys.readouterr().err


def test_a_host_that_can_be_none_is_told() -> None:
    openqa = OpenQa(url="http://a..b", key="key", secret="secret")
    with pytest.raises(DeploymentError, match=r"openQA at http://a\.\.b: GET jobs failed: "):
        openqa.request("GET", "jobs")
