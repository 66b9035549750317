"""The database's or the web UI's host is lost, or sent away, while a job runs: nothing else is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest

from ops.deployment import DeploymentError
from tests.localcloud.deployed import Deployment, deployed, until

pytestmark = pytest.mark.heal

ROUNDS = int(os.environ.get("FAULTS", "2"))
SEED = int(os.environ.get("SEED", "1"))
RECOVERY_SECONDS = 600
# What the old host may take to let go of its volume.
RELEASE_SECONDS = 120
# A job of the sample takes a minute or more.
LATEST_SECONDS = 30

Role = Literal["database", "webui"]
Way = Literal["terminated", "power cut"]
ROLES: tuple[Role, ...] = ("webui", "database")
WAYS: tuple[Way, ...] = ("terminated", "power cut")

PSQL = "PGSERVICEFILE=/etc/openqa/pg_service.conf PGSERVICE=openqa timeout 40 psql -qAtXw"
# Each repeats for as long as its standard input is open, and says what is safe, and only then.
REPEAT = "cd /; while true; do read -rt 0.1; (($? > 128)) || exit 0; {}; done"
COMMITS = REPEAT.format(f"{PSQL} -c 'insert into heal default values returning id' 2>/dev/null")
FOLDER = "/srv/data/openqa/heal"
FILES = f"mkdir -p {FOLDER}; " + REPEAT.format(
    f"file=$(mktemp {FOLDER}/XXXXXXXX) && head -c 65536 /dev/urandom | dd of=$file bs=64k iflag=fullblock"
    " conv=fsync status=none && sha256sum $file"
)
# Rows that openQA never deletes by itself in so short a time.
TABLES = ("assets", "job_modules", "job_settings", "jobs", "users", "workers")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with deployed("heal", {"max = 2": "max = 1"}) as made:
        sql(made, "create table heal (id serial primary key)")
        yield made


@pytest.fixture(scope="module")
def jobs() -> list[int]:
    """The jobs that the tests scheduled, in order."""
    return []


@dataclass(frozen=True)
class Host:
    """What must be the same of a host and its successor."""

    volume: str
    filesystem: str
    interface: str
    address: str
    secrets: str


def sql(deployment: Deployment, statement: str) -> str:
    """What the database answers to the web UI."""
    (webui,) = deployment.serving("webui")
    return deployment.run(
        webui, "podman", "exec", "openqa-webui", "sh", "-c", f'{PSQL} -v ON_ERROR_STOP=1 -c "{statement}"'
    ).stdout.strip()


def describe(deployment: Deployment, instance: str) -> Host:
    """What must not change, as it is now."""
    ec2 = deployment.cloud.client("ec2")
    mine = [{"Name": "attachment.instance-id", "Values": [instance]}]
    (volume,) = (
        found["VolumeId"]
        for found in ec2.describe_volumes(Filters=mine)["Volumes"]
        if found["Attachments"][0]["Device"] == "/dev/sdf"
    )
    (interface,) = (
        found
        for found in ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]
        if found["Attachment"]["DeviceIndex"] == 1
    )
    return Host(
        volume=volume,
        filesystem=deployment.run(instance, "findmnt", "--noheadings", "--output=UUID", "/srv/data").stdout,
        interface=interface["NetworkInterfaceId"],
        address=interface["PrivateIpAddress"],
        secrets=deployment.run(instance, "sh", "-c", "sha256sum /run/openqa-on-aws/secrets/*").stdout,
    )


def rows(deployment: Deployment) -> set[str]:
    """The keys of all rows of openQA's that stay."""
    union = " union all ".join(f"select '{table} ' || id from {table}" for table in TABLES)
    return set(sql(deployment, union).splitlines())


def settled(deployment: Deployment, job: int) -> bool:
    """Whether a job is done; it must have passed, or openQA repeated it and the repetition did."""
    found = deployment.job(job)
    if found["state"] != "done":
        return False
    if found["result"] != "passed" and found["clone_id"] is not None:
        print(
            f"job {job}: {found['result']}, {found.get('reason')}; again as {found['clone_id']}", flush=True
        )
        return settled(deployment, found["clone_id"])
    assert found["result"] == "passed", (found["result"], found.get("reason"))
    return True


