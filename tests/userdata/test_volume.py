"""The data volume: never taken from another instance, never formatted when there is anything on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.userdata import machine
from userdata.host import interface, volume
from userdata.host.aws import await_running
from userdata.host.errors import HostError

GOLDEN = Path(__file__).parent / "golden"

MINE, OTHER = "i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb"


class Ec2:
    """EC2 with one volume, whose states follow a script; takes note of what is asked."""

    def __init__(self, *states: tuple[str, str | None] | tuple[str, str, str]) -> None:
        self.states = list(states)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def describe_volumes(self, **_: Any) -> dict[str, Any]:
        state, holder, *how = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        attachments = [{"InstanceId": holder, "State": (*how, "attached")[0]}] if holder else []
        return {"Volumes": [{"State": state, "Attachments": attachments}]}

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        def call(**arguments: Any) -> dict[str, Any]:
            self.calls.append((name, arguments))
            return {}

        return call


def attach(ec2: Ec2) -> None:
    volume.attach(ec2, volume="vol-1", instance=MINE, sleep=lambda _: None)


def test_a_free_volume_is_attached() -> None:
    ec2 = Ec2(("available", None), ("in-use", MINE, "attaching"), ("in-use", MINE), ("in-use", OTHER))
    attach(ec2)
    assert ec2.states == [("in-use", OTHER)], "what is being attached is waited for"
    assert ec2.calls == [("attach_volume", {"VolumeId": "vol-1", "InstanceId": MINE, "Device": "/dev/sdf"})]


def test_a_volume_that_is_mine_already_is_left_alone() -> None:
    ec2 = Ec2(("in-use", MINE))
    attach(ec2)
    assert ec2.calls == []


def test_the_old_host_is_waited_for() -> None:
    ec2 = Ec2(("in-use", OTHER), ("in-use", OTHER), ("available", None), ("in-use", MINE))
    attach(ec2)
    assert [name for name, _ in ec2.calls] == ["attach_volume"]


@given(st.lists(st.sampled_from(["in-use", "creating", "error"]), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_host_is_never_robbed(states: list[str]) -> None:
    ec2 = Ec2(*((state, OTHER) for state in states))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume, "FREE_SECONDS", 0)
        with pytest.raises(HostError, match="volume vol-1 to be released"):
            attach(ec2)
    assert ec2.calls == []


def test_nothing_in_the_code_forces() -> None:
    for folder in (machine.REPOSITORY / "userdata", machine.REPOSITORY / "fleet"):
        for path in folder.rglob("*.py"):
            assert "Force=True" not in path.read_text(), path
    ec2 = Ec2(("in-use", MINE))
    volume.detach(ec2, volume="vol-1", instance=MINE)
    assert ec2.calls == [("detach_volume", {"VolumeId": "vol-1", "InstanceId": MINE, "Force": False})]


def test_only_the_own_volume_is_detached() -> None:
    ec2 = Ec2(("in-use", OTHER))
    volume.detach(ec2, volume="vol-1", instance=MINE)
    assert ec2.calls == []


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A blank disk."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    return path


def test_a_blank_disk_is_formatted_once(disk: Path) -> None:
    machine.program("mkfs.ext4", arguments=("-V",))
    assert volume.ensure_filesystem(disk)
    made = about(disk)["Filesystem UUID"]
    change(disk, f"write {__file__} kept")
    assert not volume.ensure_filesystem(disk)
    assert about(disk)["Filesystem UUID"] == made
    assert content(disk, "kept") == Path(__file__).read_text()


class CutError(BaseException):
    """The host's end."""


@pytest.mark.parametrize("written", range(12))
def test_a_file_system_whose_making_was_cut_off_is_made_anew(
    disk: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    machine.program("mkfs.ext4", arguments=("-V",))
    put, left = os.pwrite, written

    def cut(*arguments: Any) -> int:
        nonlocal left
        if not left:
            raise CutError
        left -= 1
        return put(*arguments)

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(os, "pwrite", cut)
        volume.ensure_filesystem(disk)
    assert volume.ensure_filesystem(disk)
    change(disk, f"write {__file__} kept")
    subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=True)
    assert not volume.ensure_filesystem(disk)
    assert content(disk, "kept") == Path(__file__).read_text()


def test_nothing_is_said_to_be_unfinished_but_what_says_so_itself(disk: Path) -> None:
    assert not volume.is_unfinished(disk)
    with disk.open("r+b") as file:
        file.write(volume.UNFINISHED[:-1] + b"x")
    assert not volume.is_unfinished(disk)


