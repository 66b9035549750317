"""Names, manifests, objects and choices of the backups, on a plain folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userdata.host import users
from userdata.host.backup import archive, assets, choose, manifests, names, recovery, store
from userdata.host.backup.archive import GapError
from userdata.host.backup.choose import Lineage, Target
from userdata.host.backup.manifests import Base, Inventory, ManifestError, Wal
from userdata.host.errors import HostError

SYSTEM = "7500000000000000001"
OTHER = "7500000000000000002"
SIZE = 4 * 1024 * 1024
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BASE = Base(
    attempt="20260131T120000Z-00000000",
    object=names.BASE,
    sha256="0" * 64,
    bytes=1,
    plain_bytes=1,
    environment="test",
    postgres="17.6",
    system=SYSTEM,
    timeline=1,
    segment_bytes=SIZE,
    start="0/2000028",
    stop="0/2000100",
    started=NOON.isoformat(),
    finished=NOON.isoformat(),
    rows={"jobs": 1},
    newest_job=1,
)
texts = st.text(max_size=20)
sizes = st.sampled_from([2**shift for shift in range(20, 31)])


def base(hours: float = 0, **more: object) -> Base:
    """A base backup that was finished some hours after noon."""
    finished = (NOON + timedelta(hours=hours)).isoformat()
    return replace(BASE, attempt=f"{hours}-{more}", finished=finished, **more)  # type: ignore[arg-type]


def segment_file(folder: Path, name: str, *, system: str = SYSTEM, content: bytes = b"") -> Path:
    """A file that looks like a WAL segment."""
    timeline = int(name[:8], 16)
    header = struct.pack("<HHIQI4xQI", 0xD116, 2, timeline, 0, 0, int(system), SIZE)
    path = folder / name
    path.write_bytes((header + content).ljust(SIZE, b"\0"))
    return path


def archive_all(folder: Path, mount: Path, *segments: str) -> None:
    for name in segments:
        archive.archive(segment_file(folder, name), name, system=SYSTEM, mount=mount)


def object_of(mount: Path, name: str) -> Path:
    (found,) = (mount / names.wal_folder(SYSTEM, name)).glob("*.gz")
    return found


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**63), sizes)
def test_segments_follow_each_other_without_a_gap(timeline: int, position: int, size: int) -> None:
    here = names.segment_at(position, timeline=timeline, size=size)
    assert names.segment(here.name) == here
    following = names.next_segment(here, size=size)
    assert following == names.segment_at(position + size, timeline=timeline, size=size)
    assert following.name > here.name
    assert here.number < 2**32 // size


@given(st.text())
def test_only_what_postgresql_archives_has_a_place(text: str) -> None:
    if names.is_archived(text):
        assert ".." not in names.wal_folder(SYSTEM, text).parts
    else:
        with pytest.raises(HostError):
            names.wal_folder(SYSTEM, text)


@pytest.mark.parametrize("system", ["", "..", "12/34", "-1", "x"])
def test_a_system_identifier_is_a_number(system: str) -> None:
    with pytest.raises(HostError, match="not a number"):
        names.bases(system)


def test_no_two_attempts_have_one_name() -> None:
    assert len({names.attempt(NOON) for _ in range(1000)}) == 1000


@given(
    st.builds(
        Wal,
        name=texts,
        object=texts,
        sha256=texts,
        bytes=st.integers(0),
        plain_sha256=texts,
        plain_bytes=st.integers(0),
        system=texts,
        archived=st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    ),
    st.data(),
)
def test_a_manifest_is_read_as_it_was_written_or_not_at_all(manifest: Wal, data: st.DataObject) -> None:
    text = manifests.encode(manifest)
    assert manifests.decode(Wal, text) == manifest
    # What a killed writer leaves; only the line's end may be missing.
    cut = data.draw(st.integers(0, len(text) - 2))
    with pytest.raises(ManifestError):
        manifests.decode(Wal, text[:cut])
    with pytest.raises(ManifestError):
        manifests.decode(Base, text)
    with pytest.raises(ManifestError):
        manifests.decode(Wal, b"[%s]" % text)


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": -1},
        {"bytes": True},
        {"rows": {"jobs": "1"}},
        {"rows": []},
        {"newest_job": "1"},
        {"finished": "2026-01-31T12:00:00"},
        {"format": manifests.FORMAT + 1},
        {"kind": "asset"},
        {"more": 1},
    ],
)
def test_a_manifest_with_nonsense_is_none(change: dict[str, object]) -> None:
    written = json.loads(manifests.encode(BASE))
    assert manifests.decode(Base, json.dumps(written).encode()) == BASE
    with pytest.raises(ManifestError):
        manifests.decode(Base, json.dumps(written | change).encode())


@given(st.lists(st.binary(max_size=5000), max_size=5), st.booleans())
def test_an_object_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], compress: bool
) -> None:
    path = tmp_path_factory.mktemp("mount") / "folder" / "object"
    written = store.write(path, chunks, compress=compress)
    read = store.read(path, sha256=written.sha256, size=written.bytes, compressed=compress)
    assert b"".join(read) == b"".join(chunks)
    assert written.plain_bytes == sum(len(chunk) for chunk in chunks)
    with pytest.raises(HostError, match="File exists"):
        store.write(path, chunks, compress=compress)


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_no_changed_object_passes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("mount") / "object"
    written = store.write(path, [content], compress=True)
    stored = path.read_bytes()
    at = data.draw(st.integers(0, len(stored) - 1))
    changed = data.draw(
        st.sampled_from(
            [stored[:at], stored + b"x", stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]]
        )
    )
    path.write_bytes(changed)
    with pytest.raises(HostError, match=str(path)):
        list(store.read(path, sha256=written.sha256, size=written.bytes, compressed=True))


def test_what_the_bucket_does_not_confirm_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HostError, match="object: Input/output error"):
        store.write(tmp_path / "object", [b"x"], compress=False)


def test_an_object_that_the_bucket_has_not_whole_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_write_all", lambda descriptor, part: os.write(descriptor, part[:-1]))
    with pytest.raises(HostError, match="object: has 2 bytes, 3 were written"):
        store.write(tmp_path / "object", [b"abc"], compress=False)


def test_no_object_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    store.write(tmp_path / "object", [b"x"], compress=False)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HostError):
        store.write(tmp_path / "other", [b"x"], compress=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_bare_folder_is_not_the_bucket(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    line = "36 35 98:0 / {} rw,noatime shared:1 - {} source rw\n"
    for text in ("", line.format("/srv/backups", "ext4"), line.format("/srv", "fuse.mount-s3")):
        table.write_text(text)
        with pytest.raises(HostError, match="the backup bucket is not mounted"):
            store.require_mount(table=table)
    table.write_text(line.format("/srv/backups", "ext4") + line.format("/srv/backups", "fuse"))
    store.require_mount(table=table)


def test_what_is_archived_is_fetched(tmp_path: Path) -> None:
    mount, name = tmp_path / "mount", "0000000100000000000000FF"
    path = segment_file(tmp_path, name, content=b"commits")
    for _ in range(2):  # PostgreSQL may archive a segment twice
        archive.archive(path, name, system=SYSTEM, mount=mount)
    target = tmp_path / "fetched"
    assert archive.fetch(name, target, system=SYSTEM, mount=mount)
    assert target.read_bytes() == path.read_bytes()
    assert not archive.fetch(name, target, system=OTHER, mount=mount)


def test_another_clusters_segment_is_refused(tmp_path: Path) -> None:
    name = "000000010000000000000001"
    path = segment_file(tmp_path, name, system=OTHER)
    with pytest.raises(HostError, match=f"belongs to the cluster {OTHER}, not to {SYSTEM}"):
        archive.archive(path, name, system=SYSTEM, mount=tmp_path / "mount")


def test_a_segment_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    name = "000000010000000000000001"
    path = segment_file(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HostError, match=f"has {SIZE - 1} bytes instead of {SIZE}"):
        archive.archive(path, name, system=SYSTEM, mount=tmp_path / "mount")


def test_a_segment_that_a_later_timeline_wrote_is_refused(tmp_path: Path) -> None:
    written = segment_file(tmp_path, "000000020000000000000001")
    with pytest.raises(HostError, match="is from timeline 2"):
        archive.archive(written, "000000010000000000000001", system=SYSTEM, mount=tmp_path / "mount")


def test_a_segment_that_an_earlier_timeline_began_is_archived(tmp_path: Path) -> None:
    mount, name = tmp_path / "mount", "000000020000000000000001"
    segment_file(tmp_path, "000000010000000000000001").rename(tmp_path / name)
    archive.archive(tmp_path / name, name, system=SYSTEM, mount=mount)
    assert archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)


def test_an_empty_file_is_no_segment(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(HostError, match="is not a WAL segment"):
        archive.archive(
            tmp_path / "empty", "000000010000000000000001", system=SYSTEM, mount=tmp_path / "mount"
        )


def test_the_history_of_a_timeline_that_never_was_is_no_gap(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    archive_all(tmp_path, mount, "000000010000000000000001")
    assert archive.fetch("00000002.history", tmp_path / "x", system=SYSTEM, mount=mount) is False


def test_a_file_that_changes_while_it_is_archived_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount, name = tmp_path / "mount", "000000010000000000000001"
    monkeypatch.setattr(archive, "_chunks", lambda path, digest: iter([path.read_bytes()[:-1]]))
    with pytest.raises(HostError, match="changed while it was archived"):
        archive_all(tmp_path, mount, name)
    assert not list(mount.rglob("*.json"))


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-20])])
def test_a_segment_without_its_manifest_does_not_exist(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    mount, name = tmp_path / "mount", "000000010000000000000001"
    archive_all(tmp_path, mount, name)
    for manifest in (mount / names.wal_folder(SYSTEM, name)).glob("*.json"):
        change(manifest)
    assert not archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)
    archive_all(tmp_path, mount, name)
    assert archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)


def test_a_gap_is_named(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    # The next group, too: a group has 1024 segments of 4 MiB.
    archive_all(tmp_path, mount, "0000000100000000000003FE", "000000010000000100000000")
    # What a timeline that was left ends with, and the next: PostgreSQL asks for its segment all the same.
    archive_all(tmp_path, mount, "000000010000000100000001.partial", "000000020000000100000001")
    with pytest.raises(
        GapError, match="0000000100000000000003FF is missing, but 000000010000000100000000 is"
    ):
        archive.fetch("0000000100000000000003FF", tmp_path / "x", system=SYSTEM, mount=mount)
    assert not archive.fetch("000000010000000100000001", tmp_path / "x", system=SYSTEM, mount=mount)
    assert not archive.fetch("000000030000000000000001", tmp_path / "x", system=SYSTEM, mount=mount)


def test_a_gap_within_a_group_is_named(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    archive_all(tmp_path, mount, "000000010000000000000001", "000000010000000000000003")
    with pytest.raises(
        GapError, match="000000010000000000000002 is missing, but 000000010000000000000003 is"
    ):
        archive.fetch("000000010000000000000002", tmp_path / "x", system=SYSTEM, mount=mount)


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("call", "reason"), [("iterdir", "cannot be listed: Input"), ("read_bytes", "cannot be read: Input")]
)
def test_a_bucket_that_does_not_answer_is_no_end_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, reason: str
) -> None:
    mount, name = tmp_path / "mount", "000000010000000000000001"
    archive_all(tmp_path, mount, name)
    history(tmp_path, mount, 2)
    folder = tmp_path / "mount" / names.bases(SYSTEM) / BASE.attempt
    store.write(folder / names.MANIFEST, [manifests.encode(BASE)], compress=False)
    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(HostError, match=reason):
        archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)
    with pytest.raises(HostError, match=reason):
        store.find_bases(mount)
    with pytest.raises(HostError, match=reason):
        recovery.lineage(SYSTEM, Target(), [BASE], mount)


@pytest.mark.parametrize(("how", "reason"), [("truncated", "is truncated"), ("tampered", "")])
def test_a_damaged_segment_stops_a_recovery_unless_there_is_a_good_copy(
    tmp_path: Path, how: str, reason: str
) -> None:
    mount, name = tmp_path / "mount", "000000010000000000000001"
    archive_all(tmp_path, mount, name)
    damaged = object_of(mount, name)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-10] if how == "truncated" else content[:-10] + b"0123456789")
    with pytest.raises(GapError, match=f"{damaged}.*{reason}"):
        archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)
    assert not (tmp_path / "fetched").exists()
    archive_all(tmp_path, mount, name)
    assert archive.fetch(name, tmp_path / "fetched", system=SYSTEM, mount=mount)


def test_exit_codes_are_those_that_postgresql_understands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mount, name = tmp_path / "mount", "000000010000000000000001"
    assert archive.main(["archive", "x", name]) == 1
    assert archive.main(["fetch", name, "x", SYSTEM]) == 1
    assert "the backup bucket is not mounted" in capsys.readouterr().err
    monkeypatch.setattr(store, "require_mount", lambda: None)
    monkeypatch.setattr(archive.fetch, "__kwdefaults__", {"mount": mount})
    assert archive.main(["fetch", name, str(tmp_path / "fetched"), SYSTEM]) == archive.NO_SUCH_FILE
    monkeypatch.setattr(archive.archive, "__kwdefaults__", {"mount": mount})
    monkeypatch.chdir(tmp_path)
    path = str(segment_file(tmp_path, name))
    assert archive.main(["archive", path, name]) == 1
    assert "global/pg_control: No such file" in capsys.readouterr().err
    (tmp_path / "global").mkdir()
    (tmp_path / "global/pg_control").write_bytes(int(SYSTEM).to_bytes(8, "little") + b"more")
    assert archive.main(["archive", path, name]) == 0
    assert archive.main(["fetch", name, str(tmp_path / "fetched"), SYSTEM]) == 0
    # A disk that takes no more is no end of the archive.
    assert archive.main(["fetch", name, str(tmp_path / "absent/fetched"), SYSTEM]) == 1
    object_of(mount, name).write_bytes(b"")
    assert archive.main(["fetch", name, str(tmp_path / "fetched"), SYSTEM]) == 1


@pytest.mark.parametrize(
    ("code", "told"), [(0, 0), (archive.NO_SUCH_FILE, 1), (1, 200), (2, 200), (143, 143)]
)
def test_only_the_archives_end_ends_a_recovery(tmp_path: Path, code: int, told: int) -> None:
    """PostgreSQL goes on to a new timeline where the command exits with 1 to 125."""
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    fetch = Path(__file__).parents[2] / "userdata/roles/database/bin/fetch.sh"
    done = subprocess.run(
        [fetch, "name", "target", SYSTEM], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert done.returncode == told


def history(folder: Path, mount: Path, timeline: int, *, system: str = SYSTEM) -> None:
    name = f"{timeline:08X}.history"
    (folder / name).write_text(f"{timeline - 1}\t0/3000000\tbefore 2026-01-31 13:00:00+00\n")
    archive.archive(folder / name, name, system=system, mount=mount)


def test_a_timeline_whose_history_has_expired_is_known_by_its_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = [base(timeline=2), base(1, timeline=2)]
    monkeypatch.setattr(store, "find_bases", lambda mount: bases)
    for target in (Target(), Target(timeline=2)):
        assert recovery.plan(target, tmp_path) == (Target(timeline=2), bases[::-1])
    with pytest.raises(HostError, match="there is no timeline 3"):
        recovery.plan(Target(timeline=3), tmp_path)


def test_a_timeline_that_another_cluster_has_not_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "mount"
    history(tmp_path, mount, 2)
    bases = [base(system=OTHER), base(1, timeline=1), base(2, timeline=2)]
    monkeypatch.setattr(store, "find_bases", lambda mount: bases)
    assert recovery.plan(Target(timeline=2), mount) == (Target(timeline=2), [bases[2], bases[1]])


def test_the_timeline_that_was_written_to_last_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one of a restored database that gave way to the old one again."""
    mount = tmp_path / "mount"

    def followed(*bases: Base) -> int | None:
        found = recovery.lineage(SYSTEM, Target(), bases, mount)
        return found.timeline if found else None

    moments = (f"20260131T12000{second}Z-0000000{second}" for second in range(10))
    monkeypatch.setattr(names, "attempt", lambda: next(moments))
    monkeypatch.setattr(store, "find_bases", lambda mount: [base(timeline=1)])
    archive_all(tmp_path, mount, "000000010000000000000002", "000000010000000000000003")
    history(tmp_path, mount, 2)
    assert followed() == 2
    archive_all(tmp_path, mount, "000000010000000000000004")
    assert recovery.plan(Target(), mount)[0] == Target(timeline=1)
    # The next restore's is another, and becomes the one that is written to: one more gives way to it.
    history(tmp_path, mount, 3)
    history(tmp_path, mount, 4)
    archive_all(tmp_path, mount, "000000030000000000000004")
    assert followed() == 3
    later = replace(base(timeline=1), attempt="20260131T130000Z-00000000")
    assert followed(later) == 1


