"""Backups and restores of a real PostgreSQL over a real mount, with every fault that we can think of."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tests.backup.bare_host import BUCKET, BareHost, wait_until
from tests.userdata import machine
from userdata.host import interrupted

pytestmark = pytest.mark.backup

# How many rounds of random faults, and the seed of the first.
ROUNDS = int(os.environ.get("FAULTS", "1"))
SEED = int(os.environ.get("SEED", "1"))
BASES = "/srv/backups/postgres/*/base/*"
# AWS does not answer; it runs on the host's own loopback.
CUT = (
    "nft 'add table ip cut; add chain ip cut o {type filter hook output priority -5;};"
    " add rule ip cut o tcp dport 5000 drop'"
)
MEND = "nft delete table ip cut"
DAMAGE = """
import boto3
s3, key = boto3.client("s3"), {key!r}
body = s3.get_object(Bucket={bucket!r}, Key=key)["Body"].read()
print('"' + s3.put_object(Bucket={bucket!r}, Key=key, Body={how})["VersionId"] + '"')
"""
ARCHIVER = "'^python3 .*backup.archive archive'"
HOW = {"truncated": "body[:-100]", "tampered": "body[:-100] + bytes(100)"}


def complete(host: BareHost) -> list[str]:
    """The folders of the base backups that exist, the oldest first."""
    # Listings of the mount may be a second old.
    time.sleep(1.1)
    return host.run(f"ls -d {BASES}/manifest.json | xargs -rn1 dirname | xargs -rn1 basename").stdout.split()


def folder(host: BareHost, attempt: str) -> str:
    return host.output(f"ls -d /srv/backups/postgres/*/base/{attempt}")


def current(host: BareHost) -> str:
    return host.sql("select pg_walfile_name(pg_current_wal_lsn())")


def commit(host: BareHost) -> int:
    return int(host.sql("insert into probe default values returning id"))


def rows(host: BareHost) -> str:
    return host.sql("select count(*) || ' ' || coalesce(max(id), 0) from probe")


def works(host: BareHost) -> bool:
    return host.run("podman exec openqa-database pg_isready -q -h /run/postgresql").returncode == 0


def remount(host: BareHost) -> None:
    host.kill_mount()
    host.mount()


def kill_archiver(host: BareHost) -> None:
    """Kills the archiver at its work."""
    looked = f"for i in $(seq 2000); do pkill -9 --full {ARCHIVER} && exit 0; sleep 0.01; done; exit 1"
    with subprocess.Popen(host.command(looked)) as killer:
        host.sql("insert into probe default values; select pg_switch_wal()")
        # After one that was killed the next comes ten seconds later, at the next connection.
        wait_until(lambda: host.sql("select 1") and killer.poll() is not None, seconds=90)
    assert killer.returncode == 0


def kill_base_backup(host: BareHost, *, after: float) -> None:
    """Kills a base backup that copies since some seconds."""
    host.output(
        "python -m tests.backup.command backup & "
        f"until pgrep pg_basebackup; do kill -0 $! || exit; sleep 0.02; done; sleep {after}; kill -9 $!"
    )


def archive_all(host: BareHost) -> str:
    """Waits until all that is committed is archived; returns the last segment."""
    last = host.sql("insert into probe default values; select pg_walfile_name(pg_switch_wal())")
    wait_until(lambda: host.sql("select last_archived_wal from pg_stat_archiver") >= last, seconds=90)
    return last


def no_gap(host: BareHost, first: str, last: str) -> None:
    """Every segment from one to another has a manifest and an object that agree."""
    time.sleep(1.1)
    system = host.sql("select system_identifier from pg_control_system()")
    found = host.python(
        "import json\n"
        "from userdata.host.backup import names, store\n"
        f"here, last, bad = names.segment({first!r}), names.segment({last!r}), []\n"
        "while here <= last:\n"
        f"    found = store.find_wal({system!r}, here.name)\n"
        "    for wal in found:\n"
        f"        path = store.MOUNT / names.wal_folder({system!r}, here.name) / wal.object\n"
        "        b''.join(store.read(path, sha256=wal.sha256, size=wal.bytes, compressed=True))\n"
        "    bad += [] if found else [here.name]\n"
        "    here = names.next_segment(here, size=4 * 1024 * 1024)\n"
        "print(json.dumps(bad))"
    )
    assert found == []


@contextmanager
def mounted_read_only(host: BareHost, path: str) -> Iterator[None]:
    """Nothing below a path can be written."""
    host.output(f"mount --bind {path} {path} && mount --options remount,bind,ro {path}")
    try:
        yield
    finally:
        host.output(f"umount {path}")


def test_the_servers_log_quotes_no_secret(host: BareHost) -> None:
    """Nor if all statements are as slow as those that it logs."""
    host.sql("alter system set log_min_duration_statement = 0")
    host.sql("select pg_reload_conf()")
    try:
        wait_until(lambda: host.sql("show log_min_duration_statement") == "0", seconds=10)
        host.output("/opt/openqa-on-aws/userdata/roles/database/bin/reconcile.sh openqa openqa")
        bind = r"select length($1) as key \bind 'an-api-key' \g"
        query = "podman exec --interactive openqa-database psql -h /run/postgresql -U postgres -qAtX"
        assert host.output(f"{query} <<<{shlex.quote(bind)}") == "10"
        log = host.output("podman logs openqa-database")
        assert "select length($1) as key" in log
        assert "an-api-key" not in log
        assert "set log_min_error_statement = panic" in log
        assert machine.PASSWORD not in log
    finally:
        host.sql("alter system reset log_min_duration_statement")
        host.sql("select pg_reload_conf()")


def test_a_role_that_cannot_be_made_is_no_database_that_works(host: BareHost) -> None:
    """The unit starts anew until openQA could log in: psql alone would go on, and end well."""
    refused = host.run("/opt/openqa-on-aws/userdata/roles/database/bin/reconcile.sh pg_reserved openqa")
    assert refused.returncode != 0
    assert 'role name "pg_reserved" is reserved' in refused.stderr


@pytest.mark.parametrize("then", ["", "select pg_sleep(3600);"])
def test_a_web_ui_host_that_vanished_keeps_no_lock_from_the_next(host: BareHost, then: str) -> None:
    """Neither where it had nothing more to ask, nor where the answer is hours away."""
    psql = (
        f"exec podman exec --interactive --env=PGPASSWORD={machine.PASSWORD} openqa-database psql -qX "
        "'host=127.0.0.1 user=openqa dbname=openqa sslmode=require' >/dev/null"
    )
    locks = "select count(*) from pg_locks where locktype = 'advisory' and objid = 4711"
    with subprocess.Popen(host.command(psql), stdin=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        client.stdin.write(f"select pg_advisory_lock(4711); {then}\n")
        client.stdin.flush()
        try:
            wait_until(lambda: host.sql(locks) == "1", seconds=30)
            away = " ".join(f"add rule ip cut o tcp {port} 5432 drop;" for port in ("dport", "sport"))
            host.output(f"{CUT}; nft '{away}'")
            wait_until(lambda: host.sql(locks) == "0", seconds=90)
        finally:
            host.output(MEND)
            client.kill()


@contextmanager
def damaged(host: BareHost, path: str, how: str) -> Iterator[None]:
    """An object is replaced by a damaged one for a while."""
    key = "database" + path.removeprefix("/srv/backups")
    version = host.python(DAMAGE.format(key=key, bucket=BUCKET, how=HOW[how]))
    time.sleep(1.1)
    try:
        yield
    finally:
        # The bucket is versioned: an administrator takes the damage back.
        host.python(
            f"import boto3; boto3.client('s3').delete_object(Bucket={BUCKET!r}, Key={key!r}, "
            f"VersionId={version!r}); print('null')"
        )
        time.sleep(1.1)


@pytest.fixture(scope="module", autouse=True)
def openqa(host: BareHost) -> None:
    """Tables that look like openQA's, and one to write to."""
    host.sql(
        "create table jobs (id serial primary key, state text, reason text);"
        "create table job_modules (id serial primary key, job_id int not null references jobs);"
        "insert into jobs (state) select 'done' from generate_series(1, 5000);"
        "insert into job_modules (job_id) select id from jobs;"
        "create table probe (id serial primary key, at timestamptz default clock_timestamp())"
    )


