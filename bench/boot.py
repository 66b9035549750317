"""From a host's launch to its first idle worker, golden image against none: ``python -m bench.boot``.

Deploys the local environment twice, from a golden root and from Debian's base root, where the first
boot installs packages from the distribution's archive and container images from S3. Needs root and the
internet; takes about fifteen minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa
from settings import ENVIRONMENTS

ROOT = Path(__file__).parent.parent
CLOUD = "bench-boot"
ENVIRONMENT = "boot"
GROUP = f"openqa-{ENVIRONMENT}-fleet-small"
GOAL = 0.2  # of the time that it takes without a golden image
SECONDS = 1200  # at most, for one host
# What the console says when a stage is over (userdata/bootstrap.sh); openQA tells the end of the last.
STAGES = {
    "launch, boot, fetching the bundle": "installing for the role",
    "installing packages and images": "preparing the host",
    "preparing the host": "starting openQA's services",
    "openQA's own start and registration": None,
}


def main() -> int:
    """Measures and prints; returns 1 where the goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.boot", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--runs", type=int, default=3, help="hosts launched of each kind (%(default)s)")
    runs = parser.parse_args().runs
    golden, plain = measure(golden=True, runs=runs), measure(golden=False, runs=runs)
    print(f"\nmedians of {runs} hosts each, seconds{'':9} golden  without  golden/without")
    for stage in STAGES:
        print(f"  {stage:38} {golden[stage]:6.1f}  {plain[stage]:7.1f}")
    with_it, without = sum(golden.values()), sum(plain.values())
    print(f"  {'all':38} {with_it:6.1f}  {without:7.1f}  {with_it / without:14.2f}")
    own = golden["openQA's own start and registration"] / with_it
    print(f"openQA's own start and registration is {own:.0%} of a golden host's time")
    missed = with_it > GOAL * without
    print(f"goal: at most {GOAL}: {'missed' if missed else 'met'}")
    return int(missed)


def measure(*, golden: bool, runs: int) -> dict[str, float]:
    """Deploys, launches hosts one after the other, and removes all of it.

    Args:
        golden: from a golden root.
        runs: how many hosts.

    Returns:
        The median seconds of each stage.
    """
    program = [sys.executable, "-m", "localcloud"]
    with tempfile.TemporaryDirectory() as directory:
        text = (ENVIRONMENTS / "local.toml").read_text()
        text = text.replace("\nmin = 1\n", "\nmin = 0\n")
        text = text.replace("\ngolden = true\n", f"\ngolden = {str(golden).lower()}\n")
        (Path(directory) / f"{ENVIRONMENT}.toml").write_text(text)
        options = ["--api-port=0", "--web-port=0", "--no-smoke", "--internet", f"--environments={directory}"]
        try:
            subprocess.run(
                [*program, "deploy", ENVIRONMENT, f"--name={CLOUD}", *options],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            running = cloud.find(CLOUD)
            if running is None:
                raise SystemExit("The local cloud ended by itself.")
            os.environ.update(running.environment())
            openqa = deployment.connect(environment=ENVIRONMENT, region=cloud.REGION, url=running.url)
            hosts = [launch(running, openqa) for _ in range(runs)]
        finally:
            subprocess.run([*program, "down", f"--name={CLOUD}"], cwd=ROOT, check=True)
    return {stage: median(host[stage] for host in hosts) for stage in STAGES}


def launch(running: RunningCloud, openqa: OpenQa) -> dict[str, float]:
    """Launches a host, watches it until its worker is idle, and ends it.

    Args:
        running: the cloud; the fleet has no host.
        openqa: its openQA.

    Returns:
        The seconds of each stage.
    """
    groups = running.client("autoscaling")
    started = last = time.monotonic()
    groups.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    instance = str(until(lambda: instances(running), started)[0])
    seconds = {}
    for stage, words in STAGES.items():
        if words is None:
            until(lambda: idle(openqa), started)
        else:
            until(partial(said, running, instance, words), started)
        now = time.monotonic()
        seconds[stage], last = now - last, now
        print(f"{instance} {seconds[stage]:6.1f} s  {stage}", flush=True)
    until(lambda: state(running) == "InService", started)
    groups.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    until(lambda: not instances(running), time.monotonic())
    return seconds


def until(condition: Callable[[], Any], started: float) -> Any:
    """Waits for a condition and returns its value."""
    while not (value := condition()):
        if time.monotonic() > started + SECONDS:
            raise SystemExit(f"Not within {SECONDS} s.")
        time.sleep(0.2)
    return value


def instances(running: RunningCloud) -> list[str]:
    """The ids of the fleet's instances."""
    return [instance["InstanceId"] for instance in _instances(running)]


def state(running: RunningCloud) -> str:
    """The lifecycle state of the fleet's one instance."""
    return str(_instances(running)[0]["LifecycleState"])


def said(running: RunningCloud, instance: str, words: str) -> bool:
    """Whether an instance's console shows these words."""
    path = running.console(instance)
    return path.exists() and words in path.read_text(errors="replace")


def idle(openqa: OpenQa) -> bool:
    """Whether openQA has an idle worker."""
    workers = openqa.request("GET", "workers")["workers"]
    return any(worker["status"] == "idle" for worker in workers)


def _instances(running: RunningCloud) -> list[dict[str, Any]]:
    groups = running.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    found: list[dict[str, Any]] = groups["AutoScalingGroups"][0]["Instances"]
    return found
