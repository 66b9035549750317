"""Deployments for tests: an environment of a test's own on this machine, from outside and from inside."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

import settings
from localcloud.cloud import RunningCloud
from ops import __main__ as ops
from ops import deployment
from ops.deployment import OpenQa
from settings import ENVIRONMENTS
from tests.localcloud.lab import passing_cloud
from tests.prerequisites import require_machine

Found = TypeVar("Found")

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "userdata/content/sample"
JOB_SECONDS = 900
HOST_SECONDS = 900


def until(what: str, found: Callable[[], Found | None], *, seconds: float = HOST_SECONDS) -> Found:
    """Asks every second until there is an answer that is not None.

    Args:
        what: What is waited for, in words.
        found: Returns the answer, or None.
        seconds: How long to wait at most.

    Raises:
        AssertionError: There was no answer in time.
    """
    deadline = time.monotonic() + seconds
    while (answer := found()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    return answer


@dataclass(frozen=True)
class Deployment:
    """A deployed environment.

    Attributes:
        name: The environment's name.
        cloud: The cloud that it runs in.
        openqa: Its API.
        code: The exit code of its ``deploy``.
        output: What that printed.
        environments: The directory of its file.
    """

    name: str
    cloud: RunningCloud
    openqa: OpenQa
    code: int
    output: str
    environments: Path

    def ops(self, *words: str) -> int:
        """Runs one of the operator's commands; returns its exit code."""
        print(f"$ ops {' '.join(words)}", flush=True)
        return ops.main([f"--env={self.name}", f"--environments={self.environments}", *words])

    def group(self, name: str) -> dict[str, Any]:
        """The Auto Scaling group of ``database``, ``webui`` or ``fleet-NAME``."""
        client = self.cloud.client("autoscaling")
        names = [f"openqa-{self.name}-{name}"]
        found: dict[str, Any] = client.describe_auto_scaling_groups(AutoScalingGroupNames=names)
        group: dict[str, Any] = found["AutoScalingGroups"][0]
        return group

    def instances(self, group: str, *states: str) -> list[str]:
        """The instances of a group that are in one of the states, or all if no states are given."""
        return [
            instance["InstanceId"]
            for instance in self.group(group)["Instances"]
            if not states or instance["LifecycleState"] in states
        ]

    def serving(self, group: str, *, count: int = 1, seconds: float = HOST_SECONDS) -> list[str]:
        """Waits until exactly so many instances of a group are in service; returns their ids in order."""

        def found() -> list[str] | None:
            there = self.instances(group, "InService")
            return sorted(there) if len(there) == count else None

        return until(f"{count} of {group} in service", found, seconds=seconds)

    def run(
        self, instance: str, *words: str, check: bool = True, stdin: str | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command inside an instance, as root.

        Args:
            instance: Its id.
            words: The command.
            check: Whether it must succeed.
            stdin: What it reads; nothing if None.
            seconds: How long it may take.

        Raises:
            AssertionError: It failed; the message has its output.
        """
        leader = self.cloud.leader(instance)
        assert leader is not None, f"{instance} does not run"
        done = subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--wd=/", *words],
            # Without the variables that lead this process to the cloud's AWS API: hosts have their own way.
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def enter_secret(self, name: str, value: Mapping[str, str]) -> None:
        """Enters a secret of the web UI's as an operator does, which restarts all that uses it.

        Args:
            name: The secret's name, without ``openqa/ENVIRONMENT/``.
            value: The secret's content, stored as JSON.
        """
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(json.dumps(value)))
            assert self.ops("secrets", "enter", name) == 0

    def told(self, metric: str, statistic: str, *, period: int = 60, **dimensions: str) -> list[float]:
        """What CloudWatch was told of one of the environment's metrics in the last hours.

        Args:
            metric: The metric's name.
            statistic: How a period's figures are combined.
            period: The length of a period, in seconds.
            dimensions: The metric's dimensions.

        Returns:
            A figure for each period that has any, in no particular order.
        """
        now = datetime.now(UTC)
        answer = self.cloud.client("cloudwatch").get_metric_statistics(
            Namespace=f"openQA/{self.name}",
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=now - timedelta(hours=3),
            EndTime=now + timedelta(minutes=2),
            Period=period,
            Statistics=[statistic],
        )
        return [point[statistic] for point in answer["Datapoints"]]

    def schedule(self, build: str, *, file: str = "job.json", **more: str) -> list[int]:
        """Schedules a job or a cluster of the sample.

        Args:
            build: Its build.
            file: One of the sample's JSON files.
            more: Settings to add or to change.

        Returns:
            The ids, in order.
        """
        settings = json.loads((SAMPLE / file).read_text()) | {"BUILD": build} | more
        answer = self.openqa.request("POST", "jobs", data=settings)
        return sorted(answer["ids"].values()) if "ids" in answer else [int(answer["id"])]

    def job(self, job: int) -> dict[str, Any]:
        """What openQA says about a job."""
        found: dict[str, Any] = self.openqa.request("GET", f"jobs/{job}")["job"]
        return found

    def finished(self, jobs: list[int], *, seconds: float = JOB_SECONDS) -> list[dict[str, Any]]:
        """Waits until all jobs are done, and returns them."""

        def done() -> list[dict[str, Any]] | None:
            found = [self.job(job) for job in jobs]
            return found if all(job["state"] == "done" for job in found) else None

        return until(f"jobs {jobs} are done", done, seconds=seconds)

    def passed(self, jobs: list[int], *, seconds: float = JOB_SECONDS) -> list[dict[str, Any]]:
        """Waits until all jobs are done, and asserts that they passed."""
        found = self.finished(jobs, seconds=seconds)
        results = {f"{job['id']} {job['test']}": (job["result"], job.get("reason")) for job in found}
        assert {job["result"] for job in found} == {"passed"}, results
        return found


@contextmanager
def deployed(
    name: str, changes: Mapping[str, str] | None = None, *, fleets: str = "", check: bool = True
) -> Iterator[Deployment]:
    """Deploys an environment that is like ``local``, and removes it at the end.

    Meanwhile this process's environment leads boto3 to its cloud.

    Args:
        name: The environment's name; the cloud is called ``test-NAME``.
        changes: Pieces of ``local.toml`` and what replaces them.
        fleets: Fleets that replace local's, as TOML.
        check: Whether the deployment must succeed.

    Raises:
        AssertionError: It did not; the message has the end of its output.
    """
    require_machine()
    text = (ENVIRONMENTS / "local.toml").read_text()
    for before, after in (changes or {}).items():
        assert before in text, before
        text = text.replace(before, after)
    if fleets:
        text = text.partition("[[fleets]]")[0] + fleets
    with (
        pytest.MonkeyPatch.context() as patch,
        _directory(name, text) as directory,
        passing_cloud(f"test-{name}") as running,
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "localcloud", "deploy", name, f"--name={running.name}"),
                *("--no-smoke", f"--environments={directory}"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout[-4000:]
        for key, value in running.environment().items():
            patch.setenv(key, value)
        openqa = deployment.connect(settings.load(name, directory), url=running.url)
        yield Deployment(name, running, openqa, done.returncode, done.stdout, directory)


@contextmanager
def _directory(name: str, text: str) -> Iterator[Path]:
    """A directory with one environment file."""
    with tempfile.TemporaryDirectory(prefix="openqa-environments-") as made:
        (Path(made) / f"{name}.toml").write_text(text)
        yield Path(made)