def busy(deployment: Deployment, jobs: list[int], *, waiting: int) -> int:
    """Sees to it that a job runs while so many wait; the one that runs."""
    while sum(not settled(deployment, job) for job in jobs) < 1 + waiting:
        jobs += deployment.schedule("heal")

    def running() -> int | None:
        return next((job for job in jobs if deployment.job(job)["state"] == "running"), None)

    return until("a job runs", running)


def lose(deployment: Deployment, instance: str, way: Way) -> None:
    """Ends a host without asking it, as EC2 does by order, or when its machine dies."""
    if way == "power cut":
        leader = deployment.cloud.leader(instance)
        assert leader is not None
        # Nobody hears anything more of it, no goodbye of its connections either.
        deployment.run(
            instance, "sh", "-c", "for link in /sys/class/net/ens*; do ip link set ${link##*/} down; done"
        )
        os.kill(leader, signal.SIGKILL)
    else:
        deployment.cloud.client("ec2").terminate_instances(InstanceIds=[instance])


def others(deployment: Deployment, role: Role, old: str, *states: str) -> list[str] | None:
    return [name for name in deployment.instances(role, *states) if name != old] or None


def successor(deployment: Deployment, role: Role, old: str) -> str:
    """Waits until a group's one host is another; which."""
    names = until(
        f"another {role} host is in service",
        lambda: others(deployment, role, old, "InService"),
        seconds=RECOVERY_SECONDS,
    )
    return names[0]


def answers(deployment: Deployment) -> bool | None:
    """Whether the web UI answers with what it has from the database."""
    try:
        deployment.openqa.request("GET", "workers")
    except DeploymentError:
        return None
    return True


def holder(deployment: Deployment, volume: str) -> str:
    """The instance that a volume is attached to, if there is one."""
    (found,) = deployment.cloud.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"]
    return next((attachment["InstanceId"] for attachment in found["Attachments"]), "")


def prepares(deployment: Deployment, instance: str) -> bool | None:
    """Whether a host is where it takes its interface and its volume."""
    if deployment.cloud.leader(instance) is None:
        return None
    found = deployment.run(instance, "pgrep", "--full", "userdata.host prepare", check=False)
    return found.returncode == 0 or None


