"""A whole deployment in a cloud of the tests' own: what ``make local`` does, and what must not go wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from images import cache
from localcloud import cloud
from localcloud.cloud import RunningCloud
from localcloud.deploy import IMAGE_PARAMETER
from tests.localcloud.deployed import until
from tests.prerequisites import require_machine

pytestmark = pytest.mark.smoke

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "backups.md"
CAP_SYS_RESOURCE = 24  # linux/capability.h
NAME = "test"
METADATA = "http://169.254.169.254/latest/api/token"
TOKEN_HEADER = "X-aws-ec2-metadata-token-ttl-seconds: 60"
# Asks for a token as an attacker would; exits with 0 only if it got an answer.
ASK_FOR_TOKEN = (
    "import urllib.request as u;"
    f"r = u.Request({METADATA!r}, method='PUT', headers={{'X-aws-ec2-metadata-token-ttl-seconds': '60'}});"
    "print(u.urlopen(r, timeout=5).status)"
)


@dataclass(frozen=True)
class Run:
    """An ended command."""

    code: int
    output: str


def command(*words: str, directory: Path = REPOSITORY) -> Run:
    """Runs ``python -m localcloud …`` and passes its output on as it comes."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "localcloud", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return Run(process.returncode, "".join(lines))


def deploy(*options: str, directory: Path = REPOSITORY) -> Run:
    return command(
        "deploy", "local", "--name", NAME, "--api-port", "0", "--web-port", "0", *options, directory=directory
    )


def running() -> RunningCloud:
    found = cloud.find(NAME)
    assert found is not None
    return found


def get(path: str) -> Any:
    context = ssl.create_default_context(cafile=str(running().certificate))
    with urllib.request.urlopen(running().url + path, context=context, timeout=30) as answer:
        return json.load(answer)


def instance_of(group: str) -> str:
    """The id of the one instance in service of a group."""
    groups = running().client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    instances = [
        instance["InstanceId"]
        for instance in groups["AutoScalingGroups"][0]["Instances"]
        if instance["LifecycleState"] == "InService"
    ]
    assert len(instances) == 1, groups
    return str(instances[0])


