"""Moving the database from its container to another server: a second real PostgreSQL that plays RDS."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.backup.bare_host import BareHost, wait_until
from tests.userdata import machine

pytestmark = pytest.mark.backup

HOME = "/srv/managed"
TARGET = "127.0.0.1:6432"
MOVE = f"move --to {TARGET} --ca {HOME}/tls/ca.crt"
# As RDS makes it: the role has the secret's password and owns its database, TLS is required.
SET_UP = f"""
mkdir -p {HOME}/data {HOME}/run
python -c "
from pathlib import Path
from userdata.host import certificates
tls = certificates.Certificates(Path('{HOME}/tls'))
certificates.ensure(tls, name='managed.test', address='127.0.0.1', user=603)"
chown -R 603:603 {HOME}/data {HOME}/tls
echo 'hostssl all all all scram-sha-256' >{HOME}/hba
echo 'local all postgres trust' >>{HOME}/hba
podman run --volume=/srv:/srv image initdb --pgdata={HOME}/data --username=postgres >/dev/null
podman run --detach --name=managed --volume=/srv:/srv image postgres -D {HOME}/data -c port=6432 \
  -c listen_addresses=127.0.0.1,127.0.0.2 -c ssl=on -c ssl_cert_file={HOME}/tls/server.crt \
  -c ssl_key_file={HOME}/tls/server.key -c hba_file={HOME}/hba -c fsync=off
"""


def asked(host: BareHost, text: str, database: str = "openqa") -> str:
    """What the other server answers its administrator."""
    return host.output(
        f"podman exec managed psql -h /run/postgresql -p 6432 -U postgres -d {database} -qAtX "
        f"-v ON_ERROR_STOP=1 -c {shlex.quote(text)}"
    )


def sets_up(host: BareHost, environment: str) -> str:
    """What the web UI's setup says with the other server; this machine has no openQA that could fill it."""
    psql = "podman exec managed psql -h /run/postgresql -p 6432 -U postgres -d openqa"
    done = host.run(
        f"""mkdir -p /run/bin && printf '#!/bin/sh\nexec {psql} "$@"\n' >/run/bin/psql &&
        chmod +x /run/bin/psql &&
        PATH=/run/bin:$PATH {environment} bash /opt/openqa-on-aws/userdata/roles/webui/bin/setup.sh"""
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def lets_in(host: BareHost) -> bool:
    """Whether openQA could log in to the database that is left."""
    return host.sql("select datconnlimit from pg_database where datname = 'openqa'") == "-1"


@pytest.fixture(scope="module", autouse=True)
def managed(host: BareHost) -> Iterator[None]:
    """The other server, and rows to move."""
    host.output(SET_UP)
    ready = "podman exec managed pg_isready -q -h /run/postgresql -p 6432"
    wait_until(lambda: host.run(ready).returncode == 0, seconds=30)
    asked(host, f"create role openqa login createdb password '{machine.PASSWORD}'", "postgres")
    asked(host, "create database openqa owner openqa", "postgres")
    host.sql(
        "set role openqa; create table jobs (id serial primary key, state text, about jsonb);"
        "create table job_modules (id bigserial primary key, job_id int not null references jobs);"
        "insert into jobs (state, about)"
        "  select 'done', '{\"title\": \"Größe\"}' from generate_series(1, 3000);"
        "insert into job_modules (job_id) select id from jobs"
    )
    yield
    host.run("podman stop managed")


def test_openqa_does_not_begin_anew_where_nothing_was_moved(host: BareHost) -> None:
    assert sets_up(host, "DATABASE_MOVED=1").startswith("the database at RDS is empty")
    # Where there was none before, the schema would be made.
    assert "schema" in sets_up(host, "")


def test_a_database_in_use_is_not_moved(host: BareHost) -> None:
    host.output(
        "podman exec openqa-database psql -h /run/postgresql -U postgres -d openqa -qAtX "
        "-c 'select pg_sleep(20)' >/dev/null 2>&1 & sleep 1"
    )
    refused = host.host(MOVE)
    assert refused.returncode == 1
    assert "1 sessions use the database: stop openQA on the web UI's host first" in refused.stderr
    host.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(20)' and "
        "pid <> pg_backend_pid()"
    )
    assert lets_in(host)


def test_what_a_killed_restore_left_stopped_is_started(host: BareHost) -> None:
    host.output(
        "systemctl stop openqa-database.service; mv /srv/data/postgres/17 /srv/data/postgres/17.replaced"
    )
    refused = host.host(f"move --to 127.0.0.2:6432 --ca {HOME}/tls/ca.crt")
    assert "certificate" in refused.stderr
    assert lets_in(host)


