"""A cloud's beginning and its end, however that comes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from images import cache
from localcloud import cloud, prerequisites
from localcloud.__main__ import main
from localcloud.cloud import CloudError, RunningCloud
from tests.localcloud.lab import Lab, device, make_lab, remove_what_killed_runs_left, wait_until
from tests.prerequisites import require_machine

pytestmark = pytest.mark.machine

REPOSITORY = Path(__file__).parents[2]


def traces(name: str, pid: int) -> list[str]:
    """All that outsiders can see of a cloud."""
    found = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"clouds/{name}" in line
    ]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [path for path in (file.read_text(),) if f"clouds/{name}" in path]
        except OSError:
            continue  # cleared in between
    # Where cgroup2 is the only hierarchy, and where it is one of several.
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        events = Path(mount, "openqa-on-aws", name, "cgroup.events")
        with contextlib.suppress(OSError):
            found += [str(events)] if "populated 1" in events.read_text() else []
    return [*found, f"process {pid}"] if Path(f"/proc/{pid}").exists() else found


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except ConnectionRefusedError:
        return False
    return True


def links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def test_nothing_is_left_when_its_first_process_is_killed(new_cloud: Callable[[str], RunningCloud]) -> None:
    before = links()
    running = new_cloud("killed")
    lab = make_lab(running)
    instance = lab.launch("client")
    lab.wait_for_boot(instance)
    volume = lab.aws("ec2").create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    lab.aws("ec2").attach_volume(VolumeId=volume, InstanceId=instance, Device="/dev/sdf")
    lab.wait_for(instance, f"test -b {device(volume)}")
    lab.output(instance, f"mkfs.ext4 -q {device(volume)} && mount {device(volume)} /mnt")
    # A loop device, processes in the cgroup, and the first process; no mounts, no links.
    assert len(traces(running.name, running.pid)) == 3
    assert links() == before

    os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)
    wait_until(lambda: not traces(running.name, running.pid), seconds=20)
    assert cloud.find(running.name) is None
    assert not listens(running.api_port)
    assert not listens(running.web_port)

    # What it kept on disk goes at the next start.
    assert list(running.work.glob("volumes/*"))
    again = cloud.start(running.name, api_port=0, web_port=0)
    assert not list(running.work.glob("volumes/*"))
    assert cloud.find(running.name) == again
    assert cloud.stop(running.name)
    assert cloud.find(running.name) is None
    assert not running.work.exists()
    assert not running.log.parent.exists()
    assert not cloud.stop(running.name)


def test_its_machines_boot_whatever_the_umask(new_cloud: Callable[[str], RunningCloud]) -> None:
    before = os.umask(0o077)
    try:
        running = new_cloud("umask")
    finally:
        os.umask(before)
    lab = make_lab(running)
    instance = lab.launch("client")
    lab.wait_for_boot(instance)
    assert lab.output(instance, "stat --format=%a /") == "755"


def test_all_may_look_for_it_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_machine()
    monkeypatch.setattr(cloud, "STATES", tmp_path / "states")
    before = os.umask(0o077)
    try:
        assert main(["down", "--name", "nobody"]) == 0
    finally:
        os.umask(before)
    assert cloud.STATES.stat().st_mode & 0o777 == 0o755


START = """
import sys, time
from localcloud import cloud
with cloud.starting(sys.argv[1], api_port=0, web_port=0):
    print("up", flush=True)
    time.sleep(600)
"""


def test_it_goes_with_the_command_that_starts_it() -> None:
    require_machine()
    name = f"test-starter-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", START, name], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "up\n"
        running = cloud.find(name)
        starter.kill()
    assert running is not None
    wait_until(lambda: not traces(name, running.pid), seconds=20)
    assert cloud.find(name) is None
    cloud.stop(name)


def test_a_new_one_waits_for_the_end_of_one_whose_start_was_killed() -> None:
    require_machine()
    name = f"test-waits-{os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", START, name], cwd=REPOSITORY) as starter:
        wait_until((cloud.STATES / name / "state.json").exists, seconds=20)
        starter.kill()
    assert cloud.find(name) is None
    again = cloud.start(name, api_port=0, web_port=0)
    assert cloud.find(name) == again
    assert cloud.stop(name)


def test_what_a_killed_run_left_goes_at_the_next_one(lab: Lab) -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    name = f"test-left-{ended.pid}"
    volume = cache.root() / "clouds" / name / "volumes/vol-1"
    volume.parent.mkdir(parents=True)
    volume.touch()
    (cloud.STATES / name).mkdir()
    (cloud.STATES / name / "log").touch()
    remove_what_killed_runs_left()
    assert not (cache.root() / "clouds" / name).exists()
    assert not (cloud.STATES / name).exists()
    assert cloud.find(lab.cloud.name) == lab.cloud


def test_it_goes_if_the_block_that_starts_it_fails() -> None:
    require_machine()
    name = f"test-block-{os.getpid()}"
    with pytest.raises(ZeroDivisionError), cloud.starting(name, api_port=0, web_port=0):
        raise ZeroDivisionError
    assert cloud.find(name) is None


def test_it_may_be_stopped_before_the_block_that_starts_it_ends() -> None:
    require_machine()
    name = f"test-stopped-{os.getpid()}"
    with cloud.starting(name, api_port=0, web_port=0):
        assert cloud.stop(name)
    assert cloud.find(name) is None


def test_it_is_known_and_removed_whatever_the_cache_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    require_machine()
    name = f"test-elsewhere-{os.getpid()}"
    with tempfile.TemporaryDirectory(dir=cache.root()) as elsewhere:
        with monkeypatch.context() as patch:
            patch.setenv("OPENQA_CACHE", elsewhere)
            running = cloud.start(name, api_port=0, web_port=0)
        work = Path(elsewhere) / "clouds" / name
        assert (running.work, work.exists()) == (work, True)
        assert cloud.stop(name)
        assert not work.exists()


def test_one_name_is_one_cloud(lab: Lab) -> None:
    with pytest.raises(CloudError, match="already running"):
        cloud.start(lab.cloud.name, api_port=0, web_port=0)
    assert cloud.find(lab.cloud.name) == lab.cloud


@pytest.mark.parametrize("ready", [True, False])
def test_one_that_starts_is_waited_for(
    *, ready: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets ready, or ends, while somebody looks."""
    monkeypatch.setattr(cloud, "STATES", tmp_path)
    starts = RunningCloud(name="starts", pid=1, api_port=1, web_port=1)
    (tmp_path / "starts").mkdir()
    (tmp_path / "starts" / "state.json").write_text(json.dumps(asdict(starts)))
    with (tmp_path / "starts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(
            "localcloud.cloud.time.sleep", lambda _: starts.certificate.touch() if ready else lock.close()
        )
        assert cloud.find("starts") == (starts if ready else None)


