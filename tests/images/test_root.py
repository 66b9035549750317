import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from images import build, cache, recipe, root
from images.container import Bind, run
from images.debian import DebianRoot
from images.errors import BuildError
from tests.prerequisites import missing

USERDATA = Path(recipe.__file__).parent.parent / "userdata"


@pytest.fixture
def base() -> None:
    """The base root, for tests that enter it."""
    if os.geteuid() != 0 or not root.BASE.path.exists():
        missing("entering the base root needs root, and python -m images golden")


@pytest.fixture
def userdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "userdata"
    shutil.copytree(USERDATA, copy)
    monkeypatch.setattr(recipe, "_USERDATA", copy)
    monkeypatch.setattr(root, "_USERDATA", copy)
    return copy


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("install.sh", True),
        ("os/debian.sh", True),
        ("mount-s3/install.sh", True),
        ("signed.sh", True),
        ("containers/worker/Containerfile", True),
        ("content/sample/image/init", True),
        ("bootstrap.sh", False),
        ("content/sample/main.pm", False),
    ],
)
def test_a_golden_root_is_new_when_what_it_installs_is(file: str, counts: bool, userdata: Path) -> None:
    before = root.golden_path()
    (userdata / file).write_text("something else")
    assert (root.golden_path() != before) == counts


def test_a_golden_root_is_new_when_the_stand_in_for_mount_s3_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = root.golden_path()
    copy = tmp_path / "mountpoint"
    shutil.copytree(root._MOUNTPOINT, copy)
    monkeypatch.setattr(root, "_MOUNTPOINT", copy)
    assert root.golden_path() == before
    (copy / "files.py").write_text("")
    assert root.golden_path() != before


def test_a_golden_root_is_new_when_its_base_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = root.golden_path()
    monkeypatch.setattr(recipe, "PACKAGES_AS_OF", "2000-01-01")
    assert root.golden_path() != before


def test_the_installation_sees_the_archives_of_today_and_only_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path))
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("webui-old", "webui-new", "sample-new"):
        (folder / name).write_text(name)
    archives = {name: folder / f"{name}-new" for name in ("webui", "sample")}
    seen: dict[str, list[str]] = {}

    def make(base: DebianRoot) -> Path:
        (base.path / "usr/bin").mkdir(parents=True)
        return base.path

    def install(copy: Path, command: Sequence[str], *, name: str, binds: list[Bind], log: Path) -> None:
        seen.update({bind.target: sorted(path.name for path in bind.source.iterdir()) for bind in binds})

    monkeypatch.setattr(build, "build", lambda os, architecture: archives)
    monkeypatch.setattr(DebianRoot, "make", make)
    monkeypatch.setattr(root, "change", install)
    for made in (root.golden_root(), root.plain_root()):
        assert os.access(made / "usr/bin/mount-s3", os.X_OK)
        assert (made / "usr/lib/mount-s3/localcloud/mountpoint/__main__.py").is_file()
    assert seen["/var/cache/openqa-on-aws"] == ["sample-new", "webui-new"]
    assert "install.sh" in seen["/opt/openqa-on-aws/userdata"]


@pytest.mark.usefixtures("base")
def test_what_a_command_does_is_thrown_away(tmp_path: Path) -> None:
    base = root.BASE.make()
    log = tmp_path / "log"
    out = Bind(source=tmp_path, target="/out", writable=True)
    run(base, ["sh", "-c", "rm -r /usr/bin/sudo; touch /new /out/kept; echo done"], binds=[out], log=log)
    assert (base / "usr/bin/sudo").exists()
    assert not (base / "new").exists()
    assert (tmp_path / "kept").exists()
    assert log.read_text() == "done\n"


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Reading\nE: Unable to locate package x\nError: building at STEP",
            ": E: Unable to locate package x",
        ),
        ("No match for argument: x\nError: Unable to find a match", ": No match for argument: x"),
        ("fatal: unable to access", ": fatal: unable to access"),
        (
            "E: Sub-process failed\n cannot write: No space left on device",
            ": cannot write: No space left on device",
        ),
        ("W: Errors: none", ""),
    ],
)
def test_what_a_command_complained_of_is_told(said: str, told: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("E: of an earlier build, with Ä\n")
    with pytest.raises(BuildError) as caught:
        run(root.BASE.make(), ["sh", "-c", f"echo '{said}' >&2; exit 100"], log=log)
    assert str(caught.value).endswith(f"ended with 100{told}; its output is in {log}")
    assert "earlier build" in log.read_text()


@pytest.mark.usefixtures("base")
def test_a_command_sees_the_same_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        run(root.BASE.make(), ["sh", "-c", "umask; stat --format=%a /"], log=tmp_path / "log")
    finally:
        os.umask(before)
    assert (tmp_path / "log").read_text() == "0022\n755\n"


@pytest.mark.usefixtures("base")
def test_a_command_uses_the_machines_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{kind}_proxy" for kind in ("http", "https", "no")]
    names += [name.upper() for name in names]
    for name in names:
        monkeypatch.setenv(name, f"the machine's {name}")
    monkeypatch.delenv("HTTP_PROXY")
    run(root.BASE.make(), ["env"], log=tmp_path / "log")
    said = {line for line in (tmp_path / "log").read_text().splitlines() if "proxy" in line.lower()}
    assert said == {f"{name}=the machine's {name}" for name in names if name != "HTTP_PROXY"}


@pytest.mark.usefixtures("base")
def test_a_file_shown_is_not_writable_unless_said(tmp_path: Path) -> None:
    bind = Bind(source=tmp_path, target="/in")
    with pytest.raises(BuildError, match="touch /in/new ended with 1; its output is in"):
        run(root.BASE.make(), ["touch", "/in/new"], binds=[bind], log=tmp_path / "log")


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_no_process_and_no_mount(
    end: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cache of its own: what others build at the same time does not count.
    (tmp_path / "roots").symlink_to(cache.root() / "roots")
    monkeypatch.setenv("OPENQA_CACHE", str(tmp_path))
    duration = str(31536000 + end)  # that no other sleeps
    # A shell's background commands ignore Ctrl-C, and so would this one's.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"from images import container, root; container.run(root.BASE.make(), ['sleep', '{duration}'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        _wait_until(lambda: _is_running(duration))
        (workspace,) = (tmp_path / "building").iterdir()
        process.send_signal(end)
        process.wait(timeout=30)
    finally:
        process.kill()
    _wait_until(lambda: not _is_running(duration))
    assert workspace.name not in Path("/proc/self/mounts").read_text()
    run(root.BASE.make(), ["true"])
    assert list((tmp_path / "building").iterdir()) == []
    assert list(Path("/sys/fs/cgroup").rglob(workspace.name)) == []


def _is_running(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if command[:2] == [b"sleep", argument.encode()]:
            return True
    return False


def _wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)