def test_a_stranger_gets_nothing(host: BareHost) -> None:
    """Neither a wrong CA nor a wrong name is talked to."""
    for arguments in (
        f"move --to {TARGET} --ca /srv/data/certificates/ca.crt",
        f"move --to 127.0.0.2:6432 --ca {HOME}/tls/ca.crt",
    ):
        refused = host.host(arguments)
        assert refused.returncode == 1
        assert "certificate" in refused.stderr
    assert lets_in(host)


@pytest.mark.parametrize("target", ["127.0.0.1:port", "a' b", ""])
def test_a_server_that_has_no_such_name_is_refused(host: BareHost, target: str) -> None:
    refused = host.host(f"move --to {shlex.quote(target)} --ca {HOME}/tls/ca.crt")
    assert refused.returncode == 1
    assert refused.stderr == f"openqa-on-aws: --to {target}: not a server; allowed: NAME or NAME:PORT\n"


@pytest.mark.parametrize(
    ("killed", "code", "restart"),
    [
        ("-9 $dump", 1, ""),
        ("-HUP $!", 129, ""),
        # It cannot let openQA in again: the server's next start does.
        ("-9 $!", 137, "systemctl stop openqa-database.service; systemctl start openqa-database.service"),
    ],
)
def test_a_copy_that_breaks_off_leaves_the_other_empty(
    host: BareHost, killed: str, code: int, restart: str
) -> None:
    host.sql(
        "create table bulk as select md5(i::text) || md5(random()::text) from generate_series(1, 2000000) i"
    )
    # However quick the machine is: once some of the 130 MB are on their way.
    failed = host.run(
        f"python -m tests.backup.command {MOVE} & until dump=$(pgrep -x pg_dump) && "
        "awk '/^wchar:/ { exit ($2 < 16000000) }' /proc/$dump/io; do kill -0 $! || break; done; "
        f"kill {killed}; wait $!"
    )
    assert failed.returncode == code
    assert ("not copied" in failed.stderr) == (code == 1)
    assert asked(host, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == "0"
    host.sql("drop table bulk")
    host.output(restart)
    assert lets_in(host)


def test_a_copy_that_lacks_rows_is_none(host: BareHost) -> None:
    asked(
        host,
        "create function lose() returns trigger language plpgsql as 'begin return null; end';"
        "create function spoil() returns event_trigger language plpgsql as $$ begin"
        "  if to_regclass('public.job_modules') is not null then execute 'create or replace trigger lose"
        "    before insert on public.job_modules for each row execute function public.lose()';"
        "  end if; end $$;"
        "create event trigger spoil on ddl_command_end when tag in ('CREATE TABLE') execute function spoil()",
    )
    refused = host.host(MOVE)
    asked(host, "drop event trigger spoil; drop owned by openqa; drop function spoil, lose")
    assert refused.returncode == 1
    assert "differs: public.job_modules: 0, public.job_modules: 3000\n" in refused.stderr
    assert lets_in(host)


def test_everything_is_there_and_openqa_stays_out_of_the_old_one(host: BareHost) -> None:
    shown = host.does(MOVE)
    assert f"{TARGET} has all of it" in shown
    assert machine.PASSWORD not in shown
    assert asked(host, "select count(*), max(id) from jobs") == "3000|3000"
    assert "schema" in sets_up(host, "DATABASE_MOVED=1")
    assert asked(host, "select distinct about ->> 'title' from jobs") == "Größe"
    assert asked(host, "select count(*) > 0 from pg_stats where tablename = 'jobs'") == "t"
    assert asked(host, "select tableowner from pg_tables where tablename = 'jobs'") == "openqa"
    # Sequences go on, and constraints hold.
    assert asked(host, "insert into jobs default values returning id") == "3001"
    assert "job_modules_job_id_fkey" in asked(host, "select conname from pg_constraint where contype = 'f'")
    # Neither a start nor who tries again lets it in.
    host.output("systemctl stop openqa-database.service; systemctl start openqa-database.service")
    again = host.host(MOVE)
    assert again.returncode == 1
    assert f"the database was already moved to {TARGET}" in again.stderr
    assert not lets_in(host)
    # The way back.
    host.sql("comment on database openqa is null")
    host.output("systemctl stop openqa-database.service; systemctl start openqa-database.service")
    assert lets_in(host)
    again = host.host(MOVE)
    assert again.returncode == 1
    assert "its database is not empty" in again.stderr
