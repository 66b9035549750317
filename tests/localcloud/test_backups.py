"""Lost hosts, backups and restores: one whole deployment whose database is broken in every way there is."""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localcloud import cloud
from localcloud.cloud import RunningCloud
from ops import deployment
from ops.deployment import OpenQa
from tests.localcloud.lab import wait_until
from tests.prerequisites import require_machine

ROOT = Path(__file__).parents[2]
NAME = "test-backups"
DATABASE, WEBUI = "openqa-local-database", "openqa-local-webui"
PREFIX = "database/postgres/"
HOST = "PYTHONPATH=/opt/openqa-on-aws python3 -m userdata.host"
# How many rounds of random faults, and where they begin.
ROUNDS = int(os.environ.get("FAULTS", "1"))
SEED = int(os.environ.get("SEED", "1"))
# An S3 that does not answer: the local cloud's AWS is at the VPC's router.
CUT = (
    "nft 'add table ip cut; add chain ip cut o {type filter hook output priority -5;};"
    " add rule ip cut o tcp dport 443 drop'"
)
MEND = "nft delete table ip cut"


@dataclass(frozen=True)
class Deployment:
    """The deployment and what the tests do with it."""

    cloud: RunningCloud

    def aws(self, service: str) -> Any:
        return self.cloud.client(service)

    def instance(self, group: str) -> str | None:
        """The instance in service of a group of one."""
        groups = self.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        found = [
            str(instance["InstanceId"])
            for instance in groups["AutoScalingGroups"][0]["Instances"]
            if instance["LifecycleState"] == "InService"
        ]
        return found[0] if found else None

    def run(
        self, script: str, *, group: str = DATABASE, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs a shell script on the host of a group, as root."""
        instance = self.instance(group)
        leader = self.cloud.leader(instance) if instance else None
        if leader is None:
            return subprocess.CompletedProcess(script, 255, "", "there is no host")
        return subprocess.run(
            ["nsenter", f"--target={leader}", "--all", "--wd=/", "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def output(self, script: str, *, group: str = DATABASE, seconds: float = 300) -> str:
        """What a shell script prints; it must succeed."""
        done = self.run(script, group=group, seconds=seconds)
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout.strip()

    def sql(self, text: str) -> str:
        """What SQL prints in openQA's database."""
        return self.output(
            "podman exec openqa-database psql -h /run/postgresql -U postgres -d openqa -qAtX "
            f"-v ON_ERROR_STOP=1 -c {shlex.quote(text)}"
        )

    def works(self) -> bool:
        return self.run("podman exec openqa-database pg_isready -q -h /run/postgresql").returncode == 0

    @property
    def bucket(self) -> str:
        stack = self.aws("cloudformation").describe_stacks(StackName="openqa-local-storage")["Stacks"][0]
        return next(str(o["OutputValue"]) for o in stack["Outputs"] if o["OutputKey"] == "BackupBucket")

    def keys(self, part: str = "") -> list[str]:
        """The keys in the bucket that contain something."""
        pages = self.aws("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=PREFIX)
        return [entry["Key"] for page in pages for entry in page.get("Contents", []) if part in entry["Key"]]

    def manifests(self) -> list[str]:
        """The keys of the manifests of complete base backups, the oldest first."""
        return sorted(key for key in self.keys("/base/") if key.endswith("/manifest.json"))

    def read(self, key: str) -> bytes:
        body: bytes = self.aws("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def segments(self) -> dict[str, Mapping[str, Any]]:
        """The manifests of archived segments by name, of the cluster that runs."""
        system = self.sql("select system_identifier from pg_control_system()")
        found = [key for key in self.keys(f"/{system}/wal/") if key.endswith(".json")]
        named = [(key.split("/")[-2], key) for key in found if len(key.split("/")[-2]) == 24]
        return {name: json.loads(self.read(key)) for name, key in sorted(named)}

    def archive_all(self) -> None:
        """Waits until all that is committed is in the bucket."""
        self.sql("select pg_switch_wal()")
        current = self.sql("select pg_walfile_name(pg_current_wal_lsn())")
        wait_until(
            lambda: self.sql("select last_archived_wal from pg_stat_archiver") >= previous(current),
            seconds=90,
        )

    def figure(self, name: str, *, since: datetime) -> list[float]:
        """What was published of a metric."""
        answer = self.aws("cloudwatch").get_metric_statistics(
            Namespace="openQA/local",
            MetricName=name,
            StartTime=since,
            EndTime=datetime.now(UTC) + timedelta(minutes=1),
            Period=1,
            Statistics=["Minimum"],
        )
        return [point["Minimum"] for point in sorted(answer["Datapoints"], key=lambda p: p["Timestamp"])]


def previous(segment: str) -> str:
    """The segment before one of 4 MiB."""
    index = int(segment[8:16], 16) * 1024 + int(segment[16:], 16) - 1
    return f"{segment[:8]}{index // 1024:08X}{index % 1024:08X}"


@contextmanager
def writing(deployed: Deployment) -> Iterator[list[tuple[int, float]]]:
    """Commits a row every half second; gives the rows that were acknowledged, and when."""
    rows: list[tuple[int, float]] = []
    end = threading.Event()

    def write() -> None:
        while not end.wait(0.4):
            try:
                got = deployed.sql("insert into probe default values returning id")
            except (AssertionError, subprocess.TimeoutExpired):
                continue
            rows.append((int(got), time.time()))

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            yield rows
        finally:
            end.set()
            writer.result()


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployment]:
    require_machine()
    program = [sys.executable, "-m", "localcloud"]
    try:
        options = [f"--name={NAME}", "--api-port=0", "--web-port=0", "--no-smoke"]
        subprocess.run([*program, "deploy", "local", *options], cwd=ROOT, check=True)
        running = cloud.find(NAME)
        assert running is not None
        made = Deployment(running)
        made.sql("create table probe (id serial primary key, at timestamptz default clock_timestamp())")
        yield made
    finally:
        subprocess.run([*program, "down", f"--name={NAME}"], cwd=ROOT, check=True)


@pytest.fixture
def openqa(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> OpenQa:
    for name, value in deployed.cloud.environment().items():
        monkeypatch.setenv(name, value)
    return deployment.connect(environment="local", region=cloud.REGION, url=deployed.cloud.url)


def told(what: str, began: float) -> None:
    """Prints how long something took."""
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def terminate(deployed: Deployment, group: str) -> None:
    """Loses the host of a group at once: no drain, no good-bye."""
    deployed.aws("ec2").terminate_instances(InstanceIds=[deployed.instance(group)])


# -- backups


@pytest.mark.backup
def test_a_new_database_is_backed_up_at_once(deployed: Deployment) -> None:
    (key,) = wait_until(deployed.manifests, seconds=150)
    manifest = json.loads(deployed.read(key))
    assert manifest["bytes"] == len(deployed.read(key.replace("manifest.json", "base.tar.gz")))
    assert manifest["system"] == deployed.sql("select system_identifier from pg_control_system()")
    deployed.archive_all()
    assert deployed.segments()
    wait_until(lambda: deployed.figure("BackupAgeSeconds", since=datetime.now(UTC) - timedelta(hours=1)))


@pytest.mark.backup
def test_a_killed_base_backup_is_none(deployed: Deployment) -> None:
    before = deployed.manifests()
    # Takes long enough to be killed in the middle.
    deployed.sql("create table bulk as select md5(random()::text || i) t from generate_series(1, 400000) i")
    killed = deployed.run(
        f"{HOST} backup & for i in $(seq 600); do pgrep pg_basebackup && break; sleep 0.05; done; "
        "sleep 0.3; kill -9 $!; wait $!"
    )
    assert killed.returncode == 137, killed
    assert deployed.manifests() == before
    assert "base backup" in deployed.output(f"{HOST} backup")
    after = deployed.manifests()
    assert len(after) == len(before) + 1
    deployed.sql("drop table bulk")


@pytest.mark.backup
def test_killed_archivers_leave_no_gap(deployed: Deployment) -> None:
    first = deployed.sql("select pg_walfile_name(pg_current_wal_lsn())")
    deployed.run(
        "for i in $(seq 6); do podman exec openqa-database psql -h /run/postgresql -U postgres -d openqa"
        " -qAtX -c 'insert into probe default values; select pg_switch_wal()';"
        " for j in $(seq 40); do pid=$(pgrep --full '^python3.*backup.archive archive') && break;"
        " sleep 0.02; done; [[ -z $pid ]] || { sleep 0.1; kill -9 $pid; }; done"
    )
    deployed.archive_all()
    no_gap(deployed, first)


def no_gap(deployed: Deployment, first: str) -> None:
    """Every segment from one on is archived, up to the newest."""
    names = [name for name in deployed.segments() if name >= first]
    assert names
    for before, after in itertools.pairwise(names):
        assert previous(after) == before or after[:8] > before[:8], (before, after)
    assert names[0] == first


@pytest.mark.backup
def test_a_dead_mount_comes_back(deployed: Deployment) -> None:
    first = deployed.sql("select pg_walfile_name(pg_current_wal_lsn())")
    deployed.output("systemctl kill --signal=KILL openqa-backup-mount.service")
    deployed.sql("insert into probe default values; select pg_switch_wal()")
    wait_until(lambda: deployed.run("ls /srv/backups/postgres").returncode == 0, seconds=60)
    deployed.archive_all()
    no_gap(deployed, first)


@pytest.mark.backup
def test_a_bucket_out_of_reach_is_caught_up_with(deployed: Deployment) -> None:
    first = deployed.sql("select pg_walfile_name(pg_current_wal_lsn())")
    deployed.output(CUT)
    try:
        for _ in range(4):
            deployed.sql("insert into probe default values; select pg_switch_wal()")
        waiting = "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'"
        assert int(deployed.sql(waiting)) >= 3
    finally:
        deployed.output(MEND)
    began = time.monotonic()
    deployed.archive_all()
    told("caught up with the bucket", began)
    no_gap(deployed, first)


@pytest.mark.backup
@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_random_faults(deployed: Deployment, seed: int) -> None:
    chosen = random.Random(seed)
    faults: dict[str, Callable[[], Any]] = {
        "kill the archiver": lambda: deployed.run("pkill -9 --full 'backup.archive archive'"),
        "kill the mount": lambda: deployed.run("systemctl kill --signal=KILL openqa-backup-mount.service"),
        "cut the bucket off": lambda: deployed.output(f"{CUT}; sleep 2; {MEND}"),
        "kill PostgreSQL": lambda: deployed.run("podman kill --signal=KILL openqa-database"),
        "kill a base backup": lambda: deployed.run(
            f"timeout --signal=KILL {chosen.uniform(0.5, 3):.1f} env {HOST} backup"
        ),
    }
    first = deployed.sql("select pg_walfile_name(pg_current_wal_lsn())")
    with writing(deployed) as rows:
        for _ in range(4):
            name = chosen.choice(sorted(faults))
            print(f"seed {seed}: {name}", flush=True)
            faults[name]()
            time.sleep(chosen.uniform(0, 2))
            wait_until(deployed.works, seconds=90)
            deployed.sql("select pg_switch_wal()")
    deployed.archive_all()
    no_gap(deployed, first)
    held = int(deployed.sql(f"select count(*) from probe where id in ({', '.join(str(i) for i, _ in rows)})"))
    assert held == len(rows)
    before = deployed.manifests()
    deployed.output(f"{HOST} backup")
    assert len(deployed.manifests()) == len(before) + 1


# -- restores


@pytest.mark.restore
def test_a_rehearsal_says_that_the_backup_is_good(deployed: Deployment) -> None:
    since, began = datetime.now(UTC), time.monotonic()
    deployed.output("systemctl start rehearsal.service", seconds=600)
    told("rehearsal", began)
    assert deployed.figure("RestoreVerified", since=since - timedelta(seconds=1)) == [1.0]


@pytest.mark.restore
@pytest.mark.parametrize("how", ["truncated", "tampered"])
def test_a_rehearsal_of_a_damaged_backup_fails(deployed: Deployment, how: str) -> None:
    key = deployed.manifests()[-1].replace("manifest.json", "base.tar.gz")
    with damaged(deployed, key, how):
        since = datetime.now(UTC)
        failed = deployed.run("systemctl start rehearsal.service", seconds=600)
        assert failed.returncode != 0
        said = deployed.output("journalctl --no-pager --output=cat --unit=rehearsal.service --lines=5")
        assert key.removeprefix("database/") in said
        assert deployed.figure("RestoreVerified", since=since - timedelta(seconds=1)) == [0.0]


@contextmanager
def damaged(deployed: Deployment, key: str, how: str) -> Iterator[None]:
    """Replaces an object by a damaged one for a while."""
    content = deployed.read(key)
    other = content[:-100] if how == "truncated" else content[:-100] + bytes(100)
    answer = deployed.aws("s3").put_object(Bucket=deployed.bucket, Key=key, Body=other)
    try:
        yield
    finally:
        # The bucket is versioned: the administrator takes the damage back.
        deployed.aws("s3").delete_object(Bucket=deployed.bucket, Key=key, VersionId=answer["VersionId"])


@pytest.mark.restore
def test_a_healthy_database_is_not_overwritten_without_a_word(deployed: Deployment) -> None:
    deployed.sql("insert into jobs (test, result_dir) select 'kept', '' where not exists (select from jobs)")
    refused = deployed.run(f"{HOST} restore --to latest")
    assert refused.returncode == 1
    assert "holds a healthy database with" in refused.stderr
    assert "--yes-overwrite" in refused.stderr


@pytest.mark.restore
def test_restore_to_a_time_gives_the_rows_of_then(deployed: Deployment) -> None:
    deployed.sql("insert into probe default values")
    then = deployed.sql("select count(*) || '|' || max(id) from probe")
    time.sleep(0.5)
    moment = deployed.sql(
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ')"
    )
    time.sleep(0.5)
    deployed.sql("insert into probe select from generate_series(1, 7); delete from probe where id % 3 = 0")
    began = time.monotonic()
    print(deployed.output(f"{HOST} restore --to {moment} --yes-overwrite", seconds=900))
    told("restore to a time", began)
    assert deployed.sql("select count(*) || '|' || max(id) from probe") == then
    assert deployed.sql("select timeline_id from pg_control_checkpoint()") == "2"
    # The web UI goes on with it, and the new timeline is backed up at once.
    before = deployed.manifests()
    wait_until(lambda: len(deployed.manifests()) > len(before), seconds=200)


@pytest.mark.restore
def test_a_damaged_segment_stops_a_restore_and_the_database_stays(deployed: Deployment) -> None:
    deployed.sql("insert into probe default values")
    deployed.archive_all()
    newest = sorted(deployed.segments())[-1]
    key = next(key for key in deployed.keys(f"/{newest}/") if key.endswith(".gz"))
    rows = deployed.sql("select count(*) from probe")
    with damaged(deployed, key, "tampered"):
        refused = deployed.run(f"{HOST} restore --to latest --yes-overwrite", seconds=600)
    assert refused.returncode == 1
    assert key.removeprefix("database/") in refused.stderr
    assert deployed.sql("select count(*) from probe") == rows


@pytest.mark.restore
def test_everything_but_the_bucket_is_lost(deployed: Deployment) -> None:
    with writing(deployed) as rows:
        time.sleep(45)
        lost = deployed.instance(DATABASE)
        deployed.run(
            "podman kill --signal=KILL openqa-database; "
            "device=$(findmnt --noheadings --output SOURCE /srv/data); "
            "systemctl stop openqa-on-aws.target openqa-database.service; umount --lazy /srv/data; "
            "dd if=/dev/zero of=$device bs=1M count=64 conv=fsync"
        )
        destroyed = time.time()
    began = time.monotonic()
    terminate(deployed, DATABASE)
    wait_until(lambda: deployed.instance(DATABASE) not in (None, lost), seconds=300)
    told("a new host with an empty volume", began)
    # It does not make a new database: it waits, and says so.
    assert not deployed.works()
    awaits = deployed.output("cat /run/openqa-on-aws/awaits-restore")
    assert "python3 -m userdata.host restore --to latest" in awaits
    began = time.monotonic()
    print(deployed.output(f"{HOST} restore --to latest", seconds=900))
    told("restore to latest", began)
    kept = int(deployed.sql("select coalesce(max(id), 0) from probe"))
    missing = [at for row, at in rows if row > kept]
    seconds = destroyed - min(missing) if missing else 0.0
    print(f"commits missing: {len(missing)} of {len(rows)}, of the last {seconds:.0f} s", flush=True)
    assert seconds <= 60
    held = int(deployed.sql(f"select count(*) from probe where id in ({', '.join(str(i) for i, _ in rows)})"))
    assert held == len(rows) - len(missing)


# -- lost hosts


@pytest.mark.heal
def test_a_lost_database_host_loses_no_job_and_no_row(deployed: Deployment, openqa: OpenQa) -> None:
    job = schedule(openqa)
    wait_until(lambda: state(openqa, job) == "running", seconds=300)
    lost, rows = (
        deployed.instance(DATABASE),
        int(deployed.sql("insert into probe default values returning id")),
    )
    began = time.monotonic()
    terminate(deployed, DATABASE)
    wait_until(lambda: deployed.instance(DATABASE) not in (None, lost) and deployed.works(), seconds=600)
    told("database host lost and back", began)
    assert int(deployed.sql("select max(id) from probe")) >= rows
    finishes(openqa, job)


@pytest.mark.heal
def test_a_lost_web_ui_host_loses_no_job(deployed: Deployment, openqa: OpenQa) -> None:
    job = schedule(openqa)
    wait_until(lambda: state(openqa, job) == "running", seconds=300)
    lost = deployed.instance(WEBUI)
    began = time.monotonic()
    terminate(deployed, WEBUI)
    wait_until(lambda: deployed.instance(WEBUI) not in (None, lost), seconds=600)
    wait_until(lambda: state(openqa, job) is not None, seconds=300)
    told("web UI host lost and back", began)
    finishes(openqa, job)


def schedule(openqa: OpenQa) -> int:
    settings = json.loads((ROOT / "userdata/content/sample/job.json").read_text())
    return int(openqa.request("POST", "jobs", data=settings)["id"])


def state(openqa: OpenQa, job: int) -> str | None:
    """The state of a job; None while openQA does not answer."""
    try:
        return str(openqa.request("GET", f"jobs/{job}")["job"]["state"])
    except deployment.DeploymentError:
        return None


def finishes(openqa: OpenQa, job: int) -> None:
    """The job, or what openQA itself made of it, passes."""
    end = time.monotonic() + 900
    while True:
        try:
            found = openqa.request("GET", f"jobs/{job}", params={"follow": 1})["job"]
        except deployment.DeploymentError:
            found = {"state": "unknown"}
        if found["state"] == "done" and not found.get("clone_id"):
            assert found["result"] == "passed", found
            print(f"job {job} passed as {found['id']}", flush=True)
            return
        assert time.monotonic() < end, found
        time.sleep(2)