def test_a_new_database_is_due_for_a_backup(host: BareHost) -> None:
    assert complete(host) == []
    assert "base backup" in host.does("backup --when-due")
    (only,) = complete(host)
    manifest = json.loads(host.output(f"cat {folder(host, only)}/manifest.json"))
    assert manifest["rows"] == {"jobs": 5000}
    assert manifest["newest_job"] == 5000
    assert "base backup" not in host.does("backup --when-due")
    assert complete(host) == [only]
    host.does("backup-figures")
    assert host.figures("BackupAgeSeconds")[-1] < 60
    assert host.figures("WalArchiveLagSeconds")


def test_a_killed_base_backup_is_none(host: BareHost) -> None:
    before = complete(host)
    host.sql(
        "create table bulk as select md5(i::text) || md5(random()::text) t from generate_series(1, 300000) i"
    )
    writer = "python -m tests.backup.command backup"
    host.run(
        f"{writer} & sleep 0.5; for i in $(seq 400); do pgrep pg_basebackup && break; sleep 0.02; done; "
        "sleep 0.2; kill -9 $!; wait $!"
    )
    time.sleep(1.1)
    # Its object looks complete, and counts for nothing.
    truncated = host.output(f"ls {BASES}/base.tar.gz | wc -l")
    assert int(truncated) == len(before) + 1
    assert complete(host) == before
    host.does("backup")
    assert len(complete(host)) == len(before) + 1
    host.sql("drop table bulk")


