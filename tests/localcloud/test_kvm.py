"""A deployment with two fleets: one whose hosts must have KVM and have not, one whose host is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.localcloud.deployed import Deployment, deployed, until

pytestmark = pytest.mark.kvm

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
NO_KVM, NAMES = "fleet-nokvm", "fleet-names"
REFUSAL = "KVM does not work here, yet the environment says kvm = true"


@pytest.fixture(scope="module")
def made() -> Iterator[Deployment]:
    with deployed("kvm", fleets=FLEETS, check=False) as deployment:
        yield deployment


def launched(made: Deployment, group: str) -> list[str]:
    """All instances that a group ever launched, the oldest first."""
    name = made.group(group)["AutoScalingGroupName"]
    answer = made.cloud.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=name)
    begin = "Launching a new EC2 instance: "
    found = [activity["Description"] for activity in reversed(answer["Activities"])]
    return [text.removeprefix(begin) for text in found if text.startswith(begin)]


def launch(made: Deployment, group: str, number: int) -> str:
    """Waits for a group's launch, counted from 1."""
    return until(f"launch {number} of {group}", lambda: next(iter(launched(made, group)[number - 1 :]), None))


def workers(made: Deployment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.openqa.request("GET", "workers")["workers"]
    return found


def rows(made: Deployment, instance: str) -> dict[int, int]:
    """The ids of the rows that openQA gave the workers of this instance, by number; all are idle."""

    def told() -> dict[int, int] | None:
        if made.cloud.leader(instance) is None:
            return None
        script = "journalctl -u openqa-worker@{} | grep -o 'worker ID [0-9]*' | tail -1 || true"
        said = {
            number: made.run(instance, "sh", "-ec", script.format(number)).stdout
            for number in range(1, WORKERS + 1)
        }
        return (
            {number: int(text.split()[-1]) for number, text in said.items()} if all(said.values()) else None
        )

    found = until(f"the workers of {instance} are registered", told)
    idle = {(w["host"], w["instance"], w["id"]) for w in workers(made) if w["status"] == "idle"}
    assert {("names-1", number, id) for number, id in found.items()} <= idle
    return found


def leases(made: Deployment) -> dict[str, str]:
    """The table of names: holder by name."""
    client = made.cloud.client("dynamodb")
    (table,) = client.list_tables()["TableNames"]
    return {
        f"{item['fleet']['S']}-{item['number']['N']}": item["instance"]["S"]
        for item in client.scan(TableName=table)["Items"]
    }


def test_the_deployment_says_which_host_failed_and_why(made: Deployment) -> None:
    assert made.code == 1
    group = made.group(NO_KVM)["AutoScalingGroupName"]
    first = launched(made, NO_KVM)[0]
    said = [line for line in made.output.splitlines() if line.startswith((first, group))]
    # A host that is lost as soon as it has told its group may not get to its last words.
    assert (
        said[0].removeprefix(f"{first} failed: ").removeprefix("first boot failed: ").startswith(REFUSAL)
    ), made.output[-4000:]
    assert (
        f"{group}: Launching a new EC2 instance: {first}: Cancelled: Lifecycle hook ready was abandoned"
        in ("\n".join(said))
    )
    assert "not all worker hosts came up" in made.output
    # What an operator reads where no console is at hand, sent with the host's own role.
    (event,) = [event for event in made.cloud.host_events() if event["detail"]["instance"] == first]
    assert event["source"] == f"openqa.{made.name}"
    assert event["detail-type"] == "openQA host failed"
    assert event["detail"]["group"] == group
    assert event["detail"]["reason"].startswith(REFUSAL)


def test_a_host_without_kvm_is_replaced_and_never_gets_a_worker_or_a_name(made: Deployment) -> None:
    launch(made, NO_KVM, 3)
    for instance in launched(made, NO_KVM)[:2]:
        until(f"{instance} is gone", lambda: instance not in made.instances(NO_KVM) or None)  # noqa: B023
        assert f"{REFUSAL}: exit code 1: QEMU exit code" in made.cloud.console(instance).read_text(
            errors="replace"
        )
    # One after the other: a failed launch never makes more hosts than the fleet has.
    assert len(made.instances(NO_KVM)) <= 2
    assert not [worker for worker in workers(made) if worker["host"].startswith("nokvm")]
    assert not [name for name in leases(made) if name.startswith("nokvm")]

    # What an operator does about it (docs/operating.md).
    made.cloud.client("autoscaling").suspend_processes(
        AutoScalingGroupName=made.group(NO_KVM)["AutoScalingGroupName"], ScalingProcesses=["Launch"]
    )
    until("no host is left", lambda: not made.instances(NO_KVM) or None)


def test_a_replaced_host_has_the_same_worker_rows(made: Deployment) -> None:
    (first,) = launched(made, NAMES)
    before = rows(made, first)
    assert leases(made)["names-1"] == first
    highest = max(worker["id"] for worker in workers(made))

    # In order: it drains, and gives its name back.
    made.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=first, ShouldDecrementDesiredCapacity=False
    )
    second = launch(made, NAMES, 2)
    assert rows(made, second) == before
    assert leases(made)["names-1"] == second

    # Lost, as hosts are: nobody gives anything back.
    made.cloud.client("ec2").terminate_instances(InstanceIds=[second])
    third = launch(made, NAMES, 3)
    assert rows(made, third) == before
    assert leases(made)["names-1"] == third
    assert max(worker["id"] for worker in workers(made)) == highest


def test_a_lease_that_was_lost_comes_back(made: Deployment) -> None:
    (host,) = made.serving(NAMES)
    client = made.cloud.client("dynamodb")
    (table,) = client.list_tables()["TableNames"]
    client.delete_item(TableName=table, Key={"fleet": {"S": "names"}, "number": {"N": "1"}})
    until("the lease is back", lambda: leases(made).get("names-1") == host or None)


def test_a_job_gets_a_tpm(made: Deployment) -> None:
    made.serving(NAMES)
    (job,) = made.schedule("tpm", WORKER_CLASS="qemu_x86_64,tpm", QEMUTPM="instance")
    made.passed([job])
    log = requests.get(f"{made.openqa.url}/tests/{job}/file/autoinst-log.txt", timeout=60).text
    assert "-device tpm-tis,tpmdev=tpm0" in log
