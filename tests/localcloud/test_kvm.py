"""A deployment with two fleets: one whose hosts must have KVM and have not, one whose host is replaced."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment, smoke
from ops.deployment import OpenQa
from settings import ENVIRONMENTS
from tests.prerequisites import require_machine

pytestmark = pytest.mark.kvm

ROOT = Path(__file__).parents[2]
NAME = "test-kvm"
WORKERS = 2
FLEETS = f"""\
[[fleets]]
name = "nokvm"
architecture = "x86_64"
classes = ["qemu_x86_64"]
instance_types = ["m8i.large"]
virtualization = "nested"
min = 1
max = 1
cache_gib = 50

[[fleets]]
name = "names"
architecture = "x86_64"
classes = ["qemu_x86_64", "tpm"]
instance_types = ["t3.medium"]
virtualization = "none"
kvm = false
workers_per_host = {WORKERS}
min = 1
max = 1
volume_gib = 8
cache_gib = 2
"""
NO_KVM, NAMES = "openqa-kvm-fleet-nokvm", "openqa-kvm-fleet-names"
REFUSAL = "KVM does not work here, yet the environment says kvm = true"
SECONDS = 600


@dataclass(frozen=True)
class Deployed:
    """A deployment, and what its command said."""

    cloud: RunningCloud
    openqa: OpenQa
    code: int
    output: str

    def instances(self, group: str) -> dict[str, str]:
        """The lifecycle states of a group's instances."""
        groups = self.cloud.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        members = groups["AutoScalingGroups"][0]["Instances"]
        return {member["InstanceId"]: member["LifecycleState"] for member in members}

    def launched(self, group: str) -> list[str]:
        """All instances that a group ever launched, the oldest first."""
        answer = self.cloud.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=group)
        begin = "Launching a new EC2 instance: "
        found = [activity["Description"] for activity in reversed(answer["Activities"])]
        return [text.removeprefix(begin) for text in found if text.startswith(begin)]

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.openqa.request("GET", "workers")["workers"]
        return found

    def rows(self, instance: str) -> dict[int, int]:
        """The ids of the rows that openQA gave the workers of this instance, by number; all are idle."""

        def told() -> dict[int, int] | None:
            if self.cloud.leader(instance) is None:
                return None
            said = {
                number: self.inside(
                    instance,
                    f"journalctl -u openqa-worker@{number} | grep -o 'worker ID [0-9]*' | tail -1 || true",
                )
                for number in range(1, WORKERS + 1)
            }
            return (
                {number: int(text.split()[-1]) for number, text in said.items()}
                if all(said.values())
                else None
            )

        rows: dict[int, int] = wait_until(told)
        idle = {(w["host"], w["instance"], w["id"]) for w in self.workers() if w["status"] == "idle"}
        assert {("names-1", number, id) for number, id in rows.items()} <= idle
        return rows

    def leases(self) -> dict[str, str]:
        """The table of names: holder by name."""
        client = self.cloud.client("dynamodb")
        (table,) = client.list_tables()["TableNames"]
        return {
            f"{item['fleet']['S']}-{item['number']['N']}": item["instance"]["S"]
            for item in client.scan(TableName=table)["Items"]
        }

    def inside(self, instance: str, script: str) -> str:
        """What a shell script prints in an instance, as root; it must succeed."""
        leader = self.cloud.leader(instance)
        assert leader is not None
        done = subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--wd=/", "sh", "-ec", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(1)
    return value


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    require_machine()
    directory = tmp_path_factory.mktemp("environments")
    common, _, _ = (ENVIRONMENTS / "local.toml").read_text().partition("[[fleets]]")
    (directory / "kvm.toml").write_text(common + FLEETS)
    program = [sys.executable, "-m", "localcloud"]
    options = ["--api-port=0", "--web-port=0", "--no-smoke", f"--environments={directory}"]
    patch = pytest.MonkeyPatch()
    try:
        done = subprocess.run(
            [*program, "deploy", "kvm", f"--name={NAME}", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(done.stdout)
        found = cloud.find(NAME)
        assert found is not None
        for name, value in found.environment().items():
            patch.setenv(name, value)
        openqa = deployment.connect(environment="kvm", region=cloud.REGION, url=found.url)
        yield Deployed(cloud=found, openqa=openqa, code=done.returncode, output=done.stdout)
    finally:
        patch.undo()
        subprocess.run([*program, "down", f"--name={NAME}"], cwd=ROOT, check=True)


def test_the_deployment_says_which_host_failed_and_why(deployed: Deployed) -> None:
    assert deployed.code == 1
    first = deployed.launched(NO_KVM)[0]
    said = [line for line in deployed.output.splitlines() if line.startswith((first, NO_KVM))]
    assert said[0].startswith(f"{first} failed: first boot failed: {REFUSAL}"), deployed.output
    assert (
        f"{NO_KVM}: Launching a new EC2 instance: {first}: Cancelled: Lifecycle hook ready was abandoned"
        in ("\n".join(said))
    )
    assert "not all worker hosts came up" in deployed.output


def test_a_host_without_kvm_is_replaced_and_never_gets_a_worker_or_a_name(deployed: Deployed) -> None:
    wait_until(lambda: len(deployed.launched(NO_KVM)) >= 3)
    for instance in deployed.launched(NO_KVM)[:2]:
        wait_until(lambda: instance not in deployed.instances(NO_KVM))  # noqa: B023
        assert f"{REFUSAL}: exit code 1: QEMU exit code" in deployed.cloud.console(instance).read_text(
            errors="replace"
        )
    # One after the other: a failed launch never makes more hosts than the fleet has.
    assert len(deployed.instances(NO_KVM)) <= 2
    assert not [worker for worker in deployed.workers() if worker["host"].startswith("nokvm")]
    assert not [name for name in deployed.leases() if name.startswith("nokvm")]

    # What an operator does about it (docs/operating.md).
    autoscaling = deployed.cloud.client("autoscaling")
    autoscaling.suspend_processes(AutoScalingGroupName=NO_KVM, ScalingProcesses=["Launch"])
    wait_until(lambda: not deployed.instances(NO_KVM))
    activities = autoscaling.describe_scaling_activities(AutoScalingGroupName=NO_KVM)["Activities"]
    starts = sorted(
        activity["StartTime"] for activity in activities if activity["Description"].startswith("Launching")
    )
    print(f"{len(starts)} launches in {(starts[-1] - starts[0]).total_seconds():.0f} s")


def test_a_replaced_host_has_the_same_worker_rows(deployed: Deployed) -> None:
    (first,) = deployed.launched(NAMES)
    rows = deployed.rows(first)
    assert deployed.leases()["names-1"] == first
    highest = max(worker["id"] for worker in deployed.workers())

    # In order: it drains, and gives its name back.
    deployed.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    second = wait_until(lambda: next(iter(deployed.launched(NAMES)[1:]), None))
    assert deployed.rows(second) == rows
    assert deployed.leases()["names-1"] == second

    # Lost, as hosts are: nobody gives anything back.
    deployed.cloud.client("ec2").terminate_instances(InstanceIds=[second])
    third = wait_until(lambda: next(iter(deployed.launched(NAMES)[2:]), None))
    assert deployed.rows(third) == rows
    assert deployed.leases()["names-1"] == third
    assert max(worker["id"] for worker in deployed.workers()) == highest


def serving(deployed: Deployed) -> str:
    """The one host of the fleet that works."""
    found: list[str] = wait_until(
        lambda: [name for name, state in deployed.instances(NAMES).items() if state == "InService"]
    )
    return found[0]


def test_a_lease_that_was_lost_comes_back(deployed: Deployed) -> None:
    host = serving(deployed)
    client = deployed.cloud.client("dynamodb")
    (table,) = client.list_tables()["TableNames"]
    client.delete_item(TableName=table, Key={"fleet": {"S": "names"}, "number": {"N": "1"}})
    wait_until(lambda: deployed.leases().get("names-1") == host)


def test_a_job_gets_a_tpm(deployed: Deployed) -> None:
    serving(deployed)
    more = {"BUILD": "tpm", "WORKER_CLASS": "qemu_x86_64,tpm", "QEMUTPM": "instance"}
    job = int(deployed.openqa.request("POST", "jobs", data=json.loads(smoke.JOB.read_text()) | more)["id"])
    done = smoke.follow(deployed.openqa, job, seconds=SECONDS)
    assert done["result"] == "passed", done
    log = requests.get(f"{deployed.openqa.url}/tests/{job}/file/autoinst-log.txt", timeout=60).text
    assert "-device tpm-tis,tpmdev=tpm0" in log
