"""Parallel jobs on a tap host: a whole deployment whose only fleet has ``network = "tap"``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa
from settings import ENVIRONMENTS

pytestmark = pytest.mark.tap

ROOT = Path(__file__).parents[2]
NAME = "test-tap"
PAIR = ROOT / "userdata/content/sample/pair.json"
# As many as two builds of a pair, or a cluster of three, take at a time.
SLOTS = 4
FLEET = f"""\
[[fleets]]
name = "taps"
architecture = "x86_64"
classes = ["qemu_x86_64", "tap"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
network = "tap"
workers_per_host = {SLOTS}
min = 1
max = 1
volume_gib = 8
cache_gib = 2
"""
SECONDS = 900


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    directory = tmp_path_factory.mktemp("environments")
    common, _, _ = (ENVIRONMENTS / "local.toml").read_text().partition("[[fleets]]")
    (directory / "tap.toml").write_text(common + FLEET)
    program = [sys.executable, "-m", "localcloud"]
    ports = ["--api-port=0", "--web-port=0", "--no-smoke", f"--environments={directory}"]
    try:
        subprocess.run([*program, "deploy", "tap", f"--name={NAME}", *ports], cwd=ROOT, check=True)
        found = cloud.find(NAME)
        assert found is not None
        yield found
    finally:
        subprocess.run([*program, "down", f"--name={NAME}"], cwd=ROOT, check=True)


@pytest.fixture
def openqa(running: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> OpenQa:
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    return deployment.connect(environment="tap", region=cloud.REGION, url=running.url)


def schedule(openqa: OpenQa, build: str, more: Mapping[str, str] | None = None) -> list[int]:
    """Schedules a cluster and returns its jobs."""
    settings = json.loads(PAIR.read_text()) | {"BUILD": build} | dict(more or {})
    return sorted(openqa.request("POST", "jobs", data=settings)["ids"].values())


def results(openqa: OpenQa, jobs: list[int]) -> dict[str, str]:
    """Waits until all jobs are done; their results by job and test."""
    deadline = time.monotonic() + SECONDS
    while True:
        found: list[dict[str, Any]] = [openqa.request("GET", f"jobs/{job}")["job"] for job in jobs]
        if all(job["state"] == "done" for job in found):
            return {f"{job['id']} {job['test']}": job["result"] for job in found}
        assert time.monotonic() < deadline, [(job["id"], job["state"]) for job in found]
        time.sleep(2)


def all_passed(found: Mapping[str, str]) -> bool:
    return set(found.values()) == {"passed"}


def test_a_pair_talks_over_tap(openqa: OpenQa) -> None:
    found = results(openqa, schedule(openqa, "pair"))
    assert len(found) == 2
    assert all_passed(found), found


def test_two_builds_with_the_same_addresses_do_not_meet(openqa: OpenQa) -> None:
    jobs = schedule(openqa, "first") + schedule(openqa, "second")
    found = results(openqa, jobs)
    assert len(found) == 4
    assert all_passed(found), found
    started = [openqa.request("GET", f"jobs/{job}")["job"] for job in jobs]
    assert max(job["t_started"] for job in started) < min(job["t_finished"] for job in started)


def test_a_cluster_of_three(openqa: OpenQa) -> None:
    third = {
        "TEST:second": "tap-second-client",
        "MODULES:second": "boot,isolation,client",
        "GUEST_ADDRESS:second": "172.16.2.103",
        "_PARALLEL:second": "server",
    }
    found = results(openqa, schedule(openqa, "three", third))
    assert len(found) == 3
    assert all_passed(found), found