def test_a_slow_base_backup_finds_the_log_that_it_needs(host: BareHost) -> None:
    before = complete(host)
    host.sql(
        "create table bulk as select md5(i::text) || md5(random()::text) t from generate_series(1, 300000) i"
    )
    asked = "podman exec openqa-database psql -h /run/postgresql -U postgres -qAtX -c"
    copying = "select 1 from pg_stat_progress_basebackup where phase = 'streaming database files'"
    host.run(
        "(python -m tests.backup.command backup >/run/slow 2>&1; echo $? >>/run/slow) >/dev/null 2>&1 & "
        f"for i in $(seq 200); do {asked} {shlex.quote(copying)} | grep --quiet 1 && break; done; "
        "pkill -STOP pg_basebackup"
    )
    try:
        # More than the server keeps of what is nobody's.
        for _ in range(40):
            host.sql("insert into probe default values; select pg_switch_wal()")
        archive_all(host)
        host.sql("checkpoint")
        assert host.sql(copying) == "1"
    finally:
        # With what started it, which stopped as it did.
        host.run("pkill -CONT --full pg_basebackup")
    wait_until(lambda: host.run("tail -n 1 /run/slow").stdout.strip().isdigit(), seconds=60)
    assert host.output("tail -n 1 /run/slow") == "0", host.output("cat /run/slow")
    assert len(complete(host)) == len(before) + 1
    # And keeps no more of it than that.
    assert host.sql("select count(*) from pg_replication_slots") == "0"
    host.sql("drop table bulk")


def test_killed_archivers_leave_no_gap(host: BareHost) -> None:
    first = current(host)
    for _ in range(2):
        kill_archiver(host)
    no_gap(host, first, archive_all(host))


def test_a_segment_whose_writer_dies_in_the_middle_is_archived_again(host: BareHost) -> None:
    """The mount goes with the writer: what it had of the object is complete in the bucket."""
    first = current(host)
    host.sql("insert into probe select from generate_series(1, 20000)")
    host.output("pkill -STOP --full 'localcloud[.]mountpoint --prefix'")
    try:
        host.sql("select pg_switch_wal()")
        host.output(
            f"for i in $(seq 2000); do pgrep --full {ARCHIVER} && break; sleep 0.01; done; sleep 0.5; "
            f"pkill -9 --full {ARCHIVER}"
        )
    finally:
        host.output("pkill -CONT --full 'localcloud[.]mountpoint --prefix'")
    no_gap(host, first, archive_all(host))