@pytest.mark.parametrize("words", ["up", "deploy"])
def test_one_without_the_internet_is_none_with_it(words: str, lab: Lab) -> None:
    done = command(words, "--name", lab.cloud.name, "--internet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"The local cloud '{lab.cloud.name}' runs without the internet: "
        f"stop it first with 'python -m localcloud down --name {lab.cloud.name}'.\n"
    )


def test_refusals_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_machine()
    for name in ("Not/allowed", "1st"):
        with pytest.raises(CloudError, match=f"'{name}' cannot name a local cloud: allowed are"):
            cloud.start(name, api_port=0, web_port=0)
    with monkeypatch.context() as patch:
        patch.setattr(prerequisites, "DEVICES", ("/dev/null", "/dev/none", "/dev/nobody"))
        with pytest.raises(CloudError, match="needs /dev/none, /dev/nobody, which this machine lacks"):
            cloud.start("test-devices", api_port=0, web_port=0)
    (tmp_path / "cache").symlink_to("/tmp/cache")
    with monkeypatch.context() as patch:
        patch.setenv("OPENQA_CACHE", str(tmp_path / "cache"))
        with pytest.raises(CloudError, match="a folder that is not below /proc, /run, /sys, /tmp"):
            cloud.start("test-cache", api_port=0, web_port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for ports, told in (
            ((port, 0), "AWS API is not.*--api-port"),
            ((0, port), "web UI is not.*--web-port"),
        ):
            with pytest.raises(CloudError, match=f"Port {port} for the {told} PORT"):
                cloud.start("test-port", api_port=ports[0], web_port=ports[1])
    assert not cloud.stop("test-port")


def test_no_proxy_is_asked_for_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    done = command("status", "--name", lab.cloud.name)
    assert (done.returncode, done.stderr) == (0, "")
    told = command("env", "--name", lab.cloud.name).stdout
    assert "export no_proxy=example.org,localhost\nexport NO_PROXY=example.org,localhost\n" in told


def command(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localcloud", *words],
        cwd=REPOSITORY,
        input=typed,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("option", "port"), [("--api-port", "-1"), ("--web-port", "65536"), ("--web-port", "x")]
)
def test_a_port_that_is_none_is_refused_in_one_line(option: str, port: str) -> None:
    done = command("up", f"{option}={port}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{option}: '{port}' is not a port: allowed are 0 to 65535")


@pytest.mark.parametrize("words", [["status"], ["env"], ["console", "i-1"], ["shell", "i-1"]])
def test_commands_without_a_cloud_say_so_in_one_line(words: list[str]) -> None:
    done = command(*words, "--name", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "The local cloud 'nobody' is not running: start it with 'python -m localcloud up'.\n"
    )


def test_a_cloud_that_ended_meanwhile_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    ended = RunningCloud(name="local", pid=0, api_port=1, web_port=1)
    monkeypatch.setattr(cloud, "find", lambda name: ended)
    assert main(["status"]) == 1
    assert capsys.readouterr().err == (
        "The local cloud 'local' does not answer or has been stopped: "
        'Could not connect to the endpoint URL: "http://localhost:1/"\n'
    )


def test_commands_with_a_cloud(lab: Lab, pair: tuple[str, str]) -> None:
    name = ("--name", lab.cloud.name)
    status = command("status", *name).stdout
    assert lab.cloud.endpoint in status
    assert all(instance in status for instance in pair)
    assert f"export AWS_ENDPOINT_URL={lab.cloud.endpoint}\n" in command("env", *name).stdout
    assert "hello from the client" in command("console", pair[0], *name).stdout
    refused = command("console", "i-1", *name).stderr
    assert refused == f"'i-1' is not an instance of the local cloud '{lab.cloud.name}'.\n"


def test_a_shell_is_the_instances_own(
    lab: Lab, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder, and nothing of the caller's shell, which `env` may have pointed at the cloud."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", lab.cloud.endpoint)
    asked = "pwd; ls -d ../etc; type -P sysctl; echo $HOME $TERM $AWS_ENDPOINT_URL"
    monkeypatch.setenv("TERM", "linux")
    done = command("shell", pair[0], "--name", lab.cloud.name, typed=asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["/root", "../etc", "/usr/sbin/sysctl", "/root linux"]