def inside(instance: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in an instance, as root."""
    leader = running().leader(instance)
    assert leader is not None
    return subprocess.run(
        ["nsenter", f"--target={leader}", "--all", "--wd=/", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def deployed() -> Iterator[Run]:
    require_machine()
    command("down", "--name", NAME)
    yield deploy()
    command("down", "--name", NAME)


def test_the_sample_job_passes_on_a_worker_that_auto_scaling_launched(deployed: Run) -> None:
    assert deployed.code == 0, deployed.output
    assert "The sample job passed" in deployed.output
    assert running().url in deployed.output
    job = get("/api/v1/jobs?latest=1")["jobs"][0]
    assert job["result"] == "passed"
    worker = get(f"/api/v1/workers/{job['assigned_worker_id']}")["worker"]
    launched = (
        running().client("ec2").describe_instances(InstanceIds=[instance_of("openqa-local-fleet-small")])
    )
    address = launched["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    assert worker["properties"]["WORKER_HOSTNAME"] in (address, f"ip-{address.replace('.', '-')}")


def test_the_load_balancer_refuses_who_is_not_trusted(deployed: Run) -> None:
    balancers = running().client("elbv2").describe_load_balancers()["LoadBalancers"]
    shown = inside(
        instance_of("openqa-local-webui"),
        *("curl", "--silent", "--max-time", "10", "--output", "/dev/null"),
        *("--write-out", "%{http_code} %{redirect_url}", f"http://{balancers[0]['DNSName']}/"),
    )
    # An instance is none of the environment's trusted addresses: no answer at all.
    assert shown.returncode == 28, shown


@pytest.mark.parametrize("user", ["root", "_openqa-worker"])
def test_no_credentials_for_a_worker_container_or_isotovideo(deployed: Run, user: str) -> None:
    worker = instance_of("openqa-local-fleet-small")
    names = inside(worker, "podman", "ps", "--format", "{{.Names}}").stdout.split()
    container = next(name for name in names if "worker" in name and "1" in name)
    ask = ["curl", "--silent", "--max-time", "5", "--request", "PUT", "--header", TOKEN_HEADER, METADATA]
    attempt = inside(worker, "podman", "exec", "--user", user, container, *ask)
    assert attempt.returncode in (7, 28), attempt
    assert attempt.stdout == ""


def test_no_credentials_for_anybody_but_root_on_a_worker_host(deployed: Run) -> None:
    worker = instance_of("openqa-local-fleet-small")
    own = inside(worker, "python3", "-c", ASK_FOR_TOKEN)
    assert own.stdout.strip() == "200", own
    other = inside(worker, "setpriv", "--reuid=65534", "--clear-groups", "python3", "-c", ASK_FOR_TOKEN)
    assert other.returncode != 0
    assert other.stdout == ""


@pytest.mark.parametrize(("role", "user"), [("database", "603"), ("webui", "601")])
def test_hosts_that_keep_state_write_backups_and_delete_none(deployed: Run, role: str, user: str) -> None:
    host = instance_of(f"openqa-local-{role}")
    write = "echo text | dd of=/srv/backups/test/new conv=fsync status=none"
    as_service = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "sh", "-c")
    made = inside(host, *as_service, f"cd / && mkdir /srv/backups/test && {write}")
    assert made.returncode == 0, made.stderr
    for attempt in (write, "rm /srv/backups/test/new", "mv /srv/backups/test/new /srv/backups/test/newer"):
        assert inside(host, *as_service, f"cd / && {attempt}").returncode != 0, attempt
    s3 = running().client("s3")
    (bucket,) = (b["Name"] for b in s3.list_buckets()["Buckets"] if "-storage-backupsd" in b["Name"])
    assert s3.get_object(Bucket=bucket, Key=f"{role}/test/new")["Body"].read() == b"text\n"
    delete = (
        "import boto3; boto3.client('s3', region_name='us-east-1')"
        f".delete_object(Bucket={bucket!r}, Key='{role}/test/new')"
    )
    refused = inside(host, "sh", "-c", f"cd / && python3 -c {shlex.quote(delete)}")
    assert "is not authorized to perform: s3:DeleteObject" in refused.stderr


@pytest.mark.parametrize("role", ["database", "webui"])
def test_nothing_is_configured_before_the_volume_is_mounted(deployed: Run, role: str) -> None:
    """Here devices are mounted at once: no test would see it by what becomes of it."""
    shown = inside(
        instance_of(f"openqa-local-{role}"),
        *("systemctl", "show", "--property=Requires,After", "openqa-configure.service"),
    ).stdout
    words = {line.partition("=")[0]: line.partition("=")[2].split() for line in shown.splitlines()}
    assert "srv-data.mount" in words["Requires"]
    assert "srv-data.mount" in words["After"]


def all_active(host: str) -> bool:
    """Whether all units of the web UI's pod are at work."""
    names = ("pod", "webui", "proxy", "scheduler", "websockets", "livehandler", "gru", "rsyncd")
    states = inside(host, "systemctl", "is-active", *(f"openqa-{name}.service" for name in names)).stdout
    return set(states.split()) == {"active"}


def all_back(host: str) -> None:
    """Waits until all units of the web UI's pod are at work, and openQA answers."""

    def answers() -> bool | None:
        try:
            return bool(get("/api/v1/jobs?latest=1")["jobs"]) or None
        except OSError:
            return None

    until("all is back", lambda: all_active(host) or None, seconds=180)
    until("openQA answers", answers, seconds=60)


def test_the_web_ui_comes_back_when_its_pod_dies(deployed: Run) -> None:
    host = instance_of("openqa-local-webui")
    assert all_active(host)
    infra = inside(host, "podman", "inspect", "openqa-infra", "--format", "{{.State.Pid}}").stdout.strip()
    assert inside(host, "kill", "-9", infra).returncode == 0
    until("the pod ends", lambda: None if all_active(host) else True, seconds=60)
    all_back(host)


def test_the_web_ui_comes_back_when_an_operator_restarts_what_all_of_it_requires(deployed: Run) -> None:
    host = instance_of("openqa-local-webui")
    done = inside(host, "systemctl", "restart", "openqa-setup", "openqa-webui")
    assert done.returncode == 0, done.stderr
    all_back(host)


def test_when_openqa_is_stopped_for_a_snapshot_nothing_uses_the_volume(deployed: Run) -> None:
    """By the very line of the page: what follows it there removes openQA's folder."""
    (stop,) = re.findall(r"^systemctl stop openqa-on-aws.target .*$", PAGE.read_text(), re.MULTILINE)
    host = instance_of("openqa-local-webui")
    assert all_active(host)
    try:
        done = inside(host, "sh", "-c", f"{stop} && podman ps --quiet && findmnt --noheadings /srv/data")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1  # the mount, and no container
    finally:
        inside(host, "systemctl", "start", "openqa-on-aws.target")
    all_back(host)


# Nobody gets anything of the table, and many want something.
LOCK = (
    "PGSERVICEFILE=/etc/openqa/pg_service.conf PGSERVICE=openqa exec psql --quiet --no-password"
    " --command='begin; lock jobs; select pg_sleep(600)'"
)
ASK = "while curl --silent --output /dev/null 'http://127.0.0.1/api/v1/jobs?limit=1'; do :; done"


def test_an_openqa_whose_processes_are_all_busy_is_left_alone(deployed: Run) -> None:
    host = instance_of("openqa-local-webui")
    health = ("curl", "--silent", "--max-time", "5", "http://127.0.0.1/health")
    assert inside(host, *health).returncode == 0
    inside(host, "podman", "exec", "--detach", "openqa-webui", "sh", "-c", LOCK)
    inside(host, "systemd-run", "--unit=ask", "sh", "-c", f"for _ in $(seq 60); do {ASK} & done; wait")
    try:
        timed_out = 28
        until("openQA is busy", lambda: inside(host, *health).returncode == timed_out or None, seconds=60)
        for name in ("openqa-webui", "openqa-proxy"):
            assert inside(host, "podman", "healthcheck", "run", name).returncode == 0, name
    finally:
        inside(host, "systemctl", "stop", "ask")
        inside(host, "podman", "exec", "openqa-webui", "pkill", "psql")
    all_back(host)


def test_the_bucket_is_mounted_again_when_its_program_dies(deployed: Run) -> None:
    host = instance_of("openqa-local-database")
    unit = "backup-mount.service"
    show = ("systemctl", "show", "--property=MainPID", "--value", unit)
    before = inside(host, *show).stdout.strip()
    assert inside(host, "kill", "-9", before).returncode == 0
    limit = time.monotonic() + 60
    # The kernel keeps the dead program's mount, which answers nothing, until the unit takes it away.
    while (
        inside(host, *show).stdout.strip() in (before, "0")
        or inside(host, "sh", "-c", "findmnt /srv/backups && ls /srv/backups").returncode
    ):
        assert time.monotonic() < limit
        time.sleep(0.5)


def test_no_secret_in_what_an_instance_logs_or_runs(deployed: Run) -> None:
    manager = running().client("secretsmanager")
    secrets = [
        manager.get_secret_value(SecretId=secret["ARN"])["SecretString"]
        for secret in manager.list_secrets()["SecretList"]
    ]
    assert len(secrets) >= 2
    for group in ("openqa-local-database", "openqa-local-webui", "openqa-local-fleet-small"):
        instance = instance_of(group)
        journal = inside(instance, "journalctl", "--no-pager", "--output=cat").stdout
        arguments = inside(instance, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        console = running().console(instance).read_text(errors="replace")
        assert "first boot" not in console or "failed" not in console
        for secret in secrets:
            for shown in (secret, secret[16:]):
                assert shown not in journal, group
                assert shown not in arguments, group
                assert shown not in console, group


def test_again_is_a_deploy_without_changes(deployed: Run) -> None:
    before = {g: instance_of(f"openqa-local-{g}") for g in ("database", "webui", "fleet-small")}
    again = deploy("--no-smoke")
    assert again.code == 0, again.output
    assert "No changes: all stacks are as the environment says." in again.output
    assert before == {g: instance_of(f"openqa-local-{g}") for g in before}


def may_resize() -> bool:
    """Whether this machine's root may resize file systems that are mounted: some sandboxes' may not."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:")
    ]
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def grown(environment: str) -> str:
    """An environment file's text, with a larger volume for the web UI."""
    return environment.replace("volume_gib = 4\n", "volume_gib = 5\n")


def test_a_changed_setting_updates_what_it_must(deployed: Run, tmp_path: Path) -> None:
    before = {g: instance_of(f"openqa-local-{g}") for g in ("database", "webui", "fleet-small")}
    text = (REPOSITORY / "environments" / "local.toml").read_text()
    for setting in ("max = 2\n", "volume_gib = 4\n"):
        assert setting in text
    (tmp_path / "local.toml").write_text(grown(text).replace("max = 2\n", "max = 3\n"))
    changed = deploy("--no-smoke", "--environments", str(tmp_path))
    assert changed.code == 0, changed.output
    groups = (
        running()
        .client("autoscaling")
        .describe_auto_scaling_groups(AutoScalingGroupNames=["openqa-local-fleet-small"])
    )
    assert groups["AutoScalingGroups"][0]["MaxSize"] == 3
    assert "openqa-local-webui (no changes)" in changed.output
    # The volume has grown under the running openQA, whose timer does this.
    webui = before["webui"]
    assert inside(webui, "systemctl", "is-active", "data-volume-growth.timer").stdout == "active\n"

    device = inside(webui, "findmnt", "--noheadings", "--output=SOURCE", "/srv/data").stdout.strip()

    def is_larger() -> bool | None:
        return int(inside(webui, "blockdev", "--getsize64", device).stdout) == 5 * 2**30 or None

    until("the volume to be larger", is_larger, seconds=30)
    code = inside(webui, "systemctl", "start", "data-volume-growth.service").returncode
    said = inside(webui, "journalctl", "--unit=data-volume-growth", "--lines=8").stdout
    if may_resize():
        blocks, block = map(
            int, inside(webui, "stat", "--file-system", "--format=%b %S", "/srv/data").stdout.split()
        )
        assert code == 0
        assert blocks * block > 4.5 * 2**30
    else:  # all but the kernel's last word; tests/userdata has resize2fs do the rest
        assert "Permission denied to resize filesystem" in said
    assert before == {g: instance_of(f"openqa-local-{g}") for g in before}


def broken_checkout(directory: Path) -> Path:
    """A copy of the project whose PostgreSQL container cannot start; its volume has grown by now."""
    copy = directory / "checkout"
    shutil.copytree(
        REPOSITORY,
        copy,
        ignore=shutil.ignore_patterns(".venv", "node_modules", "cdk.out", ".git", "__pycache__", ".*_cache"),
    )
    (copy / "node_modules").symlink_to(REPOSITORY / "node_modules")
    local = copy / "environments/local.toml"
    local.write_text(grown(local.read_text()))
    start = copy / "userdata/roles/database/bin/start.sh"
    start.write_text("#!/bin/bash\necho 'this database was broken on purpose'\nexit 1\n")
    return copy


def test_a_broken_start_rolls_back_and_says_why(deployed: Run, tmp_path: Path) -> None:
    before = instance_of("openqa-local-database")
    broken = deploy("--no-smoke", directory=broken_checkout(tmp_path))
    assert broken.code != 0
    assert "Received FAILURE signal with UniqueId i-" in broken.output
    assert "openqa-database" in broken.output
    stack = running().client("cloudformation").describe_stacks(StackName="openqa-local-database")["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert instance_of("openqa-local-database") != before
    # The database is back, with what it held.
    deadline = time.monotonic() + 120
    while True:
        try:
            assert get("/api/v1/jobs?latest=1")["jobs"][0]["result"] == "passed"
            break
        except OSError:
            assert time.monotonic() < deadline, "the web UI does not answer after the roll-back"
            time.sleep(2)


def test_one_command_removes_all_of_it(deployed: Run, tmp_path: Path) -> None:
    """Workers, whose hosts are protected, and buckets with backups and logs included."""
    cloud = running()
    removed = subprocess.run(
        ["make", "--old-file=setup", "destroy", "ENV=local"],
        cwd=REPOSITORY,
        env={**os.environ, **cloud.environment(), "CDK_OUTPUT": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert removed.returncode == 0, removed.stdout
    stacks = cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks] == ["CDKToolkit"]
    assert not cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert not cloud.client("ec2").describe_volumes()["Volumes"]
    assert not cloud.client("secretsmanager").list_secrets()["SecretList"]
    buckets = cloud.client("s3").list_buckets()["Buckets"]
    assert {bucket["Name"].partition("-")[0] for bucket in buckets} == {"cdk"}
    parameters = cloud.client("ssm").get_parameters_by_path(Path="/openqa", Recursive=True)["Parameters"]
    assert [parameter["Name"] for parameter in parameters] == [IMAGE_PARAMETER]


def left_behind(name: str) -> list[str]:
    """What of a cloud can be seen from outside it."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"clouds/{name}" in line]
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True)
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if f"clouds/{name}" in words or f'"clouds/{name}"' in words:
            processes.append(words)
    return [
        *mounts,
        *(line for line in loops.stdout.splitlines() if f"clouds/{name}" in line),
        *(line for line in links.stdout.splitlines() if not line.startswith(("lo ", "eth", "en", "docker"))),
        *processes,
    ]


@contextmanager
def started(name: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A deployment that is about to be killed."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "localcloud", "deploy", "local", "--name", name),
            *("--api-port", "0", "--web-port", "0", "--no-smoke"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        command("down", "--name", name)


@pytest.mark.parametrize("seconds", [1.0, 12.0, 40.0])
def test_killed_at_any_moment_nothing_is_left(seconds: float) -> None:
    require_machine()
    name = "killed"
    before = set(left_behind(name))
    with started(name) as process:
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 30
        while cloud.find(name) is not None or set(left_behind(name)) - before:
            assert time.monotonic() < deadline, set(left_behind(name)) - before
            time.sleep(0.2)
    assert not (cloud.STATES / name / "state.json").exists()


def test_what_a_killed_synthesis_leaves_goes_with_the_cloud(tmp_path: Path) -> None:
    require_machine()
    name = "killed-synth"
    temporary = cache.root() / "clouds" / name / "tmp"
    with started(name, TMPDIR=str(tmp_path)) as process:
        deadline = time.monotonic() + 120
        while not list(temporary.glob("jsii-kernel-*")):
            assert time.monotonic() < deadline, "no synthesis"
            time.sleep(0.1)
        process.kill()
    assert not temporary.exists()
    assert not list(tmp_path.iterdir())