def test_a_dead_mount_comes_back(host: BareHost) -> None:
    first = current(host)
    host.kill_mount()
    host.sql("insert into probe default values; select pg_switch_wal()")
    refused = host.host("backup")
    assert refused.returncode == 1
    assert "the backup bucket is not mounted" in refused.stderr
    time.sleep(2)
    # Nothing went into the bare folder.
    assert host.output("ls -A /srv/backups") == ""
    host.mount()
    no_gap(host, first, archive_all(host))


def test_a_bucket_out_of_reach_is_caught_up_with(host: BareHost) -> None:
    first = current(host)
    host.output(CUT)
    try:
        for _ in range(4):
            host.sql("insert into probe default values; select pg_switch_wal()")
        waiting = host.sql("select count(*) from pg_ls_archive_statusdir() where name like '%.ready'")
        assert int(waiting) >= 4
    finally:
        host.output(MEND)
    began = time.monotonic()
    last = archive_all(host)
    print(f"caught up after {time.monotonic() - began:.0f} s")
    no_gap(host, first, last)


def test_a_rehearsal_proves_the_newest_backup(host: BareHost) -> None:
    began = time.monotonic()
    assert "the newest backup can be restored" in host.does("rehearse")
    print(f"rehearsal: {time.monotonic() - began:.0f} s")
    assert host.figures("RestoreVerified")[-1] == 1
    assert works(host)


@pytest.mark.parametrize("how", HOW)
def test_a_rehearsal_of_a_damaged_backup_fails(host: BareHost, how: str) -> None:
    path = f"{folder(host, complete(host)[-1])}/base.tar.gz"
    with damaged(host, path, how):
        time.sleep(1)
        failed = host.host("rehearse")
        assert failed.returncode == 1
        assert path in failed.stderr
        assert host.figures("RestoreVerified")[-1] == 0


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_random_faults(host: BareHost, seed: int) -> None:
    chosen = random.Random(seed)
    faults: dict[str, Callable[[], Any]] = {
        "kill the archiver": lambda: kill_archiver(host),
        "kill the mount": lambda: remount(host),
        "cut the bucket off": lambda: host.output(f"{CUT}; sleep {chosen.uniform(0, 3)}; {MEND}"),
        "kill PostgreSQL": lambda: (
            host.output("podman kill --signal=KILL openqa-database && sleep 0.5"),
            host.output("systemctl start openqa-database.service"),
        ),
        "kill a base backup": lambda: kill_base_backup(host, after=chosen.uniform(0, 0.3)),
    }
    first, committed = current(host), []
    for _ in range(5):
        name = chosen.choice(sorted(faults))
        print(f"seed {seed}: {name}", flush=True)
        committed.append(commit(host))
        host.sql("select pg_switch_wal()")
        faults[name]()
        committed.append(commit(host))
    last = archive_all(host)
    no_gap(host, first, last)
    host.does("backup")
    assert "the newest backup can be restored" in host.does("rehearse")
    expected = rows(host)
    host.lose_everything_but_the_bucket()
    host.start()
    host.does("restore --to latest")
    assert rows(host) == expected
    assert int(host.sql(f"select count(*) from probe where id = any(array{committed})")) == len(committed)


def test_a_healthy_database_is_not_overwritten_without_a_word(host: BareHost) -> None:
    refused = host.host("restore --to latest")
    assert refused.returncode == 1
    assert "holds a healthy database with 5000 jobs: to replace it, pass --yes-overwrite" in refused.stderr
    assert works(host)


def test_restore_to_a_time_and_back(host: BareHost) -> None:
    before = host.sql("select timeline_id from pg_control_checkpoint()")
    commit(host)
    then = rows(host)
    time.sleep(0.3)
    moment = host.sql(
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00')"
    )
    datetime.fromisoformat(moment)
    time.sleep(0.3)
    host.sql("insert into probe select from generate_series(1, 7); delete from probe where id % 3 = 0")
    host.sql(
        "update jobs set state = 'uploading' where id = 5; update jobs set state = 'scheduled' where id = 6"
    )
    after = rows(host)
    host.does("backup")  # of a state that is left: a later restore must not begin with it
    began = time.monotonic()
    print(host.does(f"restore --to {moment} --yes-overwrite"))
    print(f"restore to a time: {time.monotonic() - began:.0f} s")
    assert rows(host) == then
    assert int(host.sql("select timeline_id from pg_control_checkpoint()")) > int(before)
    # The new timeline is backed up at once; its log from the beginning.
    assert "base backup" in host.does("backup --when-due")
    archive_all(host)
    expected = rows(host)
    host.does("restore --to latest --yes-overwrite")
    assert rows(host) == expected
    # A mistake: the operator wants what there was before the first restore.
    host.does(f"restore --to latest --timeline {before} --yes-overwrite")
    assert rows(host) == after
    # A job that ran then is told from the others before openQA sees it.
    assert host.sql("select id, reason from jobs where reason is not null") == f"5|{interrupted.REASON}"
    host.sql("update jobs set state = 'done', reason = null")


