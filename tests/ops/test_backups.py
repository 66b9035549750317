"""Listing and verifying backups in a bucket of moto's, written as the database host writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

import settings
from ops import __main__ as main
from ops import backups, bucket
from userdata.host.backup import manifests, names, store
from userdata.host.backup.manifests import Asset, Base, Inventory, Wal

SYSTEM = "7500000000000000001"
SIZE = 4 * 1024 * 1024
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).isoformat()
BASE = Base(
    attempt="20260131T120000Z-00000000",
    object=names.BASE,
    sha256="",
    bytes=0,
    plain_bytes=0,
    environment="dev",
    postgres="17.6",
    system=SYSTEM,
    timeline=1,
    segment_bytes=SIZE,
    start="0/C00028",
    stop="0/C00120",
    started=NOON,
    finished=NOON,
    rows={"jobs": 5},
    newest_job=5,
)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket, which the storage stack tells."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(backups, "stack_outputs", lambda *_: {"BackupBucket": "backups"})
    with mock_aws():
        region = settings.load("dev").region
        client = boto3.client("s3", region_name=region)
        place = {} if region == "us-east-1" else {"LocationConstraint": region}
        client.create_bucket(Bucket="backups", **({"CreateBucketConfiguration": place} if place else {}))
        yield client


def put(s3: Any, folder: Path, *segments: str) -> None:
    """A base backup and segments, with their manifests."""
    written = store.write(folder / names.bases(SYSTEM) / BASE.attempt / BASE.object, [b"data"], compress=True)
    base = replace(BASE, sha256=written.sha256, bytes=written.bytes)
    text = manifests.encode(base)
    store.write(folder / names.bases(SYSTEM) / BASE.attempt / names.MANIFEST, [text], compress=False)
    for name in segments:
        place = folder / names.wal_folder(SYSTEM, name)
        written = store.write(place / "a.gz", [b"log"], compress=True)
        wal = Wal(
            name=name,
            object="a.gz",
            sha256=written.sha256,
            bytes=written.bytes,
            plain_sha256="",
            plain_bytes=3,
            system=SYSTEM,
            archived=NOON,
        )
        store.write(place / "a.json", [manifests.encode(wal)], compress=False)
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put_object(
                Bucket="backups", Key=f"database/{path.relative_to(folder)}", Body=path.read_bytes()
            )


def run(action: str) -> int:
    return main.main(["--env", "dev", "backups", action])


def test_an_empty_bucket_is_a_failure(s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 1
    assert "dev has no base backup" in capsys.readouterr().out
    assert run("verify") == 1


def test_good_backups(s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(s3, tmp_path, "000000010000000000000003", "000000010000000000000004")
    assert run("list") == 0
    shown = capsys.readouterr().out
    assert f"{NOON}  PostgreSQL 17.6  cluster {SYSTEM}  timeline 1" in shown
    assert "000000010000000000000004" in shown
    assert run("verify") == 0
    assert "3 objects and the fixed assets read, 0 damaged" in capsys.readouterr().out


def test_a_listing_reads_no_more_than_it_shows(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A segment each half minute: weeks of them must not be read by who is about to restore."""
    put(s3, tmp_path, *(f"0000000100000000{number:08X}" for number in range(3, 40)))
    read: list[str] = []
    manifest = bucket.Bucket.manifest

    def noted(self: bucket.Bucket, kind: Any, key: str) -> Any:
        read.append(key)
        return manifest(self, kind, key)

    monkeypatch.setattr(bucket.Bucket, "manifest", noted)
    assert run("list") == 0
    assert "newest segment of the log: 000000010000000000000027" in capsys.readouterr().out
    assert len(read) == 2


def test_the_newest_segment_is_one_that_is_complete(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(s3, tmp_path, "000000010000000000000003")
    folder = f"database/postgres/{SYSTEM}/wal/0000000100000000/000000010000000000000004"
    s3.put_object(Bucket="backups", Key=f"{folder}/a.json", Body=b"{")
    assert run("list") == 0
    assert "newest segment of the log: 000000010000000000000003" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "body", "reason"),
    [
        (f"base/{BASE.attempt}/{names.BASE}", b"x", "has the wrong size: 1 bytes"),
        (f"base/{BASE.attempt}/{names.BASE}", None, "is missing"),
        ("wal/0000000100000000/000000010000000000000003/a.gz", b"!", "was changed"),
    ],
)
def test_damage_is_named(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, body: bytes | None, reason: str
) -> None:
    put(s3, tmp_path, "000000010000000000000003")
    key = f"database/postgres/{SYSTEM}/{key}"
    if body is None:
        s3.delete_object(Bucket="backups", Key=key)
    else:
        size = s3.head_object(Bucket="backups", Key=key)["ContentLength"]
        s3.put_object(Bucket="backups", Key=key, Body=body * (1 if body == b"x" else size))
    assert run("verify") == 1
    assert f"{key}: {reason}" in capsys.readouterr().out