def test_a_damaged_history_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = tmp_path / "mount"
    monkeypatch.setattr(names, "attempt", iter(["20260131T120000Z-0", "20260131T120001Z-0"]).__next__)
    history(tmp_path, mount, 2)
    (damaged,) = mount.rglob("00000002.history/*.gz")
    damaged.write_bytes(b"x")
    monkeypatch.setattr(store, "find_bases", lambda mount: [base(system=OTHER), base(timeline=2)])
    with pytest.raises(HostError, match="history"):
        recovery.plan(Target(), mount)
    # Unless there is a good copy.
    history(tmp_path, mount, 2)
    found = recovery.lineage(SYSTEM, Target(), [base(timeline=2)], mount)
    assert found is not None
    assert found.timeline == 2


def test_base_backups_are_those_with_a_manifest(tmp_path: Path) -> None:
    def put(manifest: Base, text: bytes | None) -> None:
        folder = tmp_path / names.bases(manifest.system) / manifest.attempt
        store.write(folder / manifest.object, [b"x"], compress=True)
        if text is not None:
            store.write(folder / names.MANIFEST, [text], compress=False)

    early, late, elsewhere = base(1), base(2), base(3, system=OTHER)
    for manifest in (late, early, elsewhere):
        put(manifest, manifests.encode(manifest))
    put(base(4), None)
    put(base(5), manifests.encode(base(5))[:-20])
    put(base(6), manifests.encode(base(7)))  # another attempt's
    put(base(8), manifests.encode(replace(base(8), system=OTHER)))  # another cluster's
    assert store.find_bases(tmp_path) == [early, late, elsewhere]