def test_the_time_that_is_asked_for_must_be_in_the_archive(host: BareHost) -> None:
    host.does("backup")
    expected = rows(host)
    for moment, reason in (
        ("2020-01-01T00:00:00Z", "no base backup leads there"),
        ("2099-01-01T00:00:00Z", "the archived write-ahead log ends before that time"),
        ("yesterday", "neither 'latest' nor a time with its zone"),
    ):
        refused = host.host(f"restore --to {moment} --yes-overwrite")
        assert refused.returncode == 1
        assert reason in refused.stderr
    assert rows(host) == expected


def test_a_damaged_segment_ends_a_restore_by_name_and_the_database_stays(host: BareHost) -> None:
    host.does("backup")
    commit(host)
    last = archive_all(host)
    time.sleep(1.1)
    path = host.output(f"ls /srv/backups/postgres/*/wal/*/{last}/*.gz | tail -1")
    expected = rows(host)
    for how in HOW:
        with damaged(host, path, how):
            refused = host.host("restore --to latest --yes-overwrite")
        assert refused.returncode == 1
        assert path in refused.stderr, refused
        assert rows(host) == expected


def test_a_damaged_base_is_passed_over_by_name(host: BareHost) -> None:
    host.does("backup")
    commit(host)
    archive_all(host)
    expected = rows(host)
    path = f"{folder(host, complete(host)[-1])}/base.tar.gz"
    with damaged(host, path, "tampered"):
        shown = host.does("restore --to latest --yes-overwrite")
    assert f"REFUSED: {path}" in shown
    assert rows(host) == expected


def test_a_restored_database_that_does_not_start_gives_way_to_the_old_one(host: BareHost) -> None:
    expected = rows(host)
    host.output("mv /srv/data/certificates/server.key /srv/data/certificates/kept")
    try:
        failed = host.host("restore --to latest --yes-overwrite")
    finally:
        host.output("mv /srv/data/certificates/kept /srv/data/certificates/server.key")
    assert failed.returncode == 1
    host.run("systemctl start openqa-database.service")
    assert rows(host) == expected
    assert host.output("ls /srv/data/postgres") == "17"
    assert "restore" not in host.output("ls /srv/data")


def test_a_restore_that_is_ended_half_way_gives_way_to_the_old_one(host: BareHost) -> None:
    """As by the end of the session in which it runs."""
    expected = rows(host)
    # Nobody can log in, so it waits with the restored one in place.
    host.output("mv /srv/data/certificates/ca.crt /srv/data/certificates/kept")
    try:
        ended = host.run(
            "python -m tests.backup.command restore --to latest --yes-overwrite & "
            "until pgrep --full 'bin/login[.]sh'; do kill -0 $! || break; sleep 0.1; done; "
            "kill -HUP $!; wait $!"
        )
    finally:
        host.output("mv /srv/data/certificates/kept /srv/data/certificates/ca.crt")
    assert ended.returncode == 129
    assert host.output("ls /srv/data/postgres; ls /srv/data | grep restore || true") == "17"
    assert rows(host) == expected


# Where a restore was killed: the old database is out of the way, the restored one not in its place.
BETWEEN = "systemctl stop openqa-database.service; cd /srv/data/postgres; mv 17 17.replaced"


def test_a_database_comes_back_whose_restore_was_killed_between_the_two(host: BareHost) -> None:
    expected = rows(host)
    host.output(BETWEEN)
    host.start()
    assert rows(host) == expected
    host.output(BETWEEN)
    refused = host.host("restore --to latest")
    assert "an earlier restore was killed; putting back the database from before it" in refused.stdout
    assert "holds a healthy database with 5000 jobs" in refused.stderr
    assert rows(host) == expected
    assert host.output("ls /srv/data/postgres") == "17"


