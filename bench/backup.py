"""Backup and restore compared with a plain copy through the same mount: ``python -m bench.backup``.

A real PostgreSQL with rows like openQA's, the project's own backup and restore, and ``cp``, in turns; the
bucket is moto's, mounted by the local cloud's stand-in for mount-s3. What is copied is the base backup
before compression. A restore is all of it: unpacking, verifying every file, replaying, checking, and
changing places with the database. Everything lies in memory, which helps the copies most. Needs root.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from fleet.simulate.options import whole
from tests.backup.bare_host import BareHost, image_archive, running, unpack, wait_until

GOAL = 1.5  # times the plain copy
PLAIN = "/srv/plain.tar"
# What fills openQA's tables: a module of a job, and its place in indexes.
ROWS = """
create table jobs (id serial primary key, state text);
create table job_modules (id bigserial primary key, job_id int not null references jobs, name text not null,
  script text not null, category text not null, result text not null, t_created timestamp not null);
insert into jobs (state) select 'done' from generate_series(1, 10000);
insert into job_modules (job_id, name, script, category, result, t_created)
  select 1 + i % 10000, 'module_' || n, 'tests/' || c || '/module_' || n || '.pm', c,
    (array['passed', 'failed', 'softfailed', 'none'])[1 + (random() * 3)::int],
    now() - random() * interval '90 days'
  from (select i, (random() * 400)::int n,
      (array['installation', 'desktop', 'server', 'upgrade'])[1 + i % 4] c
    from generate_series(1, {count}) i) made;
create index on job_modules (job_id);
create index on job_modules (result);
create index on job_modules (category, name, script);
"""
ROWS_PER_MIB = 5000


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; returns 1 where the goal is missed.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.backup", description=(__doc__ or "").split(":")[0])
    parser.add_argument(
        "--mib", type=whole(1, 4096), default=400, help="the database's approximate size (%(default)s)"
    )
    parser.add_argument(
        "--runs", type=whole(1, 100), default=3, help="how many of each, besides one to warm up (%(default)s)"
    )
    options = parser.parse_args(arguments)
    archive = image_archive()
    if not archive.exists():
        raise SystemExit("The database's image is not built: python -m images archive database")
    with tempfile.TemporaryDirectory() as directory:
        unpack(archive, Path(directory))
        with running(Path(directory)) as host:
            return _measure(host, options.mib, options.runs)


def _measure(host: BareHost, mib: int, runs: int) -> int:
    print(f"Filling a database of about {mib} MiB", flush=True)
    host.sql(ROWS.format(count=mib * ROWS_PER_MIB), seconds=1200)
    host.sql("vacuum analyze", seconds=1200)
    host.sql("select pg_switch_wal()")
    ready = "select count(*) from pg_ls_archive_statusdir() where name like '%.ready'"
    wait_until(lambda: host.sql(ready) == "0", seconds=1200)
    host.does("backup", seconds=1200)
    packed = host.output("ls /srv/backups/postgres/*/base/*/base.tar.gz")
    host.output(f"gunzip <{packed} >{PLAIN}", seconds=1200)
    sizes = json.loads(host.output(f"cat {packed.replace('base.tar.gz', 'manifest.json')}"))
    steps: dict[str, Callable[[int], object]] = {
        "cp into the bucket": lambda run: host.output(
            f"cp {PLAIN} /srv/backups/plain-{run}.tar", seconds=1200
        ),
        "backup": lambda _: host.does("backup", seconds=1200),
        "cp out of the bucket": lambda run: host.output(
            f"cp /srv/backups/plain-{run}.tar /srv/copy.tar; rm /srv/copy.tar", seconds=1200
        ),
        "restore": lambda _: host.does("restore --to latest --yes-overwrite", seconds=1200),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            began = time.monotonic()
            step(run)
            taken = time.monotonic() - began
            print(f"  {name:22} {taken:6.1f} s", flush=True)
            if run:
                seconds[name].append(taken)
    plain, stored = sizes["plain_bytes"], sizes["bytes"]
    print(f"{plain / 2**20:.0f} MiB, {stored / 2**20:.0f} MiB in the bucket; medians of {runs} runs:")
    medians = {name: median(values) for name, values in seconds.items()}
    missed = False
    for what, copy in (("backup", "cp into the bucket"), ("restore", "cp out of the bucket")):
        ratio = medians[what] / medians[copy]
        missed |= ratio > GOAL
        speeds = [plain / 2**20 / medians[name] for name in (what, copy)]
        print(
            f"  {what:8} {speeds[0]:5.0f} MiB/s, {copy} {speeds[1]:5.0f} MiB/s: takes {ratio:.2f} times that"
        )
    print(f"goal: at most {GOAL} times: {'missed' if missed else 'met'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
