"""Everything but the backup bucket is lost, and what an operator's ``ops restore`` brings back."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import settings
from ops import deployment
from ops.deployment import DeploymentError
from tests.localcloud.deployed import Deployment, deployed, until

pytestmark = pytest.mark.restore

# At most so much of what was committed may be missing, in seconds.
LOSS = 60
ARCHIVE_TIMEOUT = 30
# No good-bye: neither the last write-ahead log is archived nor anything written. The volume is empty then.
LOSE = """
device=$(findmnt --noheadings --output SOURCE /srv/data)
podman kill --all --signal=KILL >/dev/null
# Irreversibly: services that start again want the volume back.
systemctl stop --job-mode=replace-irreversibly openqa-on-aws.target srv-data.mount
! findmnt /srv/data && blkdiscard --force "$device"
"""
ROWS = re.compile(r"^(\d+)\|([\d.]+)$", re.MULTILINE)
# Uploaded by hand: what no job makes again.
ASSET = "/srv/data/openqa/share/factory/hdd/fixed/golden.img"
FOREIGN_KEY = "FEDCBA9876543210"


@dataclass(frozen=True)
class Story:
    """The deployment, and what its operator does."""

    deployed: Deployment

    def sql(self, text: str) -> str:
        """What SQL prints in openQA's database."""
        (instance,) = self.deployed.serving("database")
        words = "psql -h /run/postgresql -U postgres -d openqa -qAtX -v ON_ERROR_STOP=1"
        command = ["podman", "exec", "--interactive", "openqa-database", *words.split()]
        return self.deployed.run(instance, *command, stdin=text).stdout.strip()

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Commits a row every half second while there is a database; gives the file of those acknowledged."""
        (instance,) = self.deployed.serving("database")
        leader = self.deployed.cloud.leader(instance)
        script = "insert into probe default values returning id, extract(epoch from at) \\watch 0.5\n"
        words = (
            "podman exec --interactive openqa-database psql -h /run/postgresql -U postgres -d openqa -qAtX"
        )
        with (
            tempfile.NamedTemporaryFile() as file,
            subprocess.Popen(
                ["nsenter", f"--target={leader}", "--all", "--wd=/", *words.split()],
                stdin=subprocess.PIPE,
                stdout=file,
            ) as writer,
        ):
            try:
                assert writer.stdin is not None
                writer.stdin.write(script.encode())
                writer.stdin.flush()
                yield Path(file.name)
            finally:
                writer.kill()


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with deployed("restore") as made:
        yield Story(made)


def test_everything_but_the_bucket_is_lost(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    made = story.deployed
    story.sql("create table probe (id serial primary key, at timestamptz default clock_timestamp())")
    old = {part: made.serving(part)[0] for part in ("database", "webui")}
    with story.writing() as file:
        (passed,) = made.schedule("before")
        made.passed([passed])
        story.sql(
            f"insert into api_keys (key, secret, user_id, t_created, t_updated) select '{FOREIGN_KEY}', "
            f"'{FOREIGN_KEY}', id, now(), now() from users where username = 'openQA on AWS / administrator'"
        )
        (interrupted,) = made.schedule("interrupted")
        # Not while its worker still fetches tests, which would end it by itself.
        (worker,) = made.serving("fleet-small")
        begun = ("pgrep", "--full", "^[^ ]*qemu-system")
        until("it runs", lambda: made.run(worker, *begun, check=False).returncode == 0 or None)
        # However quick the machine is, it must not end before all is lost.
        made.run(worker, "pkill", "--signal=STOP", *begun[1:])
        made.run(old["webui"], "sh", "-c", f"echo golden >{ASSET} && chown 601:601 {ASSET}")
        made.run(old["webui"], "systemctl", "start", "backup-assets.service")
        assert story.deployed.ops("backups", "now") == 0
        assert "base backup" in capsys.readouterr().out
        destroyed = time.time()
        for part, instance in old.items():
            print(part, made.run(instance, "bash", "-c", LOSE).stdout)
        # Its worker will tell that it passed as soon as openQA is back.
        made.run(worker, "pkill", "--signal=CONT", *begun[1:])
        committed = {int(row): float(at) for row, at in ROWS.findall(file.read_text())}
    # Today's password is another than the backup's.
    secret = f"openqa/{made.name}/database"
    made.cloud.client("secretsmanager").put_secret_value(SecretId=secret, SecretString="Today" * 6)
    made.cloud.client("ec2").terminate_instances(InstanceIds=list(old.values()))
    began = time.monotonic()
    host = until(
        "a new host", lambda: next(iter(set(made.instances("database", "InService")) - {*old.values()}), None)
    )
    with capsys.disabled():
        print(f"\na database host with an empty volume: {time.monotonic() - began:.0f} s")
    awaits = made.run(host, "cat", "/run/openqa-on-aws/awaits-restore").stdout
    assert f"python -m ops --env {made.name} restore --to latest" in awaits

    began = time.monotonic()
    assert story.deployed.ops("restore", "--to", "latest") == 0
    said = capsys.readouterr().out
    kept = {int(row) for row in story.sql("select id from probe").split()}
    missing = [at for row, at in committed.items() if row not in kept]
    seconds = destroyed - min(missing) if missing else 0.0
    with capsys.disabled():
        print(said)
        print(f"restored, openQA back: {time.monotonic() - began:.0f} s")
        print(f"{len(missing)} of {len(committed)} commits are missing, of the last {seconds:.0f} s")
    assert kept <= committed.keys() | {max(committed) + 1}
    assert seconds <= LOSS
    # Longer than PostgreSQL keeps a segment to itself, or it says little.
    assert max(committed.values()) - min(committed.values()) > ARCHIVE_TIMEOUT
    assert {"checking what was restored", "1 finished jobs have lost their results"} <= set(said.splitlines())

    lost = made.job(passed)
    assert (lost["result"], lost["reason"]) == ("incomplete", "restore: its results are lost (it was passed)")
    ended = made.job(interrupted)
    assert (ended["result"], ended["reason"]) == (
        "incomplete",
        "restore: the database was restored while this job ran",
    )
    assert ended["clone_id"]
    assert not story.sql(f"select from api_keys where key = '{FOREIGN_KEY}'")


def test_fixed_assets_come_back_by_themselves(story: Story) -> None:
    """On an empty volume the unit that keeps them restores them first."""
    (webui,) = story.deployed.serving("webui")
    story.deployed.run(webui, "systemctl", "start", "backup-assets.service")
    seen = story.deployed.run(webui, "stat", "--format=%u %a", ASSET).stdout.split()
    assert (story.deployed.run(webui, "cat", ASSET).stdout, seen) == ("golden\n", ["601", "644"])


def test_a_healthy_database_stays(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert story.deployed.ops("restore", "--to", "latest") == 1
    said = capsys.readouterr().err
    assert "holds a healthy database with" in said
    assert len(said.splitlines()) == 1


def test_the_rows_of_a_time(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    story.sql("insert into probe select from generate_series(1, 3)")
    then = story.sql("select count(*), max(id) from probe")
    time.sleep(0.2)
    moment = story.sql(
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    )
    time.sleep(0.2)
    story.sql("insert into probe select from generate_series(1, 7); delete from probe where id % 3 = 0")
    began = time.monotonic()
    assert story.deployed.ops("restore", "--to", moment, "--yes-overwrite") == 0
    with capsys.disabled():
        print(f"\nrestored to a time, openQA back: {time.monotonic() - began:.0f} s")
    assert story.sql("select count(*), max(id) from probe") == then


def test_an_interrupted_job_passes_in_the_end(story: Story) -> None:
    made = story.deployed
    ids = [job["id"] for job in made.openqa.request("GET", "jobs", params={"build": "interrupted"})["jobs"]]
    last = max(ids)
    made.passed([last])
    # Nothing is left to do.
    before = made.openqa.request("GET", "jobs")["jobs"]
    assert story.deployed.ops("reconcile") == 0
    after = made.openqa.request("GET", "jobs")["jobs"]
    assert [(job["id"], job["state"], job["result"]) for job in after] == [
        (job["id"], job["state"], job["result"]) for job in before
    ]


def test_generated_secrets_are_made_anew_while_the_deployment_works(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    made = story.deployed
    for name in ("database", "api-key"):
        assert made.ops("secrets", "renew", name) == 0
    with pytest.raises(DeploymentError, match="403"):
        made.schedule("the key of before")
    openqa = deployment.connect(settings.load(made.name, made.environments), url=made.cloud.url)
    renewed = replace(made, openqa=openqa)
    renewed.passed(renewed.schedule("renewed"))
    (worker_host,) = made.serving("fleet-small")
    capsys.readouterr()
    assert made.ops("secrets", "renew", "worker-key") == 1
    assert f"openQA would refuse {worker_host}" in capsys.readouterr().err


def test_all_is_well_in_the_end(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    made = story.deployed
    openqa = deployment.connect(settings.load(made.name, made.environments), url=made.cloud.url)
    until("an idle worker", lambda: "idle" in str(openqa.request("GET", "workers")) or None, seconds=120)
    capsys.readouterr()
    assert made.ops("status", f"--url={made.cloud.url}") == 0
    said = capsys.readouterr().out
    hosts = [made.serving(group)[0] for group in ("database", "webui", "fleet-small")]
    assert all(f"  {host}  " in said for host in hosts)
    assert "1 worker online, 0 busy" in said