def test_what_a_restore_replaced_that_was_killed_thereafter_is_kept_by_the_next(host: BareHost) -> None:
    expected = rows(host)
    # Nobody can log in, so it waits with the restored one in place.
    host.output("mv /srv/data/certificates/ca.crt /srv/data/certificates/kept")
    try:
        host.run(
            "python -m tests.backup.command restore --to latest --yes-overwrite & "
            "until pgrep --full 'bin/login[.]sh'; do kill -0 $! || break; sleep 0.1; done; "
            "kill -KILL $!; wait $!"
        )
    finally:
        host.output("mv /srv/data/certificates/kept /srv/data/certificates/ca.crt")
    assert host.output("ls /srv/data/postgres").split() == ["17", "17.replaced"]
    assert rows(host) == expected
    shown = host.does("restore --to latest --yes-overwrite")
    kept = host.output("ls -d /srv/data/postgres/17.before-*")
    assert f"an earlier restore was killed; the database before it is kept in {kept}" in shown
    host.output(f"rm -r {kept}")
    assert rows(host) == expected
    assert host.output("ls /srv/data/postgres; ls /srv/data | grep restore || true") == "17"


def test_what_was_not_archived_during_a_restore_is_kept(host: BareHost) -> None:
    """openQA goes on writing until the restored database is ready."""
    host.does("backup")
    archive_all(host)
    unarchived = "alter system set archive_command = 'false'; select pg_reload_conf();"
    unarchived += "insert into probe default values"
    asked = "podman exec openqa-database psql -h /run/postgresql -U postgres -d openqa -qAtX"
    with subprocess.Popen(
        host.command(
            "for i in $(seq 600); do ls -d /srv/data/restore && break; sleep 0.05; done; "
            f"{asked} <<<{shlex.quote(unarchived)}"
        )
    ) as writer:
        shown = host.does("restore --to latest --yes-overwrite")
    assert writer.returncode == 0
    kept = host.output("ls -d /srv/data/postgres/17.before-*")
    assert f"the old database is kept in {kept}" in shown
    host.output(f"rm -r {kept}")


def test_a_restore_follows_the_database_that_came_back_not_the_one_that_gave_way(host: BareHost) -> None:
    secret = "/run/openqa-on-aws/secrets/database"
    host.does("backup")
    before = host.sql("select timeline_id from pg_control_checkpoint()")
    # The restored one archives its timeline before anybody could log in to it.
    host.output(f"mv {secret} {secret}.kept")
    try:
        failed = host.host("restore --to latest --yes-overwrite")
    finally:
        host.output(f"mv {secret}.kept {secret}")
    assert failed.returncode == 1
    host.output("systemctl stop openqa-database.service; systemctl start openqa-database.service")
    assert host.sql("select timeline_id from pg_control_checkpoint()") == before
    assert f"{int(before) + 1:08X}.history" in host.output("ls /srv/backups/postgres/*/wal/history")
    row = commit(host)
    archive_all(host)
    host.lose_everything_but_the_bucket()
    host.start()
    host.does("restore --to latest")
    assert host.sql(f"select count(*) from probe where id = {row}") == "1"


CERTIFICATES = "/srv/data/certificates"
# A certificate for the same name and address that ends in ten days.
ENDING = f"""
cd {CERTIFICATES}
openssl x509 -noout -ext subjectAltName -in server.crt | tail -n 1 |
  sed 's/^ */subjectAltName = /; s/IP Address/IP/' >/run/extensions
openssl req -new -key server.key -subj /CN=database |
  openssl x509 -req -days 10 -CA ca.crt -CAkey ca.key -extfile /run/extensions >/run/ending
cat /run/ending >server.crt
rm /run/extensions /run/ending
podman kill --signal=HUP openqa-database
"""
SHOWN = "openssl s_client -starttls postgres -connect localhost:5432 </dev/null 2>&1 | openssl x509 -checkend"