@contextmanager
def witness(deployment: Deployment, role: Role) -> Iterator[Callable[[], set[str]]]:
    """Commits rows while the database is to be lost, and writes files while the web UI is.

    What it gives ends that, and returns all that was safe.
    """
    (webui,) = deployment.serving("webui")
    inside = ("podman", "exec", "--interactive", "openqa-webui") if role == "database" else ()
    process = subprocess.Popen(
        [
            *("nsenter", f"--target={deployment.cloud.leader(webui)}", "--all", "--wd=/", *inside),
            *("bash", "-c", COMMITS if role == "database" else FILES),
        ],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        # Also what was on its way when the host was lost, but for a line that has no end.
        yield lambda: set(process.communicate(timeout=60)[0].split("\n")[:-1])
    finally:
        process.kill()
        process.communicate()


def kept(deployment: Deployment, role: Role) -> set[str]:
    """What there is of what witnesses said."""
    (webui,) = deployment.serving("webui")
    if role == "database":
        return set(sql(deployment, "select id from heal").splitlines())
    return set(deployment.run(webui, "sh", "-c", f"sha256sum {FOLDER}/*").stdout.splitlines())


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_random_faults_lose_a_host_and_nothing_else(
    deployment: Deployment, jobs: list[int], seed: int
) -> None:
    role, way = ROLES[seed % 2], WAYS[seed // 2 % 2]
    (old,) = deployment.serving(role)
    before = describe(deployment, old)
    job = busy(deployment, jobs, waiting=1)
    with witness(deployment, role) as end:
        moment = random.Random(seed).uniform(1, LATEST_SECONDS)
        time.sleep(moment)
        there = rows(deployment)
        print(f"seed {seed}: {role} {way}, {moment:.0f} s after job {job} was seen to run", flush=True)
        began = time.monotonic()
        lose(deployment, old, way)
        new = successor(deployment, role, old)
        until("the API answers", lambda: answers(deployment), seconds=RECOVERY_SECONDS)
        print(f"seed {seed}: {role} back after {time.monotonic() - began:.0f} s", flush=True)
        said = end()
    assert describe(deployment, new) == before
    assert len(said) > 3
    assert said <= kept(deployment, role)
    assert there <= rows(deployment)


def test_hosts_that_are_sent_away_let_go_and_are_waited_for(deployment: Deployment, jobs: list[int]) -> None:
    old = {role: deployment.serving(role)[0] for role in ROLES}
    before = {role: describe(deployment, old[role]) for role in ROLES}
    busy(deployment, jobs, waiting=0)
    there = rows(deployment)
    # This one takes its time, so that the new one must wait.
    deployment.run(old["webui"], "systemctl", "kill", "--signal=STOP", "openqa-agent.service")
    holders: dict[Role, list[tuple[str, float]]] = {role: [(old[role], 0.0)] for role in ROLES}
    began = time.monotonic()
    for role in ROLES:
        deployment.cloud.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=old[role], ShouldDecrementDesiredCapacity=False
        )
    (following,) = until("a new webui host", lambda: others(deployment, "webui", old["webui"]))
    until("it prepares", lambda: prepares(deployment, following))
    time.sleep(10)
    assert prepares(deployment, following)
    resumed = time.monotonic() - began
    deployment.run(old["webui"], "systemctl", "kill", "--signal=CONT", "openqa-agent.service")

    def replaced() -> dict[Role, str] | None:
        for role in ROLES:
            now = holder(deployment, before[role].volume)
            if now != holders[role][-1][0]:
                holders[role].append((now, time.monotonic() - began))
        found = {role: others(deployment, role, old[role], "InService") for role in ROLES}
        return {role: names[0] for role, names in found.items() if names} if all(found.values()) else None

    new = until("both are back", replaced, seconds=RECOVERY_SECONDS)
    until("the API answers", lambda: answers(deployment), seconds=RECOVERY_SECONDS)
    print(f"both back after {time.monotonic() - began:.0f} s; {holders}", flush=True)
    for role in ROLES:
        assert [name for name, _ in holders[role] if name] == [old[role], new[role]]
        asked = resumed if role == "webui" else 0
        assert asked < holders[role][1][1] < asked + RELEASE_SECONDS
        assert describe(deployment, new[role]) == before[role]
    assert there <= rows(deployment)


def test_random_faults_lost_no_job(deployment: Deployment, jobs: list[int]) -> None:
    assert jobs
    until("all jobs passed", lambda: all(settled(deployment, job) for job in jobs) or None)


def test_a_host_that_is_rebooted_waits_for_its_volume_and_checks_it(deployment: Deployment) -> None:
    (host,) = deployment.serving("database")
    before = describe(deployment, host)
    ec2 = deployment.cloud.client("ec2")
    device = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{before.volume.replace('-', '')}"
    deployment.run(host, "systemctl", "stop", "openqa-on-aws.target", "srv-data.mount")
    # As the kernel leaves it that met with an error.
    deployment.run(host, "debugfs", "-w", "-R", "set_super_value state 2", device)
    ec2.detach_volume(VolumeId=before.volume, InstanceId=host)
    until("the volume is free", lambda: not holder(deployment, before.volume) or None)
    deployment.run(host, "touch", "/run/before")
    ec2.reboot_instances(InstanceIds=[host])
    booted = "! test -e /run/before && systemctl is-active --quiet openqa-agent"

    def is_up() -> bool | None:
        if deployment.cloud.leader(host) is None:
            return None
        return deployment.run(host, "sh", "-c", booted, check=False).returncode == 0 or None

    until("the host is up without it", is_up)
    ec2.attach_volume(VolumeId=before.volume, InstanceId=host, Device="/dev/sdf")
    until("the API answers", lambda: answers(deployment), seconds=RECOVERY_SECONDS)
    assert describe(deployment, host) == before
    assert "Filesystem state:         clean" in deployment.run(host, "dumpe2fs", "-h", device).stdout
