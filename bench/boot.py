"""From a host's launch to its first idle worker, with a golden image and without: ``python -m bench.boot``.

Deploys the local environment twice, from a golden root and from Debian's base root, where the first
boot installs packages from the distribution's archive and container images from S3. Needs root and the
internet; takes about fifteen minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from statistics import median

import settings
from bench.deployment_helpers import ENVIRONMENT, FLEET, deployed, hosts, inside, until
from fleet.simulate.options import whole
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa

GOAL = 0.2  # of the time that it takes without a golden image
# What the console says when a stage is over (userdata/bootstrap.sh).
CONSOLE = {
    "launch, boot, fetching the bundle": "installing for the role",
    "installing packages and images": "preparing the host",
    "preparing the host": "starting openQA's services",
}
# A worker's journal and openQA tell when the last two end.
STARTS, REGISTERS = "starting podman, cache and worker", "openQA's own registration"
STAGES = (*CONSOLE, STARTS, REGISTERS)


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; returns 1 where the goal is missed.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.boot", description=(__doc__ or "").split(":")[0])
    parser.add_argument(
        "--runs", type=whole(1, 100), default=3, help="how many hosts of each kind to launch (%(default)s)"
    )
    runs = parser.parse_args(arguments).runs
    golden, plain = measure(golden=True, runs=runs), measure(golden=False, runs=runs)
    print(f"\n{f'medians of {runs} hosts each, seconds':40} golden  without  golden/without")
    for stage in STAGES:
        print(f"  {stage:38} {golden[stage]:6.1f}  {plain[stage]:7.1f}")
    with_it, without = sum(golden.values()), sum(plain.values())
    print(f"  {'all':38} {with_it:6.1f}  {without:7.1f}  {with_it / without:14.2f}")
    print(f"{REGISTERS}: {golden[REGISTERS] / with_it:.0%} of a golden host's time")
    missed = with_it > GOAL * without
    print(f"goal: at most {GOAL}: {'missed' if missed else 'met'}")
    return int(missed)


def measure(*, golden: bool, runs: int) -> dict[str, float]:
    """Deploys, launches hosts one after the other, and removes all of it.

    Args:
        golden: boot from a golden root.
        runs: how many hosts.

    Returns:
        The median seconds of each stage.
    """
    changes = {"min = 1": "min = 0", "golden = true": f"golden = {str(golden).lower()}"}
    with deployed(changes, internet=True) as running:
        environment = settings.load("local").model_copy(update={"name": ENVIRONMENT})
        openqa = deployment.connect(environment, url=running.url)
        launched = [launch(running, openqa) for _ in range(runs)]
    return {stage: median(host[stage] for host in launched) for stage in STAGES}


def launch(running: RunningCloud, openqa: OpenQa) -> dict[str, float]:
    """Launches a host, watches it until its worker is idle, and ends it.

    Args:
        running: the cloud; the fleet has no host.
        openqa: its openQA.

    Returns:
        The seconds of each stage.
    """
    groups = running.client("autoscaling")
    last = time.monotonic()
    groups.set_desired_capacity(AutoScalingGroupName=FLEET, DesiredCapacity=1)
    (instance,) = until(lambda: hosts(running))
    seconds = {}
    for stage, words in CONSOLE.items():
        until(partial(said, running, instance, words))
        now = time.monotonic()
        seconds[stage], last = now - last, now
    until(partial(idle, openqa))
    end, now = time.monotonic(), time.time()
    # Read afterwards, so that no reading slows the start down.
    seconds[REGISTERS] = now - registering(running, instance)
    seconds[STARTS] = end - last - seconds[REGISTERS]
    for stage in STAGES:
        print(f"  {instance} {seconds[stage]:6.1f} s  {stage}", flush=True)
    until(lambda: hosts(running)[instance] == "InService")
    groups.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)
    until(lambda: not hosts(running))
    return seconds


def said(running: RunningCloud, instance: str, words: str) -> bool:
    """Whether an instance's console shows these words."""
    path = running.console(instance)
    return path.exists() and words in path.read_text(errors="replace")


def registering(running: RunningCloud, instance: str) -> float:
    """When a worker of an instance first began to register, in seconds since 1970."""
    journal = "journalctl --unit='openqa-worker@*' --output=short-unix --no-pager"
    (first,) = inside(running, instance, f"{journal} | grep -m1 'Registering with openQA'").splitlines()
    return float(first.split()[0])


def idle(openqa: OpenQa) -> bool:
    """Whether openQA has an idle worker."""
    workers = openqa.request("GET", "workers")["workers"]
    return any(worker["status"] == "idle" for worker in workers)


if __name__ == "__main__":
    sys.exit(main())
