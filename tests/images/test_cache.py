import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import cache
from images.errors import BuildError

Build = subprocess.Popen[str]

# Opens a workspace, says where, and builds until it is killed.
BUILD = """
import time
from images import cache
with cache.workspace() as folder:
    (folder / "half").write_text("half of it")
    print(folder, flush=True)
    time.sleep(60)
    cache.publish(folder / "half", cache.root() / "whole")
"""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def build() -> Iterator[Build]:
    process = subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def workspace_of(build: Build) -> Path:
    assert build.stdout is not None
    return Path(build.stdout.readline().strip())


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.root() == tmp_path
    monkeypatch.delenv("OPENQA_CACHE")
    assert cache.root() == Path("/var/cache/openqa-on-aws")
    monkeypatch.setenv("OPENQA_CACHE", "")
    assert cache.root() == Path("/var/cache/openqa-on-aws")
    monkeypatch.setenv("OPENQA_CACHE", "here")
    assert cache.root() == Path.cwd() / "here"


@pytest.mark.parametrize("name", ["My Disk", "a:b", "a,b"])
def test_a_name_that_mounts_cannot_take_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENQA_CACHE", f"/media/{name}")
    with pytest.raises(BuildError, match=f"OPENQA_CACHE names '/media/{name}': allowed are"):
        cache.root()


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rm = tmp_path / "rm"
    rm.write_text("#!/bin/sh\necho 'rm: it is in use' >&2\nexit 1\n")
    rm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=f"cannot remove {tmp_path}/x: rm: it is in use"):
        cache.remove(tmp_path / "x")


def test_a_workspace_goes_with_its_end() -> None:
    with cache.workspace() as folder:
        (folder / "tree").mkdir()
        (folder / "tree/file").write_text("")
    assert not folder.exists()


def test_a_workspace_goes_with_an_error() -> None:
    with pytest.raises(RuntimeError), cache.workspace() as folder:
        raise RuntimeError
    assert not folder.exists()


def test_a_killed_build_leaves_nothing_that_looks_complete(build: Build, tmp_path: Path) -> None:
    leftover = workspace_of(build)
    build.send_signal(signal.SIGKILL)
    build.wait()
    assert (leftover / "half").exists()
    assert not (tmp_path / "whole").exists()
    with cache.workspace() as folder:
        assert not leftover.exists()
        assert folder.exists()


def test_the_next_build_leaves_a_running_one_alone(build: Build) -> None:
    running = workspace_of(build)
    with cache.workspace() as folder:
        assert (running / "half").exists()
        assert folder != running


def test_publishing_keeps_what_was_first(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "built").write_text(text)
        cache.publish(tmp_path / "built", tmp_path / "place" / "final")
    assert (tmp_path / "place" / "final").read_text() == "first"


def test_what_did_not_get_on_the_disk_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = tmp_path / "sync"
    sync.write_text("#!/bin/sh\necho 'sync: the disk is full' >&2\nexit 1\n")
    sync.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "built").write_text("")
    with pytest.raises(BuildError, match=f"cannot write {tmp_path}/built: sync: the disk is full"):
        cache.publish(tmp_path / "built", tmp_path / "final")
    assert not (tmp_path / "final").exists()


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    waiting = "import sys; from images import cache; from pathlib import Path\n"
    waiting += "with cache.locked(Path(sys.argv[1])): print()"
    with cache.locked(tmp_path / "l"):
        process = subprocess.Popen([sys.executable, "-c", waiting, str(tmp_path / "l")])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
    assert process.wait(timeout=10) == 0


def test_who_may_not_write_the_cache_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with (
        pytest.raises(BuildError, match=r"cannot write .*/l: building needs root"),
        cache.locked(tmp_path / "l"),
    ):
        pass