def test_the_newest_inventory_counts(tmp_path: Path) -> None:
    def inventory(day: int) -> Inventory:
        taken = NOON.replace(day=day).isoformat()
        return Inventory(environment="test", taken=taken, assets={}, sizes={}, modified={}, configuration={})

    for day in (2, 3, 1):
        path = tmp_path / names.INVENTORIES / f"{names.attempt(NOON.replace(day=day))}.json"
        store.write(path, [manifests.encode(inventory(day))], compress=False)
    assert store.newest_inventory(tmp_path) == inventory(3)


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=20), st.integers(-100, 100))
def test_the_newest_base_before_the_time_comes_first(hours: list[int], asked: int) -> None:
    lineages = {SYSTEM: Lineage(1, {})}
    bases = [base(hour) for hour in hours]
    found = choose.candidates(bases, Target(NOON + timedelta(hours=asked)), lineages)
    assert [item.end for item in found] == sorted(
        (item.end for item in bases if item.end <= NOON + timedelta(hours=asked)), reverse=True
    )
    assert choose.candidates(bases, Target(), lineages)[0].end == max(item.end for item in bases)


def test_candidates_are_of_one_cluster() -> None:
    lineages = {SYSTEM: Lineage(1, {}), OTHER: Lineage(1, {})}
    bases = [base(1), base(2), base(3, system=OTHER)]
    assert choose.candidates(bases, Target(), lineages) == [bases[2]]
    assert choose.candidates(bases, Target(NOON + timedelta(hours=2.5)), lineages) == [bases[1], bases[0]]


