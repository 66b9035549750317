"""Runs the sample job: the proof that a deployment works."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet.simulate.options import number
from ops.deployment import DeploymentError, OpenQa, connect, understood
from settings import Environment

JOB = Path(__file__).parent.parent / "userdata" / "content" / "sample" / "job.json"
POLL_SECONDS = 2.0


def add_command(commands: Any) -> None:
    """Adds ``smoke`` to the command line."""
    parser = commands.add_parser(
        "smoke",
        help="run the sample job and report its result",
        description="Schedules the sample job, waits for it, and exits with 0 only if it passed.",
    )
    parser.add_argument(
        "--minutes", type=number(0.1, 1440), default=15.0, help="how long to wait for it (default: 15)"
    )
    parser.set_defaults(run=run)


def run(environment: Environment, options: argparse.Namespace) -> int:
    """Schedules the sample job and waits until it ends.

    Args:
        environment: where.
        options: ``url`` (or None) and ``minutes``.

    Returns:
        0 if the job passed, else 1.

    Raises:
        DeploymentError: the job could not be scheduled or did not end in time.
    """
    openqa = connect(environment, url=options.url)
    settings = json.loads(JOB.read_text())
    settings["BUILD"] = datetime.now(UTC).strftime("smoke-%Y%m%d-%H%M%S")
    with understood(openqa):
        job_id = int(openqa.request("POST", "jobs", data=settings)["id"])
        print(f"Scheduled the sample job: {openqa.url}/tests/{job_id}", flush=True)
        job = follow(openqa, job_id, seconds=options.minutes * 60)
        for module in job.get("modules", []):
            print(f"  {module['name']}: {module['result']}")
        print(f"The sample job {job['result']}: {openqa.url}/tests/{job_id}")
        return 0 if job["result"] == "passed" else 1


def follow(openqa: OpenQa, job_id: int, *, seconds: float) -> dict[str, Any]:
    """Waits until a job ends, and prints each change of its state.

    Args:
        openqa: the API.
        job_id: the job.
        seconds: the longest time to wait.

    Returns:
        openQA's description of the finished job, with its modules.

    Raises:
        DeploymentError: the job did not end in time.
    """
    started = time.monotonic()
    shown = ""
    while True:
        job: dict[str, Any] = openqa.request("GET", f"jobs/{job_id}")["job"]
        elapsed = time.monotonic() - started
        if job["state"] != shown:
            shown = job["state"]
            print(f"  {elapsed:4.0f} s  {shown}", flush=True)
        if shown in ("done", "cancelled"):
            return job
        if elapsed > seconds:
            raise DeploymentError(
                f"job {job_id} is still {shown} after {seconds:.0f} s: {hint(openqa, shown)}"
            )
        time.sleep(POLL_SECONDS)


def hint(openqa: OpenQa, state: str) -> str:
    """Says where to look when a job does not end.

    Args:
        openqa: the API.
        state: the job's state.

    Returns:
        Half a sentence.
    """
    if state != "scheduled":
        return f"see {openqa.url}/admin/workers"
    workers = openqa.request("GET", "workers")["workers"]
    online = sorted(f"{w['host']}:{w['instance']} {w['status']}" for w in workers if w["status"] != "dead")
    return "no worker took it; workers online: " + (", ".join(online) or "none")
