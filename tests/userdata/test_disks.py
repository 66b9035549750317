"""Instance-store disks: found by what they are, made into one file system, mounted."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.prerequisites import missing
from tests.userdata import machine
from userdata.host import disks
from userdata.host.errors import HostError
from userdata.host.layout import Layout

STORE = disks.MODEL
EBS = "Amazon Elastic Block Store"


class Machine:
    """A folder with the /sys and /dev of a machine; a device is whatever was added."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(root)
        self._numbers: dict[str, str] = {}
        (root / "dev").mkdir()
        patch.setattr(disks, "_number", lambda path: self._numbers.get(path.name))

    def add(self, name: str, model: str | None, *, node: bool = True, hidden: bool = False) -> None:
        block = self.layout.root / "sys/block" / name
        (block / "holders").mkdir(parents=True)
        number = f"259:{len(self._numbers)}"
        (block / "dev").write_text(f"{number}\n")
        (block / "hidden").write_text(f"{int(hidden)}\n")
        if model is not None:
            (block / "device").mkdir()
            # The kernel fills the field of 40 characters with blanks.
            (block / "device/model").write_text(f"{model:<40}\n")
        self._numbers[name] = number if node else "none"

    def found(self) -> list[str]:
        return [disk.name for disk in disks.find(self.layout.root)]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("models", "found"),
    [
        ({}, []),
        ({"nvme0n1": EBS, "nvme1n1": EBS}, []),
        ({"nvme0n1": EBS, "nvme1n1": STORE}, ["nvme1n1"]),
        # The same machine at its next boot.
        ({"nvme0n1": STORE, "nvme1n1": EBS}, ["nvme0n1"]),
        (
            {"nvme0n1": STORE, "nvme1n1": STORE, "nvme2n1": EBS, "nvme3n1": STORE},
            ["nvme0n1", "nvme1n1", "nvme3n1"],
        ),
        ({"loop0": None, "md127": None, "sda": "QEMU HARDDISK"}, []),
    ],
)
def test_disks_are_found_by_what_they_are(
    made: Machine, models: dict[str, str | None], found: list[str]
) -> None:
    for name, model in models.items():
        made.add(name, model)
    assert made.found() == found


def test_paths_and_foreign_disks_are_left_alone(made: Machine) -> None:
    made.add("nvme1n1", STORE)
    made.add("nvme1c1n1", STORE, hidden=True)
    # Of the machine around this container.
    made.add("nvme2n1", STORE, node=False)
    assert made.found() == ["nvme1n1"]


def test_a_device_is_known_by_its_number(tmp_path: Path) -> None:
    assert disks._number(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert disks._number(tmp_path / "file") is None
    if os.geteuid() == 0:
        os.mknod(tmp_path / "loop", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
        assert disks._number(tmp_path / "loop") == "7:200"


@contextmanager
def loop_device(file: Path) -> Iterator[Path]:
    """A disk of one GiB."""
    with file.open("wb") as disk:
        disk.truncate(2**30)
    made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=True)
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def said(programs: machine.Programs) -> list[str]:
    return [" ".join(call) for call in programs.calls]


def test_without_disks_the_volume_is_used(made: Machine, programs: machine.Programs) -> None:
    made.add("nvme0n1", EBS)
    assert disks.main(made.layout) == 0
    assert programs.calls == []


def test_one_disk_is_used_alone(made: Machine, programs: machine.Programs) -> None:
    made.add("nvme1n1", STORE)
    assert disks.main(made.layout) == 0
    device, target = made.layout.root / "dev/nvme1n1", made.layout.worker
    assert said(programs) == [
        f"mkfs.ext4 -q -F -L openqa-worker -O ^has_journal -m 0 {device}",
        f"mount -t ext4 -o noatime {device} {target}",
    ]
    assert target.is_dir()


def test_several_disks_become_one(made: Machine, programs: machine.Programs) -> None:
    for number in (1, 2, 3):
        made.add(f"nvme{number}n1", STORE)
    disks.set_up(made.layout)
    dev = made.layout.root / "dev"
    assert said(programs) == [
        f"mdadm --create /dev/md/openqa --run --level=0 --raid-devices=3 "
        f"{dev}/nvme1n1 {dev}/nvme2n1 {dev}/nvme3n1",
        "mkfs.ext4 -q -F -L openqa-worker -O ^has_journal -m 0 /dev/md/openqa",
        f"mount -t ext4 -o noatime /dev/md/openqa {made.layout.worker}",
    ]


def test_an_array_that_outlived_a_reboot_is_made_anew(made: Machine, programs: machine.Programs) -> None:
    for name in ("nvme1n1", "nvme2n1"):
        made.add(name, STORE)
        (made.layout.root / "sys/block" / name / "holders/md127").mkdir()
    disks.set_up(made.layout)
    assert [call[:2] for call in programs.calls] == [
        ("mdadm", "--stop"),
        ("mdadm", "--create"),
        ("mkfs.ext4", "-q"),
        ("mount", "-t"),
    ]
    assert programs.calls[0] == ("mdadm", "--stop", "/dev/md127")


def test_what_is_mounted_is_never_formatted(
    made: Machine, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.add("nvme1n1", STORE)
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    disks.set_up(made.layout)
    assert programs.calls == []


def test_with_selinux_the_new_file_system_has_the_label_of_its_place(
    made: Machine, programs: machine.Programs
) -> None:
    made.add("nvme1n1", STORE)
    machine.have_selinux(made.layout)
    disks.set_up(made.layout)
    assert said(programs)[-1] == f"restorecon {made.layout.worker}"


def test_a_disk_that_fails_is_a_reason(
    made: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str], **_: object) -> str:
        raise HostError(f"{arguments[0]}: exit code 1: Input/output error")

    made.add("nvme1n1", STORE)
    monkeypatch.setattr(disks, "run", run)
    assert disks.main(made.layout) == 1
    assert capsys.readouterr().err == "openqa-on-aws: mkfs.ext4: exit code 1: Input/output error\n"


def test_a_real_disk_is_formatted_anew_and_mounted(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("making and mounting a file system needs root")
    with loop_device(tmp_path / "disk") as device:
        layout = Layout(tmp_path / "root")
        block = layout.root / "sys/block/nvme1n1"
        (block / "device").mkdir(parents=True)
        (block / "device/model").write_text(f"{STORE}\n")
        number = device.stat().st_rdev
        (block / "dev").write_text(f"{os.major(number)}:{os.minor(number)}\n")
        (layout.root / "dev").mkdir()
        os.mknod(layout.root / "dev/nvme1n1", 0o600 | stat.S_IFBLK, number)
        for _ in range(2):  # boots
            disks.set_up(layout)
            try:
                assert layout.worker.is_mount()
                assert [path.name for path in layout.worker.iterdir()] == ["lost+found"]
                size = os.statvfs(layout.worker)
                assert 0.9 * 2**30 < size.f_frsize * size.f_blocks <= 2**30
                (layout.worker / "cache").mkdir()
                # While it is mounted, nothing happens to it.
                disks.set_up(layout)
                assert (layout.worker / "cache").is_dir()
            finally:
                subprocess.run(["umount", str(layout.worker)], check=True)