def test_a_base_of_an_abandoned_timeline_leads_nowhere() -> None:
    # Restored to a time before the second backup: timeline 2 left timeline 1 at 0/3000000.
    lineages = {SYSTEM: choose.parse_history(2, "1\t0/3000000\tbefore 2026-01-31 13:00:00+00\n")}
    before, after = base(1, stop="0/2FFFFFF"), base(2, stop="0/4000000")
    third = base(3, timeline=2, stop="0/5000000")
    assert choose.candidates([before, after], Target(), lineages) == [before]
    assert choose.candidates([before, after, third], Target(), lineages) == [third, before]
    assert choose.candidates([before, after], Target(timeline=1), {SYSTEM: Lineage(1, {})}) == [after, before]


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31T12:00:00", "", "0001-01-01T00:00:00+01:00"])
def test_a_target_says_its_time_zone(text: str) -> None:
    with pytest.raises(HostError, match="neither 'latest' nor a time with its zone"):
        choose.parse_target(text)


def test_a_base_of_a_timeline_that_is_no_ancestor_leads_nowhere() -> None:
    assert not Lineage(1, {}).has(base(timeline=2))


def test_a_history_tells_where_each_ancestor_was_left() -> None:
    """As PostgreSQL writes it: src/backend/access/transam/timeline.c."""
    text = "1\t0/3000000\tno recovery target specified\n\n# told\n2\t1/0\tbefore a time\n"
    assert choose.parse_history(3, text) == Lineage(3, {1: 0x3000000, 2: 1 << 32})
    with pytest.raises(HostError, match="the history of timeline 3 is malformed: 'nonsense'"):
        choose.parse_history(3, "nonsense\n")


