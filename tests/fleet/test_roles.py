"""How hosts of each role end, and how workers are closed and opened."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from fleet import roles
from tests.userdata import machine
from userdata.host.errors import HostError


def test_workers_are_told_to_finish_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = machine.Programs(
        answers={"podman ps": "openqa-cacheservice\nopenqa-worker-2\nopenqa-worker-20\n"}
    )
    monkeypatch.setattr(roles, "run", programs.run)
    workers = roles.ContainerWorkers(2, tmp_path / "closed")
    workers.drain()
    assert programs.started("podman", "kill") == [("podman", "kill", "--signal=HUP", "openqa-worker-2")]
    assert workers.busy() == 1
    workers.stop()
    assert programs.calls[-1] == ("systemctl", "stop", "openqa-worker@1.service", "openqa-worker@2.service")


def test_a_workers_name_is_not_part_of_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = machine.Programs(answers={"podman ps": "openqa-worker-10\n"})
    monkeypatch.setattr(roles, "run", programs.run)
    assert roles.ContainerWorkers(10, tmp_path / "closed").busy() == 1


def test_a_worker_of_a_tap_host_that_stops_still_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = machine.Programs()
    monkeypatch.setattr(roles, "run", programs.run)
    roles.HostWorkers(2, tmp_path / "closed").busy()
    (asked,) = programs.calls
    assert "--state=active,activating,deactivating" in asked


def test_workers_of_a_tap_host_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = machine.Programs(
        answers={
            "systemctl list-units": "openqa-worker-plain@2.service loaded active running openQA Worker #2\n"
        }
    )
    monkeypatch.setattr(roles, "run", programs.run)
    workers = roles.HostWorkers(2, tmp_path / "closed")
    workers.drain()
    assert programs.started("systemctl", "kill") == [
        ("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "openqa-worker-plain@2.service")
    ]
    assert workers.busy() == 1
    workers.stop()
    assert programs.calls[-1][2:] == ("openqa-worker-plain@1.service", "openqa-worker-plain@2.service")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("webui", roles.Stateful),
        ("worker", roles.ContainerWorkers),
        ("worker-vde", roles.ContainerWorkers),
        ("worker-tap", roles.HostWorkers),
        ("worker-mesh", roles.HostWorkers),
        ("builder", roles.Builder),
    ],
)
def test_each_kind_of_host_goes_its_way(tmp_path: Path, name: str, kind: type) -> None:
    assert isinstance(roles.role_of(machine.host(tmp_path, name)), kind)


def test_every_worker_of_a_host_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine.host(tmp_path, "worker", instance_type="m8i.2xlarge")
    assert host.document.worker is not None
    count = host.document.worker.count(host.instance_type)
    assert count > 1
    programs = machine.Programs(
        answers={"podman ps": "".join(f"openqa-worker-{number}\n" for number in range(1, count + 1))}
    )
    monkeypatch.setattr(roles, "run", programs.run)
    roles.role_of(host).drain()
    assert len(programs.started("podman", "kill")) == count


@mock_aws
def test_a_stateful_host_unmounts_then_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    ec2 = boto3.client("ec2", region_name=machine.REGION)
    subnet = ec2.describe_subnets()["Subnets"][0]
    instance = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnet["SubnetId"])
    identity = instance["Instances"][0]["InstanceId"]
    volume = ec2.create_volume(AvailabilityZone=subnet["AvailabilityZone"], Size=1)["VolumeId"]
    interface = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]
    ec2.attach_volume(VolumeId=volume, InstanceId=identity, Device="/dev/sdf")
    ec2.attach_network_interface(
        NetworkInterfaceId=interface["NetworkInterfaceId"], InstanceId=identity, DeviceIndex=1
    )
    document = machine.read("database")
    document["volume"] = {"id": volume}
    document["interface"]["id"] = interface["NetworkInterfaceId"]
    host = machine.host(tmp_path, document, instance=identity)
    seen: list[str] = []

    def run(arguments: list[str], **_: object) -> str:
        attached = ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"]
        seen.append(f"{' '.join(arguments)}: {attached}")
        return ""

    monkeypatch.setattr(roles, "run", run)
    roles.Stateful(host).stop()
    assert seen == [
        "systemctl stop openqa-on-aws.target: in-use",
        "systemctl stop srv-data.mount: in-use",
    ]
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"
    left = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface["NetworkInterfaceId"]])
    assert left["NetworkInterfaces"][0]["Status"] == "available"


def test_what_a_host_does_not_have_it_need_not_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = machine.host(tmp_path, "database")
    host = replace(host, document=replace(host.document, volume=None, interface=None))
    programs = machine.Programs()
    monkeypatch.setattr(roles, "run", programs.run)
    roles.Stateful(replace(host, client=lambda service: None)).stop()
    assert [call[-1] for call in programs.calls] == ["openqa-on-aws.target", "srv-data.mount"]


def test_a_builder_that_goes_ends_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = machine.Programs()
    monkeypatch.setattr(roles, "run", programs.run)
    builder = roles.role_of(machine.host(tmp_path, "builder"))
    builder.drain()
    assert (builder.busy(), programs.calls) == (0, [])
    builder.stop()
    assert programs.calls == [("systemctl", "stop", "disk-image-build.service")]


class Machine:
    """systemd and podman of a host with three workers, of which 1 has a job."""

    def __init__(self) -> None:
        self.running = {1, 2, 3}
        self.said: list[str] = []

    def run(self, command: list[str], **_: object) -> str:
        match command:
            case ["podman", "ps", *_]:
                return "".join(f"openqa-worker-{number}\n" for number in self.running)
            case ["systemctl", "list-units", *_]:
                return "".join(f"openqa-worker-plain@{number}.service active\n" for number in self.running)
            case ["systemctl", "start", "--no-block", unit]:
                number = int(unit.split("@")[1].removesuffix(".service"))
                self.running.add(number)
                self.said.append(f"start {number}")
            case ["podman" | "systemctl", "kill", *_, target]:
                number = int(target.removesuffix(".service")[-1])
                self.said.append(f"tell {number}")
                if number != 1:
                    self.running.discard(number)
        return ""


@pytest.mark.parametrize("kind", [roles.ContainerWorkers, roles.HostWorkers])
def test_workers_are_closed_and_opened_again(
    kind: type[roles.Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Machine()
    monkeypatch.setattr(roles, "run", host.run)

    def close(*numbers: int) -> list[str]:
        host.said.clear()
        kind(3, tmp_path / "closed").close(frozenset(numbers))  # another agent each time: one may have died
        return list(host.said)

    assert close() == []
    assert close(1, 2, 9) == ["tell 1", "tell 2"]
    assert close(1, 2) == [], "1 finishes its job"
    host.running.add(2)
    assert close(1, 2) == ["tell 2"], "it had been about to start"
    assert close() == ["start 2"], "1 is told to go: it comes back when it has gone"
    host.running.discard(1)
    assert close() == ["start 1"]
    assert close() == []
    assert host.running == {1, 2, 3}


def test_a_worker_that_systemd_cannot_start_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Machine()
    monkeypatch.setattr(roles, "run", host.run)
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    workers.close(frozenset({2}))
    workers.close(frozenset())
    host.running.discard(2)  # what it requires failed
    workers.close(frozenset())
    workers.close(frozenset())
    assert host.said == ["tell 2", "start 2", "start 2"]
    assert list((tmp_path / "closed").iterdir()) == []


def test_a_worker_that_shall_go_while_it_starts_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Machine()
    monkeypatch.setattr(roles, "run", host.run)
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    for wanted in ({2}, set[int](), {2}, set[int]()):
        workers.close(frozenset(wanted))
    assert host.said == ["tell 2", "start 2", "tell 2", "start 2"]


@pytest.mark.parametrize(
    ("closed", "started"), [(set[int](), ["start 1", "start 2", "start 3"]), ({3}, ["start 1", "start 2"])]
)
def test_a_worker_that_ended_by_itself_is_started_again(
    closed: set[int], started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Machine()
    clock = [0.0]
    monkeypatch.setattr(roles, "run", host.run)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    workers.close(frozenset())
    host.running.clear()
    for clock[0] in (roles.LOOK_SECONDS - 1, roles.LOOK_SECONDS):
        workers.close(frozenset(closed))
        assert host.said == [], "it may be about to start"
    clock[0] = 2 * roles.LOOK_SECONDS
    workers.close(frozenset(closed))
    assert host.said == started


def test_a_worker_is_closed_at_once_and_nobody_is_asked_where_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, asked = Machine(), list[list[str]]()

    def run(command: list[str], **_: object) -> str:
        asked.append(command[:2])
        return host.run(command)

    monkeypatch.setattr(roles, "run", run)
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    workers.close(frozenset())
    workers.close(frozenset())
    assert asked == [["podman", "ps"]], "it has just been looked"
    workers.close(frozenset({2}))
    assert host.said == ["tell 2"]


def test_a_worker_that_did_not_hear_is_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Machine()
    monkeypatch.setattr(roles, "run", host.run)
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    workers.close(frozenset({1}))
    long_ago = time.time() - roles.TOLD_AGAIN_SECONDS
    os.utime(tmp_path / "closed/1", (long_ago, long_ago))
    workers.close(frozenset({1}))
    assert host.said == ["tell 1", "tell 1"]


def test_a_worker_that_cannot_be_told_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Machine()

    def run(command: list[str], **more: object) -> str:
        if command[-1] == "openqa-worker-1":
            raise HostError("no such process")
        return host.run(command, **more)

    monkeypatch.setattr(roles, "run", run)
    workers = roles.ContainerWorkers(3, tmp_path / "closed")
    workers.close(frozenset({1, 2}))
    workers.close(frozenset({1}))
    assert host.said == ["tell 2", "start 2"]
    workers.drain()
    assert host.said == ["tell 2", "start 2", "tell 2", "tell 3"]
