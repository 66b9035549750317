"""What measurements share: a local deployment that lasts as long as the measurement."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localcloud import prerequisites
from localcloud.cloud import RunningCloud
from settings import ENVIRONMENTS
from tests.localcloud.lab import passing_cloud

ENVIRONMENT = "bench"
FLEET = f"openqa-{ENVIRONMENT}-fleet-small"  # its group
SECONDS = 1200  # how long to wait for anything, at most
_LAST_LINES = 40  # of a failed deployment are shown


@contextmanager
def deployed(changes: dict[str, str], *, internet: bool = False) -> Iterator[RunningCloud]:
    """Deploys a changed local environment into a cloud of its own; afterwards nothing of it is left.

    Args:
        changes: lines of environments/local.toml, and what replaces them.
        internet: instances reach the internet through this machine.

    Yields:
        The cloud; this process's AWS variables lead to it.
    """
    if reason := prerequisites.missing():
        raise SystemExit(reason)
    text = (ENVIRONMENTS / "local.toml").read_text()
    for line, instead in changes.items():
        if f"\n{line}\n" not in text:
            raise SystemExit(f"environments/local.toml has no line {line!r}.")
        text = text.replace(f"\n{line}\n", f"\n{instead}\n")
    with (
        tempfile.TemporaryDirectory() as directory,
        passing_cloud(ENVIRONMENT, internet=internet) as running,
    ):
        (Path(directory) / f"{ENVIRONMENT}.toml").write_text(text)
        command = [sys.executable, "-m", "localcloud", "deploy", ENVIRONMENT, f"--name={ENVIRONMENT}"]
        command += ["--no-smoke", f"--environments={directory}"]
        print(f"Deploying {', '.join(changes.values())}", flush=True)
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stdout + done.stderr).splitlines()
            raise SystemExit("\n".join([*words[-_LAST_LINES:], "The deployment failed."]))
        os.environ.update(running.environment())
        # It would terminate the hosts that are launched here without a job.
        inside(running, webui(running), "systemctl stop openqa-controller.service")
        yield running


def until(condition: Callable[[], Any]) -> Any:
    """Waits until a condition holds and returns its value."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"What the measurement waited for did not happen within {SECONDS} s.")
        time.sleep(0.2)
    return value


def hosts(running: RunningCloud, group: str = FLEET) -> dict[str, str]:
    """The lifecycle states of a group's instances."""
    groups = running.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    return {
        host["InstanceId"]: host["LifecycleState"] for host in groups["AutoScalingGroups"][0]["Instances"]
    }


def webui(running: RunningCloud) -> str:
    """The instance that is the web UI's host."""
    (host,) = hosts(running, f"openqa-{ENVIRONMENT}-webui")
    return host


def inside(running: RunningCloud, instance: str, script: str) -> str:
    """What a shell script prints in an instance."""
    command = ["nsenter", f"--target={running.leader(instance)}", "--all", "--wd=/", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