def test_timelines_are_counted_from_one() -> None:
    with pytest.raises(HostError, match="--timeline 0: timelines are counted from 1"):
        choose.parse_target("latest", timeline=0)


def test_targets() -> None:
    assert choose.parse_target("latest") == Target()
    assert choose.parse_target("latest", timeline=1) == Target(timeline=1)
    assert choose.parse_target("2026-01-31T14:00:00+02:00", timeline=2) == Target(NOON, 2)


def test_a_base_backup_is_due_once_a_night() -> None:
    day = timedelta(days=1)
    two = NOON.replace(hour=2)
    assert choose.is_due([], [], NOON)
    assert not choose.is_due([two], [], NOON)
    assert choose.is_due([two - timedelta(seconds=1)], [], NOON)
    assert not choose.is_due([NOON - day], [], two - timedelta(seconds=1))
    assert choose.is_due([NOON - day], [], two)


def test_base_backups_that_fail_are_tried_again_less_and_less_often() -> None:
    """Each leaves all that it wrote in the bucket, for weeks."""
    two = NOON.replace(hour=2)
    failed: list[datetime] = []
    for minute in range(24 * 60):
        now = two + timedelta(minutes=minute)
        if choose.is_due([two - timedelta(days=1)], failed, now):
            failed.append(now)
    assert [(began - two) // timedelta(hours=1) for began in failed] == [0, 1, 3, 6, 10, 15, 21]
    assert choose.is_due([], failed, two + timedelta(days=1))
    assert names.began(names.attempt(NOON)) == NOON
    assert names.began("lost+found") is None


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("hdd/fixed/disk.qcow2", True),
        ("repo/fixed/a/b", True),
        ("hdd/disk.qcow2", False),
        ("hdd/fixed", False),
        ("hdd/fixed/../../../../etc/passwd", False),
        ("hdd/other/disk.qcow2", False),
        ("/fixed/disk.qcow2", False),
        ("//fixed/disk.qcow2", False),
    ],
)
def test_only_fixed_assets_are_restored(tmp_path: Path, name: str, fixed: bool) -> None:
    more = {"environment": "test", "taken": NOON.isoformat(), "configuration": {}}
    inventory = Inventory(assets={name: "0" * 64}, sizes={name: 1}, modified={name: 1}, **more)  # type: ignore[arg-type]
    with contextlib.nullcontext() if fixed else pytest.raises(HostError, match="is not a fixed asset"):
        (reason,) = assets._restored(inventory, tmp_path, overwrite=True, report=print)
        assert "is missing" in reason


