"""The stand-in for mount-s3: every rule that Mountpoint documents, on a real mount.

The rules: github.com/awslabs/mountpoint-s3, doc/SEMANTICS.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from localcloud.mountpoint import bucket as bucket_module
from localcloud.mountpoint.bucket import Bucket
from localcloud.mountpoint.options import parse
from tests.localcloud.aws_helpers import REGION, open_server
from tests.prerequisites import missing

pytestmark = pytest.mark.machine

REPOSITORY = Path(__file__).parents[2]
BUCKET = "backups"
MIB = 1024 * 1024
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True)
class Mounted:
    """A mounted bucket."""

    directory: Path
    prefix: str
    s3: Any
    process: subprocess.Popen[str]

    def objects(self) -> dict[str, int]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=self.prefix).get("Contents", [])
        return {known["Key"].removeprefix(self.prefix): known["Size"] for known in found}

    def content(self, name: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=BUCKET, Key=self.prefix + name)["Body"].read()
        return body

    def put(self, name: str, content: bytes = b"there\n") -> None:
        self.s3.put_object(Bucket=BUCKET, Key=self.prefix + name, Body=content)

    def uploads(self) -> list[str]:
        found = self.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [upload["Key"].removeprefix(self.prefix) for upload in found]

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {script}"],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def wait_for(self, name: str, size: int) -> None:
        limit = time.monotonic() + 10
        while self.objects().get(name) != size:
            assert time.monotonic() < limit, self.objects()
            time.sleep(0.05)


Mount = Callable[..., Mounted]


@pytest.fixture(scope="module")
def own_mounts() -> None:
    """Gives this process a mount namespace of its own: what is mounted ends with it, however it ends."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("mounting needs root and /dev/fuse")
    assert ctypes.CDLL(None).unshare(0x20000) == 0  # linux/sched.h: CLONE_NEWNS
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@pytest.fixture(scope="module")
def endpoint(own_mounts: None) -> Iterator[str]:
    server, url = open_server()
    yield url
    server.stop()