def test_a_certificate_is_renewed_under_the_running_database_and_told(host: BareHost) -> None:
    started = host.sql("select pg_postmaster_start_time()")
    host.output(ENDING)
    wait_until(lambda: host.run(f"{SHOWN} {11 * 86400}").returncode != 0, seconds=10)
    with mounted_read_only(host, CERTIFICATES):
        assert host.host("certificate").returncode == 1
    assert 9 < host.figures("DatabaseCertificateDays")[-1] <= 10
    time.sleep(1)  # a figure of its own
    host.does("certificate")
    wait_until(lambda: host.run(f"{SHOWN} {300 * 86400}").returncode == 0, seconds=10)
    assert host.figures("DatabaseCertificateDays")[-1] > 300
    assert host.sql("select pg_postmaster_start_time()") == started


def test_everything_but_the_bucket_is_lost(host: BareHost) -> None:
    host.does("backup")
    committed: list[tuple[int, float]] = []
    end = time.monotonic() + 45
    while time.monotonic() < end:
        committed.append((commit(host), time.time()))
        time.sleep(0.2)
    host.lose_everything_but_the_bucket()
    lost = time.time()
    host.start()
    # No new database: the host waits, and says for what, also after a restore that failed.
    assert not works(host)
    host.output("mv /srv/data/certificates/server.key /srv/data/certificates/kept")
    failed = host.host("restore --to latest")
    host.output("mv /srv/data/certificates/kept /srv/data/certificates/server.key")
    assert failed.returncode == 1
    assert "restore --to latest" in host.output("cat /run/openqa-on-aws/awaits-restore")
    began = time.monotonic()
    print(host.does("restore --to latest"))
    kept = int(host.sql("select max(id) from probe"))
    missing = [at for row, at in committed if row > kept]
    seconds = lost - min(missing) if missing else 0.0
    print(
        f"restored after {time.monotonic() - began:.0f} s; {len(missing)} of {len(committed)} commits are "
        f"missing, those of the last {seconds:.0f} s"
    )
    assert seconds <= 60
    ids = [row for row, _ in committed if row <= kept]
    assert int(host.sql(f"select count(*) from probe where id = any(array{ids})")) == len(ids)
    assert works(host)


# As `aws s3 sync` does, and with another environment's password.
COPY = f"""
import boto3
s3 = boto3.client("s3", region_name={machine.REGION!r})
s3.create_bucket(Bucket="fresh")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket={BUCKET!r}, Prefix="database/"):
    for key in (found["Key"] for found in page["Contents"]):
        s3.copy_object(Bucket="fresh", Key=key, CopySource={{"Bucket": {BUCKET!r}, "Key": key}})
boto3.client("secretsmanager", region_name={machine.REGION!r}).put_secret_value(
    SecretId="openqa/test/database", SecretString="another0password")
print("null")
"""
LOG_IN = "PGPASSWORD={} PGSSLMODE=require psql -h 127.0.0.1 -U openqa -d openqa -qAtXc 'select 1'"


def test_a_copy_of_the_bucket_restores_a_fresh_environment(host: BareHost) -> None:
    host.does("backup")
    row = commit(host)
    archive_all(host)
    host.lose_everything_but_the_bucket()
    host.kill_mount()
    host.python(COPY)
    host.output(f'sed -i \'s/"bucket": "{BUCKET}"/"bucket": "fresh"/\' /run/host.json')
    host.mount("fresh")
    host.start()
    assert not works(host)
    host.does("restore --to latest")
    assert host.sql(f"select count(*) from probe where id = {row}") == "1"
    assert host.output(f"podman exec openqa-database env {LOG_IN.format('another0password')}") == "1"
    assert host.run(f"podman exec openqa-database env {LOG_IN.format(machine.PASSWORD)}").returncode
    # Its own backups go on there.
    assert "base backup" in host.does("backup --when-due")
    archive_all(host)


def test_an_empty_database_needs_a_word(host: BareHost) -> None:
    host.lose_everything_but_the_bucket()
    host.start()
    assert not works(host)
    host.does("initialise")
    assert works(host)
    # Its log and its backups never meet the old cluster's.
    assert "base backup" in host.does("backup --when-due")
    assert int(host.output("ls /srv/backups/postgres | wc -l")) == 2