def test_an_asset_that_changes_while_it_is_sent_has_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOUNT", tmp_path / "mount")
    path = tmp_path / "disk.raw"
    path.write_bytes(b"new")
    with pytest.raises(HostError, match="changed while it was sent"):
        assets._send(assets.Found(path, bytes=3, modified=0), hashlib.sha256(b"old").hexdigest())
    assert not list(tmp_path.rglob("*.json"))


def test_content_is_sent_again_before_it_expires() -> None:
    assert not assets.due(NOON, NOON + timedelta(days=23), keep_days=35)
    assert assets.due(NOON, NOON + timedelta(days=24), keep_days=35)


@pytest.mark.parametrize(
    ("mode", "named"), [(0o644, "iso/fixed/sub/a.iso"), (0o311, "iso/fixed/sub"), (0, "iso/fixed/sub")]
)
def test_what_openqa_may_not_see_of_the_assets_is_named(tmp_path: Path, mode: int, named: str) -> None:
    """Also a folder that cannot be listed: no glob tells of it."""
    folder = tmp_path / "iso/fixed/sub"
    folder.mkdir(parents=True)
    (folder / "a.iso").touch()
    (tmp_path / "hdd").mkdir()
    (tmp_path / "other").touch()
    folder.chmod(mode)
    wrong: dict[str, str] = {}
    with users.acting_as(users.OPENQA):
        assert not list(assets._fixed(tmp_path, wrong))
    (reason,) = wrong.values()
    assert list(wrong) == [named]
    assert f"{named}: cannot be read: Permission" in reason
    assert assets._unseen("iso/fixed/sub/a.iso", wrong)
    assert not assets._unseen("iso/fixed/b.iso", wrong)