@pytest.fixture(scope="module")
def mount(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Mounts a part of the bucket, with more options."""
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}),
    )
    s3.create_bucket(Bucket=BUCKET)
    mounted: list[Mounted] = []

    def start(*options: str, prefix: str | None = None) -> Mounted:
        directory = tmp_path_factory.mktemp("mount")
        prefix = prefix or f"database{len(mounted)}/"
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "localcloud.mountpoint"]
        command += [BUCKET, str(directory), "--foreground"]
        command += [f"--prefix={prefix}", f"--endpoint-url={endpoint}", "--force-path-style", *options]
        process = subprocess.Popen(
            command,
            env={**os.environ, **KEYS, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        mounted.append(Mounted(directory, prefix, s3, process))
        assert process.stdout is not None
        assert "is mounted at" in process.stdout.readline()
        return mounted[-1]

    yield start
    for made in mounted:
        subprocess.run(["umount", "--lazy", "--quiet", made.directory], check=False)
        made.process.kill()
        made.process.wait()


@pytest.fixture(scope="module")
def shared(mount: Mount) -> Mounted:
    return mount()


@pytest.fixture
def here(shared: Mounted) -> Mounted:
    """A folder of its own in a mount that the tests share."""
    name = uuid.uuid4().hex
    (shared.directory / name).mkdir()
    return replace(shared, directory=shared.directory / name, prefix=f"{shared.prefix}{name}/")


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in numbers, caught.value


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags, 0o600)
    try:
        yield handle
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


DENY_WRITING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"arn:aws:s3:::{BUCKET}/*",
            }
        ],
    }
)
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


# What is written


def test_a_new_file_is_there_when_it_is_synchronised(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"one ")
        os.write(handle, b"two")
        assert here.objects() == {}
        os.fsync(handle)
        assert here.content("new") == b"one two"
    assert (here.directory / "new").read_bytes() == b"one two"


def test_close_completes_too(here: Mounted) -> None:
    (here.directory / "new").write_bytes(b"text")
    assert here.content("new") == b"text"


def test_nothing_is_written_after_fsync(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"text")
        os.fsync(handle)
        with refused(errno.EIO):
            os.write(handle, b"more")
    assert here.content("new") == b"text"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_what_is_there_is_not_overwritten(here: Mounted, flags: int) -> None:
    here.put("old")
    with refused(errno.EPERM):
        os.open(here.directory / "old", flags)
    assert here.content("old") == b"there\n"


def test_truncating_is_refused(here: Mounted) -> None:
    here.put("old")
    with refused(errno.EPERM):
        os.truncate(here.directory / "old", 0)


@pytest.mark.parametrize("offset", [0, 5, 11])
def test_writes_out_of_order_abort_the_upload(here: Mounted, offset: int) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"0123456789")
        with refused(errno.EINVAL):
            os.pwrite(handle, b"x", offset)
        with refused(errno.EINVAL):
            os.write(handle, b"x")
        with refused(errno.EINVAL):
            os.fsync(handle)
    time.sleep(0.3)
    assert here.objects() == {}
    assert not (here.directory / "new").exists()


def test_an_aborted_upload_leaves_no_parts(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, bytes(9 * MIB))
        assert here.uploads() == ["new"]
        with refused(errno.EINVAL):
            os.pwrite(handle, b"x", 0)
    assert here.uploads() == []
    assert here.objects() == {}


def test_writes_begin_at_the_beginning(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle, refused(errno.EINVAL):
        os.pwrite(handle, b"x", 1)


def test_large_objects_go_in_parts_and_come_back(here: Mounted) -> None:
    content = os.urandom(MIB) * 21 + b"tail"
    (here.directory / "large").write_bytes(content)
    assert here.objects() == {"large": len(content)}
    assert here.uploads() == []
    assert (
        hashlib.sha256((here.directory / "large").read_bytes()).digest() == hashlib.sha256(content).digest()
    )
    with (here.directory / "large").open("rb") as file:
        file.seek(20 * MIB - 7)
        assert file.read(14) == content[20 * MIB - 7 : 20 * MIB + 7]


def test_writers_of_several_processes_do_not_disturb_each_other(here: Mounted) -> None:
    one = "head -c 9000000 /dev/zero | tr '\\0' $i | dd of=f$i bs=1M conv=fsync"
    loops = f"for i in 1 2 3 4 5 6; do ({one}) & done"
    assert here.shell(f"{loops}; wait").returncode == 0
    assert set(here.objects().values()) == {9000000}
    for number in range(1, 7):
        assert set(here.content(f"f{number}")) == {ord(str(number))}


def test_a_file_has_no_more_than_ten_thousand_parts(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket_module, "PARTS", 2)
    unreached = Bucket("none", prefix="", region=REGION, endpoint=endpoint, path_style=True)
    upload = unreached.upload("file", part_size=5 * MIB)
    with refused(errno.EFBIG):
        upload.write(memoryview(bytes(10 * MIB + 1)))


# Who closes, and when


def test_a_killed_writer_leaves_what_looks_complete(here: Mounted) -> None:
    script = "import os, time; f = open('cut', 'wb', 0); f.write(b'half'); print(flush=True); time.sleep(60)"
    writer = subprocess.Popen(
        [sys.executable, "-c", script], cwd=here.directory, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    assert here.objects() == {}
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    here.wait_for("cut", 4)


def test_an_empty_file_is_completed_after_its_close(here: Mounted) -> None:
    os.close(os.open(here.directory / "empty", NEW))
    here.wait_for("empty", 0)


def test_another_process_closing_does_not_complete(here: Mounted) -> None:
    with opened(here.directory / "shared", NEW) as handle:
        os.write(handle, b"one ")
        child = os.fork()
        if not child:
            os.close(handle)
            os._exit(0)
        os.waitpid(child, 0)
        assert here.objects() == {}
        os.write(handle, b"two")
    assert here.content("shared") == b"one two"


def test_shells_redirect(here: Mounted) -> None:
    assert here.shell("(echo one; echo two) > new").returncode == 0
    here.wait_for("new", 8)


def test_errors_of_a_later_completion_are_lost(mount: Mount) -> None:
    here = mount()
    handle = os.open(here.directory / "lost", NEW)
    here.s3.put_bucket_policy(Bucket=BUCKET, Policy=DENY_WRITING)
    try:
        os.close(handle)
        time.sleep(0.5)
        assert here.objects() == {}
        with opened(here.directory / "told", NEW) as handle:
            os.write(handle, b"text")
            with refused(errno.EIO):
                os.fsync(handle)
    finally:
        here.s3.delete_bucket_policy(Bucket=BUCKET)


# What a file that is written does not do


def test_a_file_being_written_cannot_be_read(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"text")
        with refused(errno.EPERM):
            os.open(here.directory / "new", os.O_RDONLY)


def test_a_file_has_one_writer(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"text")
        with refused(errno.EPERM):
            os.open(here.directory / "new", os.O_WRONLY)


def test_one_descriptor_does_not_read_and_write(here: Mounted) -> None:
    with opened(here.directory / "new", os.O_RDWR | os.O_CREAT) as handle:
        os.write(handle, b"text")
        with refused(errno.EBADF):
            os.pread(handle, 4, 0)
    here.put("old")
    with opened(here.directory / "old", os.O_RDWR) as handle:
        assert os.read(handle, 5) == b"there"
        with refused(errno.EBADF):
            os.write(handle, b"x")


def test_a_descriptor_for_both_is_not_synchronised(here: Mounted) -> None:
    here.put("old")
    with opened(here.directory / "old", os.O_RDWR) as handle, refused(errno.EBADF):
        os.fsync(handle)


# Names, metadata, directories


def test_nothing_is_renamed(here: Mounted) -> None:
    here.put("old")
    (here.directory / "folder").mkdir()
    for name in ("old", "folder"):
        with refused(errno.ENOSYS, errno.EPERM):
            (here.directory / name).rename(here.directory / "other")
    assert here.objects() == {"old": 6}


def test_nothing_is_deleted(here: Mounted) -> None:
    here.put("folder/old")
    with refused(errno.EPERM):
        (here.directory / "folder/old").unlink()
    with refused(errno.EPERM):
        (here.directory / "folder").rmdir()
    assert here.objects() == {"folder/old": 6}


def test_there_are_no_links(here: Mounted) -> None:
    here.put("old")
    with refused(errno.EPERM):
        (here.directory / "symbolic").symlink_to("old")
    with refused(errno.EPERM):
        (here.directory / "hard").hardlink_to(here.directory / "old")


METADATA: dict[str, tuple[Callable[[Path], object], int]] = {
    "chmod": (lambda path: path.chmod(0o600), errno.EPERM),
    "chown": (lambda path: os.chown(path, 1, 1), errno.EPERM),
    "utimes": (lambda path: os.utime(path), errno.EPERM),
    "xattr": (lambda path: os.setxattr(path, "user.name", b"1"), errno.EOPNOTSUPP),
    "mknod": (lambda path: os.mknod(path.parent / "fifo"), errno.ENOSYS),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_cannot_be_changed(here: Mounted, what: str) -> None:
    here.put("old")
    change, number = METADATA[what]
    with refused(number):
        change(here.directory / "old")


def test_times_of_a_file_being_written_are_taken(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"text")
        os.utime(handle)


def test_there_are_no_locks(here: Mounted) -> None:
    here.put("old")
    with (here.directory / "old").open("rb") as file:
        with refused(errno.ENOSYS):
            fcntl.flock(file, fcntl.LOCK_SH)
        with refused(errno.ENOSYS):
            fcntl.lockf(file, fcntl.LOCK_SH)


def test_there_is_no_allocation(here: Mounted) -> None:
    with opened(here.directory / "new", NEW) as handle, refused(errno.EINVAL):
        # glibc writes instead, out of order.
        os.posix_fallocate(handle, 0, 10)


def test_directories_are_not_synchronised(here: Mounted) -> None:
    with opened(here.directory, os.O_RDONLY | os.O_DIRECTORY) as handle, refused(errno.EOPNOTSUPP):
        os.fsync(handle)


def test_directories_are_only_here_until_a_file_is_in_them(mount: Mount) -> None:
    here = mount()
    (here.directory / "a/b").mkdir(parents=True)
    (here.directory / "c").mkdir()
    assert here.objects() == {}
    (here.directory / "a/b/file").write_bytes(b"text")
    (here.directory / "c").rmdir()
    with refused(errno.EPERM):
        (here.directory / "a").rmdir()
    other = mount(prefix=here.prefix)
    assert [path.name for path in other.directory.iterdir()] == ["a"]
    assert (other.directory / "a/b/file").read_bytes() == b"text"


def test_a_directory_hides_a_file_of_its_name(here: Mounted) -> None:
    here.put("name")
    here.put("name/file")
    assert (here.directory / "name").is_dir()
    assert [path.name for path in here.directory.iterdir()] == ["name"]


def test_listings_are_complete_and_in_order(here: Mounted) -> None:
    for number in range(1100):
        here.put(f"many/{number:04}")
    assert os.listdir(here.directory / "many") == [f"{number:04}" for number in range(1100)]  # noqa: PTH208


def test_what_others_write_is_seen_at_once_and_changed_metadata_within_a_second(here: Mounted) -> None:
    here.put("new", b"one")
    assert (here.directory / "new").stat().st_size == 3
    here.put("new", b"three")
    time.sleep(1.2)
    assert (here.directory / "new").stat().st_size == 5
    assert (here.directory / "new").read_bytes() == b"three"


def test_a_read_never_mixes_versions(here: Mounted) -> None:
    here.put("old", b"a" * 20 * MIB)
    with (here.directory / "old").open("rb") as file:
        assert set(file.read(MIB)) == {ord("a")}
        here.put("old", b"b" * 20 * MIB)
        # The far end was in no buffer yet.
        file.seek(19 * MIB)
        with refused(errno.EIO):
            file.read(MIB)


# Options


def test_overwriting_can_be_allowed(mount: Mount) -> None:
    here = mount("--allow-overwrite")
    here.put("old")
    with refused(errno.EPERM):
        os.open(here.directory / "old", os.O_WRONLY)
    (here.directory / "old").write_bytes(b"new")
    assert here.content("old") == b"new"


def test_deleting_can_be_allowed(mount: Mount) -> None:
    here = mount("--allow-delete")
    here.put("old")
    with opened(here.directory / "new", NEW) as handle:
        os.write(handle, b"text")
        with refused(errno.EPERM):
            (here.directory / "new").unlink()
    (here.directory / "old").unlink()
    assert here.objects() == {"new": 4}


def test_a_mount_can_be_read_only(mount: Mount) -> None:
    here = mount("--read-only")
    with refused(errno.EROFS):
        (here.directory / "new").write_bytes(b"")


def test_owner_and_modes_are_those_of_the_options(mount: Mount) -> None:
    here = mount("--allow-other", "--uid=603", "--gid=604", "--file-mode=0640", "--dir-mode=0750")
    here.put("old")
    file, folder = (here.directory / "old").stat(), here.directory.stat()
    assert (file.st_uid, file.st_gid, file.st_mode & 0o777) == (603, 604, 0o640)
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o777) == (603, 604, 0o750)
    as_user = f"setpriv --reuid=603 --regid=603 --clear-groups sh -c 'echo text > {here.directory}/theirs'"
    os.chmod(here.directory.parent, 0o755)  # noqa: PTH101
    for parent in here.directory.parents[:3]:
        if str(parent) != "/tmp":
            parent.chmod(0o755)
    assert subprocess.run(["bash", "-c", as_user], check=False).returncode == 0
    here.wait_for("theirs", 5)
    other = as_user.replace("603", "605").replace("theirs", "foreign")
    assert subprocess.run(["bash", "-c", other], check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "options",
    [
        ["--allow-rename"],
        ["--allow-oth"],
        ["--prefix=database"],
        ["--write-part-size=1"],
        ["--uid=me"],
        ["more"],
    ],
)
def test_what_is_not_understood_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["bucket", "/directory", *options], uid=0, gid=0)


def test_the_unit_uses_no_option_that_is_not_here() -> None:
    golden = Path(__file__).parents[1] / "userdata/golden"
    for host, user in (("database", 603), ("webui", 601)):
        unit = (golden / host / "etc/systemd/system/backup-mount.service").read_text()
        (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart=/usr/bin/mount-s3 "))
        options = parse(line.split()[1:], uid=0, gid=0)
        assert (options.prefix, options.uid, options.gid) == (f"{host}/", user, user)
        assert not options.allow_delete
        assert not options.allow_overwrite
        assert not options.foreground


# A bucket that is not there


def test_a_bucket_that_does_not_exist_is_not_mounted(endpoint: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "localcloud.mountpoint", "none", str(tmp_path)),
            *(f"--endpoint-url={endpoint}", "--force-path-style"),
        ],
        env={**os.environ, **KEYS, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "mount-s3: bucket none:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.ismount(tmp_path)


def test_it_mounts_in_the_background_and_ends_with_the_mount(
    mount: Mount, endpoint: str, tmp_path: Path
) -> None:
    mount()
    directory = tmp_path / "background"
    directory.mkdir()
    subprocess.run(
        [
            *(sys.executable, "-m", "localcloud.mountpoint", BUCKET, str(directory)),
            *(f"--endpoint-url={endpoint}", "--force-path-style"),
        ],
        env={**os.environ, **KEYS, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    assert os.path.ismount(directory)
    subprocess.run(["umount", directory], check=True)
    assert not os.path.ismount(directory)


# What backups are made with


FAILS = {
    "mv": "cp /etc/hostname new && mv new newer",
    "cp -p": "cp -p /etc/hostname new",
    "cp over": "cp /etc/hostname old",
    "sed -i": "sed -i s/a/b/ old",
    "rm": "rm old",
    # As pg_dump -Fc does it: it goes back to its table of contents.
    "seeking back": (
        "python3 -c \"f = open('new', 'wb', 0); f.write(bytes(200)); f.seek(134); f.write(b'offset')\""
    ),
    "dd without truncating": "dd if=/etc/hostname of=old conv=notrunc",
    "dd that seeks": "dd if=/etc/hostname of=new seek=1",
    "appending": "echo more >> old",
    "touch": "touch old",
    # As pg_basebackup and pg_dump -Fd do it.
    "open again to synchronise": (
        "python3 -c \"import os; open('new', 'wb').write(b'x'); os.fsync(os.open('new', os.O_RDWR))\""
    ),
}
SURVIVES = {
    "dd": "echo text | dd of=new conv=fsync",
    "dd in blocks": "head -c 3000000 /dev/zero | dd of=new bs=1M iflag=fullblock conv=fsync",
    "pipe": "echo text | gzip > new",
    "tee": "echo text | tee >(sha256sum >/dev/null) | dd of=new conv=fsync",
    "cp": "cp /etc/hostname new",
    "tar": "tar cf - -C /etc hostname | dd of=new conv=fsync",
    "in a folder": "mkdir -p a/b && echo text | dd of=a/b/new conv=fsync",
    "sync of a file": "echo text > new && sync new",
}


@pytest.mark.parametrize("what", FAILS)
def test_commands_that_fail(here: Mounted, what: str) -> None:
    here.put("old")
    done = here.shell(FAILS[what])
    assert done.returncode != 0, done
    assert here.content("old") == b"there\n"


@pytest.mark.parametrize("what", SURVIVES)
def test_commands_that_survive(here: Mounted, what: str) -> None:
    done = here.shell(SURVIVES[what])
    assert done.returncode == 0, done.stderr
    (name,) = here.objects() if here.objects() else ["new"]
    here.wait_for(name, (here.directory / name).stat().st_size)
    assert name.endswith("new")


@pytest.mark.parametrize("options", ["-a", "-a --inplace"])
def test_rsync_fails(here: Mounted, options: str) -> None:
    if shutil.which("rsync") is None:
        missing("rsync is not here")
    assert here.shell(f"rsync {options} /etc/hostname new").returncode != 0


def test_readers_do_not_wait_for_a_writer(here: Mounted) -> None:
    here.put("old")
    stop = threading.Event()

    def write() -> None:
        with opened(here.directory / "new", NEW) as handle:
            while not stop.is_set():
                os.write(handle, bytes(MIB))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        started = time.monotonic()
        for _ in range(10):
            assert (here.directory / "old").read_bytes() == b"there\n"
        assert time.monotonic() - started < 20
    finally:
        stop.set()
        writer.join()
