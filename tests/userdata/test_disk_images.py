"""Disk images from the builder's folder through the bucket to the web UI's: real files and tar, moto's S3."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.response import StreamingBody
from urllib3.exceptions import ProtocolError

from tests.userdata import machine
from userdata.host import aws, figures, kvm, roles
from userdata.host.disk_images import build, fetch
from userdata.host.disk_images.manifest import Image, Manifest, ManifestError, decode, encode
from userdata.host.disk_images.store import Store, sha256
from userdata.host.errors import HostError
from userdata.host.host import Host

BUCKET = "disk-images"
MIB = 1024**2
SCRIPT = machine.REPOSITORY / "userdata/roles/builder/programs/sample.sh"
IMAGE = Image(name="disk_a.img", key="images/1/disk_a.img.tar.gz", bytes=3, sha256="0" * 64, modified=1)


@pytest.fixture
def bucket(aws: None) -> Any:
    """The bucket of disk images."""
    s3 = boto3.client("s3", region_name=machine.REGION)
    s3.create_bucket(Bucket=BUCKET)
    return s3


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A builder without another in its group."""
    monkeypatch.setattr(build, "await_turn", lambda host: None)
    return machine.host(tmp_path / "builder", "builder")


@pytest.fixture
def webui(tmp_path: Path) -> Host:
    """The web UI's host."""
    made = machine.host(
        tmp_path / "webui",
        machine.read("webui") | {"disk_images": {"bucket": BUCKET, "architectures": ["x86_64", "aarch64"]}},
    )
    machine.keep_sample(made)
    roles._lay_out(made)
    return made


def fixed(host: Host) -> Path:
    return host.layout.data / "openqa/share/factory/hdd/fixed"


def shown(host: Host) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fixed(host).iterdir()}


def keys(s3: Any) -> set[str]:
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())}


class Program:
    """Makes images of some content; knows as little as createhdds of where they go."""

    def __init__(self, host: Host, images: dict[str, bytes], *, failing: Iterable[str] = ()) -> None:
        self.folder = host.layout.images
        self.images = images
        self.failing = set(failing)
        self.outdated: set[str] = set()
        self.made: list[str] = []
        self.calls: list[str] = []

    def _due(self) -> list[str]:
        return [n for n in self.images if n in self.outdated or not (self.folder / n).exists()]

    def __call__(self, *arguments: str) -> int:
        self.calls.append(arguments[0])
        assert arguments[1] == "--clean"
        for path in self.folder.iterdir():
            if path.name not in self.images:
                path.unlink()
        if arguments[0] == "check":
            return 2 if self._due() else 0
        for name in self._due():
            if name in self.failing:
                (self.folder / f"{name}.tmp").write_bytes(b"half")
                return 1
            self.made.append(name)
            self.outdated.discard(name)
            (self.folder / name).write_bytes(self.images[name])
        return 0


def other(host: Host, architecture: str) -> Host:
    """The builder of another architecture."""
    own = build.settings(host)
    changed = replace(own, architecture=architecture, prefix=f"{architecture}/")
    return replace(host, document=replace(host.document, builder=changed))


