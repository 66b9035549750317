"""A deployment with two fleets: one whose hosts must have KVM and have not, one whose host is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from settings.model import LOCAL_REGION
from tests.localcloud.deployed import Deployment, deployed, until
from userdata.host import document, names
from userdata.host.host import Host
from userdata.host.layout import Layout

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


def replaced(made: Deployment, end: Callable[[], object]) -> str:
    """Ends the only host, and waits for the launch of its successor.

    It is gone before that: elsewhere hosts do not boot in the three seconds that another takes to shut down.
    """
    number = len(launched(made, NAMES))
    group = {"AutoScalingGroupName": made.group(NAMES)["AutoScalingGroupName"]}
    scaling = made.cloud.client("autoscaling")
    scaling.suspend_processes(**group, ScalingProcesses=["Launch"])
    end()
    until("it is gone", lambda: not made.instances(NAMES) or None)
    scaling.resume_processes(**group, ScalingProcesses=["Launch"])
    return launch(made, NAMES, number + 1)


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
        assert f"{REFUSAL}: QEMU exit code" in made.cloud.console(instance).read_text(errors="replace")
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
    second = replaced(
        made,
        lambda: made.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=first, ShouldDecrementDesiredCapacity=False
        ),
    )
    assert rows(made, second) == before
    assert leases(made)["names-1"] == second

    # Lost, as hosts are: nobody gives anything back.
    third = replaced(made, lambda: made.cloud.client("ec2").terminate_instances(InstanceIds=[second]))
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


ROLE_CREDENTIALS = """
import boto3, json
print(json.dumps(boto3.Session().get_credentials().get_frozen_credentials()))
"""


class PlayedHosts:
    """More hosts of a fleet, which need not boot: they lease names in the fleet's table, with its role."""

    def __init__(self, made: Deployment, group: str, directory: Path) -> None:
        self._made = made
        self._group = group
        self._directory = directory
        self._there: list[str] = []
        (real,) = made.serving(group)
        self._document = directory / "host.json"
        self._document.write_text(made.run(real, "cat", "/etc/openqa-on-aws/host.json").stdout)
        asked = made.run(real, "python3", "-c", ROLE_CREDENTIALS)
        key, secret, token, *_ = json.loads(asked.stdout)
        dynamodb = boto3.client(
            "dynamodb",
            region_name=LOCAL_REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
        )
        self._client: Callable[[str], Any] = {"autoscaling": self, "dynamodb": dynamodb}.__getitem__

    def describe_auto_scaling_groups(self, **_: Any) -> dict[str, Any]:
        """What AWS says of the group, with the played hosts in it."""
        real = self._made.group(self._group)["Instances"]
        return {"AutoScalingGroups": [{"Instances": [*real, *({"InstanceId": i} for i in self._there)]}]}

    def come(self, instance: str) -> Host:
        """A host comes and takes its name."""
        self._there.append(instance)
        host = Host(
            document=document.load(self._document),
            layout=Layout(self._directory / instance),
            instance=instance,
            instance_type="t3.medium",
            address="10.99.1.40",
            client=self._client,
        )
        names.take(host)
        return host

    def go(self, host: Host, *, gives_back: bool) -> None:
        """A host goes, in order or lost."""
        if gives_back:
            names.release(host)
        self._there.remove(host.instance)


def register(made: Deployment, host: Host) -> list[int]:
    """Registers a host's workers as they do it (OpenQA::Worker::WebUIConnection); the ids of their rows."""
    worker = {
        "host": host.name,
        "cpu_arch": "x86_64",
        "mem_max": "4096",
        "worker_class": "nobody-wants-it",
        "websocket_api_version": "1",
    }
    numbers = range(1, WORKERS + 1)
    return [made.openqa.request("POST", "workers", data=worker | {"instance": n})["id"] for n in numbers]


# The last test: openQA believes in these hosts for a while.
def test_a_hundred_hosts_one_after_the_other_use_the_same_rows(made: Deployment, tmp_path: Path) -> None:
    hosts = PlayedHosts(made, NAMES, tmp_path)
    host = hosts.come("i-0")
    ids = register(made, host)
    highest = max(worker["id"] for worker in workers(made))
    assert highest == max(ids)
    for number in range(1, 100):
        # Some say good-bye, others just go.
        hosts.go(host, gives_back=bool(number % 2))
        host = hosts.come(f"i-{number}")
        assert (host.name, register(made, host)) == ("names-2", ids)
    assert max(worker["id"] for worker in workers(made)) == highest

    # Beside the last of them, one more has a name that nobody ever had.
    another = hosts.come("i-another")
    assert another.name == "names-3"
    assert min(register(made, another)) > highest