def test_a_volume_is_shown_once_it_is_there_and_checked(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("mkfs.ext4", arguments=("-V",))
    volume.ensure_filesystem(disk)
    change(disk, "set_super_value state 2")
    monkeypatch.setattr(volume, "find_device", {"vol-1": disk}.__getitem__)
    link = tmp_path / "run/link"
    for _ in range(2):  # a second time where an operator starts it again
        volume.show("vol-1", link)
        assert link.readlink() == disk
    assert about(disk)["Filesystem state"] == "clean"


def about(disk: Path) -> dict[str, str]:
    told = subprocess.run(["dumpe2fs", "-h", disk], capture_output=True, text=True, check=True).stdout
    lines = (line.split(":", 1) for line in told.splitlines() if ":" in line)
    return {key: value.strip() for key, value in lines}


def content(disk: Path, name: str) -> str:
    done = subprocess.run(["debugfs", "-R", f"cat {name}", disk], capture_output=True, text=True, check=True)
    return done.stdout


def change(disk: Path, *commands: str) -> None:
    for command in commands:
        subprocess.run(["debugfs", "-w", "-R", command, disk], capture_output=True, check=True)


def test_a_file_system_with_an_error_is_repaired(disk: Path) -> None:
    volume.ensure_filesystem(disk)
    change(disk, f"write {__file__} kept", "set_super_value state 2", "set_super_value free_blocks_count 1")
    assert about(disk)["Filesystem state"] == "not clean with errors"
    assert not volume.ensure_filesystem(disk)
    assert about(disk)["Filesystem state"] == "clean"
    assert int(about(disk)["Free blocks"]) > 1
    assert content(disk, "kept") == Path(__file__).read_text()


def test_a_file_system_that_needs_a_person_is_refused(disk: Path) -> None:
    volume.ensure_filesystem(disk)
    change(disk, "clri <2>", "set_super_value state 2")
    with pytest.raises(HostError, match=r"the file system on \S+ needs manual repair with e2fsck"):
        volume.ensure_filesystem(disk)


def test_a_file_system_becomes_as_large_as_its_disk(disk: Path) -> None:
    machine.program("mkfs.ext4", arguments=("-V",))
    volume.ensure_filesystem(disk)
    unit = GOLDEN / "webui/etc/systemd/system/data-volume-growth.service"
    (start,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    *command, _ = start.removeprefix("ExecStart=").split()

    def blocks() -> int:
        return int(about(disk)["Block count"])

    small = blocks()
    with disk.open("r+b") as file:
        file.truncate(4 * 16 * 1024 * 1024)
    for _ in range(2):
        subprocess.run([*command, disk], check=True)
        assert blocks() == 4 * small


@pytest.mark.parametrize(
    "make",
    [
        ["mkswap"],
        ["sfdisk", "--quiet", "--label", "gpt"],
    ],
    ids=lambda make: make[0],
)
def test_a_disk_with_a_signature_is_never_formatted(disk: Path, make: list[str]) -> None:
    machine.program(make[0])
    subprocess.run([*make, str(disk)], input=",\n", text=True, check=True, capture_output=True)
    before = disk.read_bytes()
    with pytest.raises(HostError, match="not ext4: refusing"):
        volume.ensure_filesystem(disk)
    assert disk.read_bytes() == before


@given(
    position=st.integers(min_value=0, max_value=1024 * 1024 - 1), byte=st.integers(min_value=1, max_value=255)
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_disk_that_is_not_blank_is_never_formatted(disk: Path, position: int, byte: int) -> None:
    content = bytearray(16 * 1024 * 1024)
    content[position] = byte
    disk.write_bytes(content)
    programs = machine.Programs()
    with pytest.MonkeyPatch.context() as patch:
        machine.install(programs, patch)
        with pytest.raises(HostError, match="not blank: refusing to format"):
            volume.ensure_filesystem(disk)
    assert not any(call[0].startswith("mkfs") for call in programs.calls)


def test_a_disk_whose_beginning_is_lost_is_never_formatted(disk: Path) -> None:
    machine.program("mkfs.ext4", arguments=("-V",))
    with disk.open("r+b") as file:
        file.truncate(256 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", str(disk)], check=True)
        file.write(bytes(volume.BLANK_BYTES))
    with pytest.raises(HostError, match="not blank: refusing to format"):
        volume.ensure_filesystem(disk)


def test_an_unreadable_disk_is_not_taken_for_a_blank_one(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read"):
        volume.ensure_filesystem(tmp_path / "missing")


def test_the_device_is_found_by_the_volumes_id() -> None:
    path = volume.device_path("vol-0123456789abcdef0")
    assert str(path) == "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"


def test_a_host_that_ec2_does_not_yet_take_for_running_is_waited_for(aws: None) -> None:
    ec2 = boto3.client("ec2", region_name=machine.REGION)
    launched = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    ec2.stop_instances(InstanceIds=[launched])
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        ec2.start_instances(InstanceIds=[launched])

    await_running(ec2, launched, sleep=sleep)
    assert len(pauses) == 1


def test_the_interface_is_attached_and_released(aws: None) -> None:
    ec2 = boto3.client("ec2", region_name=machine.REGION)
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    mine, other = (
        ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnet)["Instances"][0][
            "InstanceId"
        ]
        for _ in range(2)
    )
    fixed = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    interface.attach(ec2, interface=fixed, instance=mine)
    interface.attach(ec2, interface=fixed, instance=mine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interface, "FREE_SECONDS", 0)
        with pytest.raises(HostError, match=f"interface {fixed} to be released"):
            interface.attach(ec2, interface=fixed, instance=other, sleep=lambda _: None)
    interface.detach(ec2, interface=fixed, instance=other)
    interface.detach(ec2, interface=fixed, instance=mine)
    interface.attach(ec2, interface=fixed, instance=other)


def test_the_link_is_found_by_its_hardware_address(tmp_path: Path) -> None:
    for name, mac in (("lo", "00:00:00:00:00:00"), ("ens6", "02:AB:00:00:00:01")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text(f"{mac}\n")
    assert interface.find_link("02:ab:00:00:00:01", links=tmp_path) == "ens6"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interface, "APPEAR_SECONDS", 0)
        with pytest.raises(HostError, match="hardware address 02:ff"):
            interface.find_link("02:ff", links=tmp_path, sleep=lambda _: None)