def test_images_arrive_whole(
    bucket: Any, builder: Host, webui: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(figures, "put", lambda host, **values: told.append(values))
    content = {"disk_a.img": b"a" * 100, "disk_b.qcow2": b"b" * 100, "notes.txt": b"not an image"}
    build.build(builder, program=Program(builder, content))
    fetch.fetch(webui)
    del content["notes.txt"]
    assert shown(webui) == content
    assert {path.stat().st_mode & 0o777 for path in fixed(webui).iterdir()} == {0o644}
    (age,) = told
    assert age["architecture"] == "x86_64"
    assert 0 <= age["ImagesAgeSeconds"] < 60, "since all of them were found to be current"
    monkeypatch.setattr(Store, "fetch", None)  # of no use any more: they are there
    fetch.fetch(webui)


def test_an_image_is_on_the_disk_before_it_is_shown(
    bucket: Any, builder: Host, webui: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that loses its power would leave one of the right size that holds nothing."""
    build.build(builder, program=Program(builder, {"disk_a.img": b"new"}))
    written: list[tuple[str, dict[str, bytes]]] = []
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        written.append((Path(f"/proc/self/fd/{descriptor}").resolve().name, shown(webui)))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    fetch.fetch(webui)
    assert ("disk_a.img", {}) in written


def test_holes_stay_holes(bucket: Any, builder: Host, webui: Host, tmp_path: Path) -> None:
    path = tmp_path / "disk_sparse.img"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
        for place in (0, 100 * MIB, 255 * MIB):
            file.seek(place)
            file.write(os.urandom(MIB))
    store = Store(bucket, bucket=BUCKET, prefix="x86_64/")
    image = store.put(path)
    assert bucket.head_object(Bucket=BUCKET, Key=f"x86_64/{image.key}")["ContentLength"] < 4 * MIB
    (tmp_path / "got").mkdir()
    got = store.fetch(image, tmp_path / "got")
    assert sha256(got) == image.sha256 == sha256(path)
    assert got.stat().st_blocks * 512 < 4 * MIB
    assert int(got.stat().st_mtime) == image.modified


def test_only_what_is_due_is_made_and_stored(bucket: Any, builder: Host, webui: Host) -> None:
    first = build.build(builder, program=Program(builder, {"disk_a.img": b"one", "disk_b.img": b"two"}))
    before = keys(bucket)
    again = Program(builder, {"disk_a.img": b"one", "disk_b.img": b"two"})
    assert build.build(builder, program=again).images == first.images
    assert (again.calls, again.made, keys(bucket)) == (["check"], [], before)
    # Of an image that is published only size and time are there.
    build.place(builder.layout.images, [replace(first.images[0], modified=1)])
    stand_in = builder.layout.images / "disk_a.img"
    assert (stand_in.read_bytes(), stand_in.stat().st_mtime) == (bytes(3), 1)
    later = Program(builder, {"disk_a.img": b"new", "disk_b.img": b"two"})
    later.outdated = {"disk_a.img"}
    made = build.build(builder, program=later)
    assert later.made == ["disk_a.img"]
    assert [image.name for image in made.images] == ["disk_a.img", "disk_b.img"]
    assert made.images[1] == first.images[1]
    assert made.images[0].key != first.images[0].key
    fetch.fetch(webui)
    assert shown(webui) == {"disk_a.img": b"new", "disk_b.img": b"two"}


def test_what_is_wanted_no_more_goes_and_what_others_put_there_stays(
    bucket: Any, builder: Host, webui: Host
) -> None:
    (fixed(webui) / "disk_own.img").write_bytes(b"an operator's")
    build.build(builder, program=Program(builder, {"disk_a.img": b"one", "disk_old.img": b"old"}))
    fetch.fetch(webui)
    assert set(shown(webui)) == {"disk_own.img", "disk_a.img", "disk_old.img"}
    # Cleaning is part of the first check: nothing has to be made for it.
    build.build(builder, program=Program(builder, {"disk_a.img": b"one"}))
    fetch.fetch(webui)
    assert set(shown(webui)) == {"disk_own.img", "disk_a.img"}
    # What has the name of one that went is no builder's.
    (fixed(webui) / "disk_old.img").write_bytes(b"an operator's")
    fetch.fetch(webui)
    assert set(shown(webui)) == {"disk_own.img", "disk_a.img", "disk_old.img"}
    # A bucket that is empty, or lost, takes nothing away.
    bucket.delete_object(Bucket=BUCKET, Key="x86_64/manifest.json")
    fetch.fetch(webui)
    assert set(shown(webui)) == {"disk_own.img", "disk_a.img", "disk_old.img"}


def test_a_builder_that_dies_before_the_manifest_shows_nothing(
    bucket: Any, builder: Host, webui: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    content = {"disk_a.img": b"one", "disk_b.img": b"two"}
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            build.build(builder, program=Program(builder, content))
    assert len(keys(bucket)) == 2
    fetch.fetch(webui)
    assert shown(webui) == {}
    build.build(builder, program=Program(builder, content))
    fetch.fetch(webui)
    assert shown(webui) == content


def test_a_failing_image_keeps_its_last_good_state(bucket: Any, builder: Host, webui: Host) -> None:
    good = build.build(builder, program=Program(builder, {"disk_a.img": b"one", "disk_b.img": b"two"}))
    content = {"disk_a.img": b"new", "disk_b.img": b"new"}
    program = Program(builder, content, failing={"disk_b.img"})
    program.outdated = set(content)
    with pytest.raises(HostError, match="after 3 attempts some images are still missing or outdated"):
        build.build(builder, program=program)
    assert program.calls == ["check", "all"] * 3 + ["check"]
    fetch.fetch(webui)
    assert shown(webui) == {"disk_a.img": b"new", "disk_b.img": b"two"}
    manifest, _ = Store(bucket, bucket=BUCKET, prefix="x86_64/").read()
    assert manifest is not None
    assert manifest.checked == good.checked


def test_what_a_first_build_could_make_is_shown(bucket: Any, builder: Host, webui: Host) -> None:
    program = Program(builder, {"disk_a.img": b"one", "disk_b.img": b"two"}, failing={"disk_b.img"})
    with pytest.raises(HostError, match="some images are still missing"):
        build.build(builder, program=program)
    fetch.fetch(webui)
    assert shown(webui) == {"disk_a.img": b"one"}


def test_no_image_at_all_is_no_result(bucket: Any, builder: Host) -> None:
    build.build(builder, program=Program(builder, {"disk_a.img": b"one"}))
    with pytest.raises(HostError, match="made no image"):
        build.build(builder, program=Program(builder, {}))


def test_of_two_builders_one_publishes(bucket: Any, builder: Host) -> None:
    written: list[Image] = []

    class Slow(Program):
        def __call__(self, *arguments: str) -> int:
            if not self.calls:
                store = Store(bucket, bucket=BUCKET, prefix="x86_64/")
                _, tag = store.read()
                written.append(IMAGE)
                store.write(Manifest(checked=None, images=tuple(written)), tag=tag)
            return super().__call__(*arguments)

    for _ in range(2):  # without a manifest before, and with one
        with pytest.raises(HostError, match="another builder has written it"):
            build.build(builder, program=Slow(builder, {"disk_a.img": b"one"}))


def test_an_image_is_copied_before_it_expires_and_made_again_after(
    bucket: Any, builder: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"disk_a.img": b"one"}
    (image,) = build.build(builder, program=Program(builder, content)).images
    monkeypatch.setattr(build, "RENEW", build.RENEW * 0)
    (copy,) = build.build(builder, program=Program(builder, content)).images
    assert (copy.key != image.key, replace(copy, key=image.key)) == (True, image)
    assert f"x86_64/{copy.key}" in keys(bucket)
    bucket.delete_object(Bucket=BUCKET, Key=f"x86_64/{copy.key}")
    program = Program(builder, content)
    build.build(builder, program=program)
    assert program.made == ["disk_a.img"]


@pytest.mark.parametrize("damage", ["cut", "other", "link", "gone"])
def test_what_is_not_as_it_was_built_is_not_shown(
    bucket: Any, builder: Host, webui: Host, damage: str
) -> None:
    build.build(builder, program=Program(builder, {"disk_a.img": b"old" * 9999}))
    fetch.fetch(webui)
    good = Program(builder, {"disk_a.img": b"one" * 9999, "disk_b.img": b"two"})
    good.outdated = {"disk_a.img"}
    a = f"x86_64/{build.build(builder, program=good).images[0].key}"
    if damage == "cut":
        whole = bucket.get_object(Bucket=BUCKET, Key=a)["Body"].read()
        bucket.put_object(Bucket=BUCKET, Key=a, Body=whole[: len(whole) // 2])
    elif damage in ("other", "link"):
        other_image = Store(bucket, bucket=BUCKET, prefix="x86_64/")
        path = builder.layout.images / "disk_a.img"
        if damage == "link":
            path.symlink_to(path.rename(path.with_suffix(".kept")))
        else:
            path.write_bytes(b"two" * 9999)
        bucket.copy_object(Bucket=BUCKET, Key=a, CopySource=f"{BUCKET}/x86_64/{other_image.put(path).key}")
    else:
        bucket.delete_object(Bucket=BUCKET, Key=a)
    # The others are none the worse for it, and the next round tries again.
    for _ in range(2):
        with pytest.raises(HostError, match=r"disk_a\.img|tar: exit code"):
            fetch.fetch(webui)
        assert shown(webui) == {"disk_a.img": b"old" * 9999, "disk_b.img": b"two"}


def test_a_transfer_that_breaks_off_is_told_of_its_image(bucket: Any, builder: Host, tmp_path: Path) -> None:
    (image,) = build.build(builder, program=Program(builder, {"disk_a.img": b"a"})).images

    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ProtocolError("Connection broken")

    bucket.meta.events.register(
        "after-call.s3.GetObject", lambda parsed, **_: parsed.update(Body=StreamingBody(Broken(), 100))
    )
    store = Store(bucket, bucket=BUCKET, prefix="x86_64/")
    with pytest.raises(HostError, match=rf"{image.key}: .*Retries"):
        store.fetch(image, tmp_path)
    with pytest.raises(HostError, match=r"an archive: .*Retries"):
        aws.call("an archive", bucket.download_file, Bucket=BUCKET, Key="x86_64/manifest.json", Filename="-")


def test_an_image_for_every_architecture_is_the_first_ones(bucket: Any, builder: Host, webui: Host) -> None:
    build.build(builder, program=Program(builder, {"disk_full.img": b"x86"}))
    arm = other(builder, "aarch64")
    build.build(arm, program=Program(arm, {"disk_full.img": b"arm", "disk_arm.img": b"arm"}))
    fetch.fetch(webui)
    assert shown(webui) == {"disk_full.img": b"x86", "disk_arm.img": b"arm"}
    # No longer the first one's: the second one's, at once.
    build.build(builder, program=Program(builder, {"disk_new.img": b"x86"}))
    fetch.fetch(webui)
    assert shown(webui) == {"disk_new.img": b"x86", "disk_full.img": b"arm", "disk_arm.img": b"arm"}
    # What somebody has removed or cut off comes back.
    (fixed(webui) / "disk_new.img").unlink()
    os.truncate(fixed(webui) / "disk_full.img", 1)
    fetch.fetch(webui)
    assert shown(webui) == {"disk_new.img": b"x86", "disk_full.img": b"arm", "disk_arm.img": b"arm"}


def test_an_image_stays_while_its_own_builders_manifest_cannot_be_read(
    bucket: Any, builder: Host, webui: Host
) -> None:
    build.build(builder, program=Program(builder, {"disk_common.img": b"one"}))
    fetch.fetch(webui)
    arm = other(builder, "aarch64")
    build.build(arm, program=Program(arm, {"disk_common.img": b"another", "disk_arm.img": b"arm"}))
    bucket.put_object(Bucket=BUCKET, Key="x86_64/manifest.json", Body=b"{}")
    with pytest.raises(HostError, match=r"s3://disk-images/x86_64/manifest\.json: it is not a manifest"):
        fetch.fetch(webui)
    assert shown(webui) == {"disk_common.img": b"one", "disk_arm.img": b"arm"}


def test_a_bucket_that_does_not_answer_has_not_no_images(bucket: Any) -> None:
    with pytest.raises(HostError, match=r"s3://none/x86_64/manifest\.json: .*NoSuchBucket"):
        Store(bucket, bucket="none", prefix="x86_64/").read()


def test_no_image_goes_or_comes_through_a_link(
    bucket: Any, builder: Host, webui: Host, elsewhere: Path
) -> None:
    build.build(builder, program=Program(builder, {"disk_old.img": b"old"}))
    fetch.fetch(webui)
    machine.put_link(fixed(webui), elsewhere)
    (elsewhere / "disk_old.img").write_bytes(b"theirs")
    (elsewhere / "disk_a.img").write_bytes(b"theirs")
    before = machine.everything(elsewhere)
    build.build(builder, program=Program(builder, {"disk_a.img": b"one"}))
    with pytest.raises(
        HostError, match=r"Permission denied: .*disk_a\.img'; .*Permission denied: .*disk_old\.img"
    ):
        fetch.fetch(webui)
    assert machine.everything(elsewhere) == before
    # It is as if nothing had been, once the link is gone.
    fixed(webui).unlink()
    fixed(webui).with_name("fixed.moved").rename(fixed(webui))
    fetch.fetch(webui)
    assert shown(webui) == {"disk_a.img": b"one"}


def test_a_full_volume_is_left_alone(
    bucket: Any, builder: Host, webui: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.build(builder, program=Program(builder, {"disk_a.img": b"one"}))
    monkeypatch.setattr(fetch, "FREE", 1.0)
    with pytest.raises(HostError, match=r"disk_a\.img: no room on the volume for its 3 bytes"):
        fetch.fetch(webui)
    assert shown(webui) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-20],
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
        lambda data: data.replace(b"disk_a.img", b"../disk_a.img"),
        lambda data: data.replace(b'"disk_a.img"', b'"passwd"'),
        lambda data: data.replace(b'"bytes": 3', b'"bytes": "3"'),
        lambda data: data.replace(b'"modified"', b'"more"'),
        lambda data: data.replace(b'"checked"', b'"more"'),
        lambda data: data.replace(b"+00:00", b""),
        lambda data: b"[]",
    ],
)
def test_a_manifest_is_read_strictly(change: Callable[[bytes], bytes]) -> None:
    manifest = Manifest(checked="2026-01-01T00:00:00+00:00", images=(IMAGE,))
    text = encode(manifest)
    assert decode(text) == manifest
    with pytest.raises(ManifestError):
        decode(change(text))


def sample(folder: Path, *arguments: str) -> int:
    return subprocess.run(["bash", str(SCRIPT), *arguments], cwd=folder, check=False).returncode


def test_the_sample_speaks_as_createhdds_does(tmp_path: Path) -> None:
    (tmp_path / "disk_old.img").touch()
    (tmp_path / "other").touch()
    assert sample(tmp_path, "check") == 2
    assert sample(tmp_path, "all", "--clean") == 0
    assert sample(tmp_path, "check", "--clean") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"disk_sample_1.img", "disk_sample_2.img", "other"}
    for image in tmp_path.glob("disk*"):
        assert (image.stat().st_size, image.stat().st_blocks * 512 < 4 * MIB) == (64 * MIB, True)
    os.utime(tmp_path / "disk_sample_1.img", (1, 1))
    assert sample(tmp_path, "check") == 1
    assert sample(tmp_path, "none") == 64


class Group:
    """Auto Scaling, as a builder sees it."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.desired = 1
        self.refusals = 0

    def describe_auto_scaling_groups(self, **_: object) -> Any:
        members = self.answers.pop(0)
        return {"AutoScalingGroups": [{"Instances": [{"InstanceId": name} for name in members]}]}

    def set_desired_capacity(self, *, AutoScalingGroupName: str, DesiredCapacity: int) -> None:  # noqa: N803
        assert AutoScalingGroupName == "openqa-test-builder-x86_64"
        if self.refusals:
            self.refusals -= 1
            raise HostError("throttled")
        self.desired = DesiredCapacity


class Told:
    """The instance metadata."""

    def __init__(self, state: str) -> None:
        self.state = state

    def find(self, path: str) -> str | None:
        assert path == "autoscaling/target-lifecycle-state"
        return self.state


def test_one_waits_until_the_other_is_gone(tmp_path: Path) -> None:
    own = machine.INSTANCE
    group = Group(["i-other", own], ["i-other", own], [own])
    host = replace(machine.host(tmp_path, "builder"), client=lambda _: group)
    build.await_turn(host, sleep=lambda _: None)
    assert group.answers == []


@pytest.mark.parametrize(("state", "desired"), [("InService", 0), ("Terminated", 1)])
def test_a_builder_empties_its_group_but_not_for_its_successor(
    tmp_path: Path, state: str, desired: int
) -> None:
    group = Group()
    group.refusals = 2 if state == "InService" else 0
    host = replace(machine.host(tmp_path, "builder"), client=lambda _: group)
    build.leave(host, Told(state), sleep=lambda _: None)  # type: ignore[arg-type]
    assert group.desired == desired


@pytest.mark.parametrize("built", [True, False])
def test_how_it_went_is_told(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool) -> None:
    left = []
    monkeypatch.setattr(build, "leave", lambda *_: left.append(True))
    host = machine.host(tmp_path, "builder")
    host.layout.runtime.mkdir(parents=True)
    if built:
        host.layout.built.touch()
    build.over(host, Told("InService"))  # type: ignore[arg-type]
    (metric,) = host.client("cloudwatch").list_metrics(Namespace="openQA/test")["Metrics"]
    assert metric["MetricName"] == "ImagesFailed"
    assert metric["Dimensions"] == [{"Name": "Architecture", "Value": "x86_64"}]
    now = datetime.now(UTC)
    (point,) = host.client("cloudwatch").get_metric_statistics(
        **metric,
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=7200,
        Statistics=["Sum"],
    )["Datapoints"]
    assert point["Sum"] == (0.0 if built else 1.0)
    assert left == [True]


def test_a_builder_that_cannot_tell_how_it_went_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: Host, *, failed: bool) -> None:
        raise HostError("throttled")

    monkeypatch.setattr(build, "tell", refuse)
    group = Group()
    host = replace(machine.host(tmp_path, "builder"), client=lambda _: group)
    build.over(host, Told("InService"))  # type: ignore[arg-type]
    assert group.desired == 0


def test_nothing_is_made_while_another_builder_is_left(
    builder: Host, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stays(host: Host) -> None:
        raise HostError("another builder stays")

    monkeypatch.setattr(build, "await_turn", stays)
    ran: list[tuple[str, ...]] = []

    def program(*words: str) -> int:
        ran.append(words)
        return 0

    with pytest.raises(HostError, match="another builder stays"):
        build.build(builder, program=program)
    assert ran == []


def test_a_builder_without_kvm_prepares_nothing(tmp_path: Path, programs: machine.Programs) -> None:
    with pytest.raises(HostError, match="KVM does not work here"):
        roles.prepare(machine.host(tmp_path, "builder"))
    ((shell, *_, guest),) = programs.calls
    assert shell == "sh"
    # Its own QEMU, not that of a container.
    assert str(tmp_path / "run/openqa-on-aws/kvm-proof.img") in guest
    programs.answers["sh -c timeout"] = kvm.MARK
    roles.prepare(machine.host(tmp_path, "builder"))
