"""Workers and their jobs outlast the time that a new web UI or database host may take to come up."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from tests.userdata import machine
from userdata.host import ready, volume

GOLDEN = Path(__file__).parent / "golden"
# It waits for its predecessor's volume, then for its service; a host that fails is replaced without delay.
GAP_SECONDS = volume.FREE_SECONDS + ready.SECONDS
# Of os-autoinst's mmapi.pm and lockapi.pm, and of openQA's Worker.pm: how long they wait between attempts.
INTERVAL_SECONDS = 10


@pytest.mark.parametrize("kind", ["worker", "worker-vde", "worker-tap", "worker-mesh"])
def test_workers_outlast_the_replacement_of_a_host(kind: str) -> None:
    parser = configparser.ConfigParser()
    parser.read(GOLDEN / kind / "run/openqa-on-aws/config/workers.ini")
    settings = parser["global"]
    delays = (int(settings["RETRY_DELAY"]), int(settings["RETRY_DELAY_IF_WEBUI_BUSY"]))
    assert int(settings["RETRIES"]) * min(delays) > GAP_SECONDS
    # openQA's usleep_backoff for attempts 1, 2 …
    uploads = range(int(settings["UPLOAD_RETRIES"]))
    assert sum(min(5 + attempt, 30) for attempt in uploads) > GAP_SECONDS

    units = [path.read_text() for path in (GOLDEN / kind / "etc").rglob("*") if path.is_file()]
    counts = dict(re.findall(r"^Environment=(\w+)=(\d+)$", "\n".join(units), re.MULTILINE))
    for name in (
        "OPENQA_WORKER_ACCEPT_ATTEMPTS",
        "OS_AUTOINST_MMAPI_RETRY_COUNT",
        "OS_AUTOINST_LOCKAPI_RETRY_COUNT",
    ):
        assert int(counts[name]) * INTERVAL_SECONDS > GAP_SECONDS, name


def test_a_unit_outlasts_the_upgrade_that_its_host_waits_for() -> None:
    unit = (GOLDEN / "webui/etc/containers/systemd/openqa-setup.container").read_text()
    (seconds,) = re.findall(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE)
    # Before it, setup.sh tries for five minutes to log in to the database.
    assert int(seconds) >= 300 + ready.UPGRADE_SECONDS


def test_an_upgrade_that_does_not_get_its_locks_ends_its_host_before_its_stack_is_told_of_success() -> None:
    script = (machine.REPOSITORY / "userdata/roles/webui/bin/setup.sh").read_text()
    unit = (GOLDEN / "webui/etc/containers/systemd/openqa-setup.container").read_text()
    (lock,) = re.findall(r"lock_timeout=(\d+)s", script)
    (pause,) = re.findall(r"^RestartSec=(\d+)$", unit, re.MULTILINE)
    starts = 30  # of a container, and of initdb
    assert ready.RESTARTS * (int(lock) + int(pause) + starts) < ready.SECONDS


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("setup failure: Failed to download sample.iso to /var/lib/openqa/cache/webui/sample.iso", True),
        ("setup failure: Failed to rsync tests: exit code 10", True),
        ("cache failure: Cache service status error", True),
        ("asset failure: Failed to download missing.iso to /var/lib/openqa/cache/webui/missing.iso", False),
        ("setup failure: isotovideo can not be started", False),
        ("tests died: unable to load main.pm", False),
    ],
)
def test_jobs_that_found_no_web_ui_run_again(reason: str, again: bool) -> None:
    parser = configparser.RawConfigParser()
    parser.read(GOLDEN / "webui/run/openqa-on-aws/config/openqa.ini")
    assert bool(re.match(parser["global"]["auto_clone_regex"], reason)) is again
