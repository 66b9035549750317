"""What a database host does about backups, with programs that only take notes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest

from tests.prerequisites import missing
from tests.userdata import machine
from userdata.host import __main__ as main
from userdata.host import certificates, figures, roles
from userdata.host.backup import (
    assets,
    awaiting,
    base,
    names,
    recovery,
    rehearsal,
    restore,
    server,
    store,
)
from userdata.host.backup.choose import Target
from userdata.host.errors import HostError
from userdata.host.host import Host

BUCKET = "backups"
PREFIX = "database/"


@pytest.fixture
def host(tmp_path: Path, aws: None) -> Host:
    made = machine.host(tmp_path, "database")
    machine.store_secrets("test")
    machine.make_bucket()
    return made


def put(key: str) -> None:
    boto3.client("s3", region_name=machine.REGION).put_object(Bucket=BUCKET, Key=key, Body=b"{}")


def may_initialise(host: Host) -> bool:
    return (host.layout.config / "may-initialise").exists()


def test_an_environment_without_backups_gets_a_new_database(host: Host) -> None:
    put(f"{PREFIX}postgres/1/base/attempt/{names.BASE}")  # an attempt that was not completed
    put(f"{PREFIX}postgres/1/wal/group/name/manifest.json")
    put(f"other/postgres/1/base/attempt/{names.MANIFEST}")
    roles.configure(host)
    assert may_initialise(host)
    assert not host.layout.awaits_restore.exists()


@pytest.mark.parametrize("selinux", [False, True])
def test_with_selinux_the_volume_has_the_label_of_its_place(
    host: Host, programs: machine.Programs, selinux: bool
) -> None:
    if selinux:
        machine.have_selinux(host.layout)
    roles.configure(host)
    labelled = [("restorecon", str(host.layout.data))] if selinux else []
    assert programs.started("restorecon") == labelled


def test_an_empty_volume_awaits_a_word_where_there_are_backups(host: Host) -> None:
    put(f"{PREFIX}postgres/1/base/attempt/{names.MANIFEST}")
    roles.configure(host)
    assert not may_initialise(host)
    said = host.layout.awaits_restore.read_text()
    assert "python3 -m userdata.host restore --to latest" in said
    assert BUCKET in said


@pytest.mark.parametrize("folder", ["17", "17.replaced"])
def test_a_database_that_is_there_starts(host: Host, folder: str) -> None:
    """Also one whose restore was killed before another was in its place."""
    put(f"{PREFIX}postgres/1/base/attempt/{names.MANIFEST}")
    roles.configure(host)
    assert host.layout.awaits_restore.exists()
    version = host.layout.data / "postgres" / folder / "PG_VERSION"
    version.parent.mkdir(parents=True)
    version.touch()
    roles.configure(host)
    assert not may_initialise(host)
    assert not host.layout.awaits_restore.exists()


def test_a_bucket_that_does_not_answer_is_no_reason_for_a_new_database(host: Host) -> None:
    boto3.client("s3", region_name=machine.REGION).delete_bucket(Bucket=BUCKET)
    with pytest.raises(HostError, match=f"bucket {BUCKET}"):
        roles.configure(host)
    assert not may_initialise(host)


def test_an_empty_database_is_made_only_where_one_is_awaited(
    host: Host, programs: machine.Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaiting, "run", programs.run)
    roles.configure(host)
    with pytest.raises(HostError, match="there is a database already"):
        awaiting.initialise(host)
    put(f"{PREFIX}postgres/1/base/attempt/{names.MANIFEST}")
    roles.configure(host)
    assert not may_initialise(host)
    awaiting.initialise(host)
    assert may_initialise(host)
    assert not host.layout.awaits_restore.exists()
    assert programs.started("systemctl", "start", "openqa-database.service")


def test_one_backup_at_a_time(host: Host) -> None:
    with (
        base.alone(host, "backup"),
        pytest.raises(HostError, match="another backup runs"),
        base.alone(host, "backup"),
    ):
        pass


def test_figures_go_on_while_a_base_backup_is_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"pg_control_system": "1|1|17.5|16777216", "pg_ls_archive_statusdir": "7"}
    monkeypatch.setattr(server, "query", lambda sql: next(text for part, text in said.items() if part in sql))
    monkeypatch.setattr(store, "require_mount", lambda: None)
    monkeypatch.setattr(store, "find_bases", lambda: [])
    monkeypatch.setattr(main, "this_host", lambda layout, metadata: host)
    with base.alone(host, "backup"):
        assert main.main(["backup-figures"], host.layout) == 0
    cloudwatch = boto3.client("cloudwatch", region_name=machine.REGION)
    (told,) = cloudwatch.list_metrics(Namespace="openQA/test")["Metrics"]
    assert told["MetricName"] == "WalArchiveLagSeconds"


def test_what_a_killed_rehearsal_left_takes_no_room_from_the_next(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = host.layout.state / "rehearsal"
    (folder / "17").mkdir(parents=True)

    def run(words: list[str], *, seconds: float) -> str:
        # Its server may run on: nobody removes what that writes.
        assert folder.exists() == (words[:2] == ["podman", "rm"])
        return ""

    def disk_usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=0 if folder.exists() else 1 << 30)

    monkeypatch.setattr(recovery, "run", run)
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    for step in ("_unpack", "_verify", "_start", "_await_end"):
        monkeypatch.setattr(recovery, step, lambda *_: None)
    base = SimpleNamespace(plain_bytes=1 << 20, bytes=1 << 20, finished="now")
    with recovery.recovered(host, base, Target(), folder=folder, container="openqa-rehearsal") as scratch:  # type: ignore[arg-type]
        assert not scratch.data.exists()


@pytest.mark.parametrize(
    ("size", "sound", "error", "reason"),
    [
        (1 << 20, True, None, ""),
        (8 << 20, True, HostError, "cannot be unpacked in .*, where 0 MiB are left: tar: file: Wrote only"),
        (8 << 20, False, recovery.DamagedBaseError, "was changed"),
    ],
)
def test_a_full_disk_is_no_damage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    sound: bool,
    error: type[HostError] | None,
    reason: str,
) -> None:
    if os.geteuid():
        missing("a file system of its own needs root")
    packed = tmp_path / "base.tar.gz"
    (tmp_path / "file").write_bytes(os.urandom(size))
    subprocess.run(["tar", "-czf", packed, f"--directory={tmp_path}", "file"], check=True)
    digest = hashlib.sha256(packed.read_bytes()).hexdigest() if sound else ""
    made = SimpleNamespace(sha256=digest, bytes=packed.stat().st_size)
    monkeypatch.setattr(store, "object_of", lambda base: packed)
    volume = tmp_path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", volume], check=True)
    tmp_path.chmod(0o755)
    try:
        with pytest.raises(error, match=reason) if error else contextlib.nullcontext() as raised:
            recovery._unpack(made, volume / "17")  # type: ignore[arg-type]
        assert raised is None or raised.type is error
    finally:
        subprocess.run(["umount", volume], check=True)


@pytest.mark.parametrize(
    ("fails", "error"), [("pg_verifybackup", recovery.DamagedBaseError), ("podman", HostError)]
)
def test_a_podman_that_runs_nothing_is_no_damage(
    host: Host, monkeypatch: pytest.MonkeyPatch, fails: str, error: type[HostError]
) -> None:
    def run(words: list[str], *, seconds: float) -> str:
        if fails in words:
            raise HostError(f"{fails} failed")
        return ""

    monkeypatch.setattr(recovery, "run", run)
    base = SimpleNamespace(system="1", attempt="a", object=names.BASE)
    scratch = recovery.Scratch(host.layout.data, "container", base)  # type: ignore[arg-type]
    with pytest.raises(HostError, match=f"{fails} failed") as raised:
        recovery._verify(host, scratch)
    assert raised.type is error


@pytest.mark.parametrize(
    ("what", "command"), [("rehearsal", rehearsal.rehearse), ("backup of assets", assets.keep)]
)
def test_who_finds_another_at_work_tells_no_failure(
    host: Host, what: str, command: Callable[[Host], None]
) -> None:
    with base.alone(host, what), pytest.raises(HostError, match=f"another {what} runs"):
        command(host)
    assert machine.told(host) == {}


def test_the_reason_of_a_failed_renewal_is_told_without_cloudwatch(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles.configure(host)

    def refuse(*words: object, **more: object) -> None:
        raise HostError("CloudWatch is away")

    monkeypatch.setattr(certificates, "RENEW_SECONDS", (certificates.SERVER_DAYS + 1) * 86400)
    monkeypatch.setattr(figures, "put", refuse)
    (host.layout.data / "certificates/ca.key").unlink()
    with pytest.raises(HostError, match=r"ca\.key is missing"):
        roles.renew_certificate(host)


@pytest.mark.parametrize(
    ("states", "archived"), [(["1.done"], True), (["1.done", "2.ready"], False), (None, False)]
)
def test_a_log_of_which_nothing_is_known_is_not_archived(
    host: Host, monkeypatch: pytest.MonkeyPatch, states: list[str] | None, archived: bool
) -> None:
    """Then the old database is kept."""
    scratch = recovery.Scratch(host.layout.data, "container", None)  # type: ignore[arg-type]
    if states is not None:
        folder = scratch.data / "pg_wal/archive_status"
        folder.mkdir(parents=True)
        for name in states:
            (folder / name).touch()
    monkeypatch.setattr(recovery, "control_data", lambda *_: {"Database cluster state": "shut down"})
    assert restore._has_archived(host, scratch) is archived


def test_a_file_that_cannot_be_read_is_one_sentence(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "this_host", lambda layout, metadata: host)
    path = host.layout.data / "ca.crt"
    assert main.main(["move", "--to", "elsewhere", "--ca", str(path)], host.layout) == 1
    assert capsys.readouterr().err == f"openqa-on-aws: [Errno 2] No such file or directory: '{path}'\n"


def test_what_pg_basebackup_says() -> None:
    said = (
        "pg_basebackup: initiating base backup, waiting for checkpoint to complete\n"
        "pg_basebackup: checkpoint completed\n"
        "pg_basebackup: write-ahead log start point: 0/2000028 on timeline 1\n"
        "pg_basebackup: write-ahead log end point: 0/2000100\n"
    )
    assert base.parse_messages(said) == ("0/2000028", "0/2000100", 1)
    with pytest.raises(HostError, match="does not tell where"):
        base.parse_messages("pg_basebackup: base backup completed\n")


def test_what_a_recovery_leaves_to_be_archived() -> None:
    found = [
        *("archive_status", "00000002.history", "00000003.history", "000000020000000000000009"),
        *("000000030000000000000009", "00000003000000000000000A", "00000003000000000000000B"),
    ]
    assert restore.unarchived(found, timeline=3, current="00000003000000000000000A") == [
        "00000003.history",
        "000000030000000000000009",
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"jobs": 3, "users": 2}, "a healthy database with 3 jobs: to replace it, pass --yes-overwrite"),
        ({"jobs": 0, "users": 2}, "a healthy database without jobs, but with 2 users: to replace it, pass"),
        ({"jobs": 0, "users": 0}, "holds no base backup"),
        ({}, "holds no base backup"),
    ],
)
def test_a_database_in_which_anything_is_needs_a_word(
    host: Host, monkeypatch: pytest.MonkeyPatch, rows: dict[str, int], reason: str
) -> None:
    (host.layout.data / "postgres/17").mkdir(parents=True)
    monkeypatch.setattr(base, "counts", lambda database: (rows, None))
    monkeypatch.setattr(store, "require_mount", lambda: None)
    monkeypatch.setattr(store, "find_bases", lambda mount: [])
    monkeypatch.setattr(restore, "_archive_rest", lambda report: True)
    with pytest.raises(HostError, match=reason):
        restore.restore(host, Target(), overwrite=False)


def test_a_base_backup_that_just_failed_is_not_tried_again_at_once(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOUNT", tmp_path / "bucket")
    monkeypatch.setattr(store, "require_mount", lambda: None)
    monkeypatch.setattr(server, "query", lambda sql: "1|1|17.5|16777216")
    found: list[SimpleNamespace] = []
    monkeypatch.setattr(store, "find_bases", lambda: found)
    taken: list[Host] = []
    monkeypatch.setattr(base, "take", taken.append)
    base.take_when_due(host)
    assert len(taken) == 1
    (tmp_path / "bucket" / names.bases("1") / names.attempt()).mkdir(parents=True)
    base.take_when_due(host)
    assert len(taken) == 1
    # One that was finished thereafter, but of a timeline that a restore has left.
    later = names.attempt(datetime.now(UTC) + timedelta(seconds=1))
    found.append(SimpleNamespace(system="1", timeline=2, attempt=later, end=datetime.now(UTC)))
    base.take_when_due(host)
    assert len(taken) == 2