def test_what_expires_while_all_is_read_is_not_missing(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(s3, tmp_path, "000000010000000000000003", "000000010000000000000004")
    folder = f"database/postgres/{SYSTEM}/wal/0000000100000000"
    listed, found = bucket.Bucket.keys, backups.DatabaseBackups.found

    def then_a_manifest_is_gone(self: bucket.Bucket, prefix: str) -> list[str]:
        keys = listed(self, prefix)
        s3.delete_object(Bucket="backups", Key=f"{folder}/000000010000000000000004/a.json")
        return keys

    def then_both_are_gone(self: backups.DatabaseBackups) -> list[backups.Found]:
        all_of_it = found(self)
        for name in ("a.json", "a.gz"):
            s3.delete_object(Bucket="backups", Key=f"{folder}/000000010000000000000003/{name}")
        return all_of_it

    monkeypatch.setattr(bucket.Bucket, "keys", then_a_manifest_is_gone)
    monkeypatch.setattr(backups.DatabaseBackups, "found", then_both_are_gone)
    assert run("verify") == 0
    assert "2 objects and the fixed assets read, 0 damaged" in capsys.readouterr().out


def test_a_missing_segment_is_named(s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(s3, tmp_path, "000000010000000000000003", "000000010000000000000005")
    assert run("verify") == 1
    assert "segment 000000010000000000000004 is missing" in capsys.readouterr().out


@given(st.sets(st.integers(3, 60)))
def test_gaps_are_what_is_missing_among_later_ones(there: set[int]) -> None:
    archived = [f"0000000100000000{number:08X}" for number in there]
    expected = [n for n in range(3, max(there, default=2)) if n not in there]
    found = backups.gaps(BASE, [*archived, "000000020000000000000099", "00000002.history"])
    assert found == [f"0000000100000000{number:08X}" for number in expected]


def put_asset(s3: Any, body: bytes) -> str:
    """An asset with its inventory; returns the key of its content."""
    digest = hashlib.sha256(b"image").hexdigest()
    folder = f"webui/{names.ASSETS}/{digest}"
    sent = Asset(object="a", sha256=digest, bytes=5, sent=NOON)
    inventory = Inventory(
        environment="dev",
        taken=NOON,
        assets={"hdd/fixed/disk.qcow2": digest},
        sizes={"hdd/fixed/disk.qcow2": 5},
        modified={"hdd/fixed/disk.qcow2": 1},
        configuration={"openqa.ini": ""},
    )
    older = replace(inventory, taken="2026-01-01T00:00:00+00:00", assets={"gone": "0" * 64})
    for key, content in {
        f"{folder}/a": body,
        f"{folder}/a.json": manifests.encode(sent),
        f"webui/{names.INVENTORIES}/a.json": manifests.encode(older),
        f"webui/{names.INVENTORIES}/b.json": manifests.encode(inventory),
        f"webui/{names.INVENTORIES}/c.json": manifests.encode(inventory)[:-9],
    }.items():
        s3.put_object(Bucket="backups", Key=key, Body=content)
    return f"{folder}/a"


def test_fixed_assets_are_listed_and_verified(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(s3, tmp_path, "000000010000000000000003")
    assert run("list") == 0
    assert "no fixed assets" in capsys.readouterr().out
    put_asset(s3, b"image")
    assert run("list") == 0
    assert f"{NOON}  fixed assets: 1, " in capsys.readouterr().out
    assert run("verify") == 0
    key = put_asset(s3, b"other")
    assert run("verify") == 1
    assert f"hdd/fixed/disk.qcow2: {key}: is not what was written" in capsys.readouterr().out
    s3.delete_object(Bucket="backups", Key=key)
    assert run("verify") == 1
    assert f"{key}: is missing" in capsys.readouterr().out


def test_an_asset_of_which_an_older_attempt_expires_is_there(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, tmp_path, "000000010000000000000003")
    key = put_asset(s3, b"image")
    listed = bucket.Bucket.keys

    def then_one_is_gone(self: bucket.Bucket, prefix: str) -> list[str]:
        older = f"{key.removesuffix('/a')}/0.json"
        return [older, *listed(self, prefix)] if older.startswith(prefix) else listed(self, prefix)

    monkeypatch.setattr(bucket.Bucket, "keys", then_one_is_gone)
    assert run("verify") == 0


def test_objects_are_read_at_once_and_no_longer_than_somebody_waits(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who interrupts it need not wait for base backups that are read."""
    both, ended = Barrier(2, timeout=10), Event()

    class Body:
        def iter_chunks(self, size: int) -> Iterator[bytes]:
            both.wait()
            while True:
                yield b"x"
                ended.wait(0.01)

    monkeypatch.setattr(s3, "get_object", lambda **_: {"Body": Body()})
    reader = bucket.Bucket(s3, "backups")

    def read(key: str) -> object:
        if key == "interrupted":
            both.wait()
            raise KeyboardInterrupt
        return reader.digest(key)

    with pytest.raises(KeyboardInterrupt):
        list(reader.each(read, ["interrupted", "endless"]))
