"""The commands of ``python3 -m userdata.host``."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import sys
from pathlib import Path

from userdata.host import (
    aws,
    disks,
    document,
    images,
    mesh,
    progress,
    rds,
    ready,
    reconcile,
    roles,
    space,
    tap,
)
from userdata.host.backup import assets, awaiting, base, choose, move, rehearsal, restore
from userdata.host.content import refresh
from userdata.host.disk_images import build, fetch
from userdata.host.errors import HostError
from userdata.host.host import Host, this_host
from userdata.host.layout import Layout
from userdata.host.metadata import Metadata
from userdata.host.secrets import write_private
from userdata.host.signals import Signals


def main(arguments: list[str], layout: Layout) -> int:
    """Runs one command; returns the exit code. A failure's reason goes to stderr and to ``state/failure``."""
    options = _parser().parse_args(arguments)
    try:
        _run(options, layout)
    except HostError as error:
        print(f"openqa-on-aws: {error}", file=sys.stderr)
        layout.state.mkdir(parents=True, exist_ok=True)
        write_private(layout.state / "failure", str(error), mode=0o644)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m userdata.host")
    parser.add_argument("--run", metavar="NAME", help="keep what is said for 'progress NAME'")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("role", help="print the host's role")
    golden = commands.add_parser("images", help="load container images and keep artifacts")
    golden.add_argument("--role", action="append", default=[], choices=document.ROLES)
    golden.add_argument("--document", type=Path, help="load what it names instead of all that is there")
    commands.add_parser("prepare", help="once: name, interface, volume, units")
    commands.add_parser("configure", help="at every start: secrets and configuration")
    commands.add_parser(
        "disks", help="at every start of a worker host: pools and cache on instance-store disks"
    )
    commands.add_parser("certificate", help="renew the database's certificate when it is due")
    commands.add_parser("tap", help="at every start of a tap host: bridge, tap devices, forwarding")
    commands.add_parser("follow-mesh", help="keep the tunnels to the fleet's other hosts; does not return")
    commands.add_parser("switch", help="serve the switch that os-autoinst asks for VLANs; does not return")
    commands.add_parser("check-tap", help="whether the tap network works; if not, the host is unhealthy")
    backup = commands.add_parser("backup", help="take a base backup of the database")
    backup.add_argument("--when-due", action="store_true", help="only where last night's is missing")
    commands.add_parser("rehearse", help="prove that the newest backup can be restored")
    restoring = commands.add_parser("restore", help="restore the database from the backup bucket")
    restoring.add_argument(
        "--to", required=True, metavar="latest|TIME", help="all there is, or a time: 2026-01-31T03:00:00Z"
    )
    restoring.add_argument("--timeline", type=int, help="the timeline to follow (default: the newest)")
    restoring.add_argument("--yes-overwrite", action="store_true", help="replace a database that is there")
    keeping = commands.add_parser(
        "assets", help="fixed assets and openQA's configuration in the backup bucket"
    )
    keeping.add_argument(
        "action",
        choices=("keep", "backup", "restore"),
        help="keep: restore what a new volume lacks, and back up",
    )
    keeping.add_argument("--yes-overwrite", action="store_true", help="replace assets that differ")
    moving = commands.add_parser("move", help="copy the database to another server, such as RDS")
    moving.add_argument(
        "--to", required=True, metavar="NAME[:PORT]", help="the server, with an empty database"
    )
    moving.add_argument("--ca", type=Path, help="certificates to trust (default: those of the region's RDS)")
    commands.add_parser("reconcile", help="bring openQA in line with a restored database")
    told = commands.add_parser("progress", help="print what a command said so far that was given --run NAME")
    told.add_argument("name")
    told.add_argument("--after", type=int, default=0, help="leave out so many lines")
    commands.add_parser("initialise", help="make an empty database although there are backups")
    commands.add_parser("build", help="on a builder: bring the disk images up to date and publish them")
    commands.add_parser("build-over", help="on a builder: tell how it went and let the host go")
    commands.add_parser("fetch-images", help="on the web UI's host: show the disk images that were published")
    content = commands.add_parser("content", help="bring tests, needles and job templates up to date")
    content.add_argument("--rewritten", action="store_true", help="also where the history was rewritten")
    content.add_argument("--again", action="store_true", help="load all job templates again")
    commands.add_parser("space", help="tell how much of the data volume is free")
    commands.add_parser("ready", help="wait until the role works, then report it")
    failure = commands.add_parser("fail", help="report that this host failed")
    failure.add_argument("reason", help="used where no command left a better one")
    return parser


def _run(options: argparse.Namespace, layout: Layout) -> None:
    if options.command == "role":
        print(document.load(layout.document).role)
        return
    if options.command == "images":
        _images(options, layout)
        return
    if options.command == "disks":
        disks.set_up(layout)
        return
    if options.command == "progress":
        for line in progress.after(layout, options.name, options.after):
            print(line)
        return
    if options.command == "switch":
        # Needs its D-Bus library, which only tap hosts have.
        from userdata.host import switch_bus

        switch_bus.serve()
        return
    host = this_host(layout, Metadata())
    signals = Signals(host.document, host.instance, host.client)
    if options.command == "prepare":
        roles.prepare(host)
    elif options.command == "configure":
        roles.configure(host)
    elif options.command == "certificate":
        roles.renew_certificate(host)
    elif options.command == "tap":
        tap.set_up(host)
        if host.document.worker and host.document.worker.mesh:
            mesh.set_up(host)
    elif options.command == "follow-mesh":
        mesh.follow(host, rounds=itertools.count())
    elif options.command == "check-tap":
        try:
            tap.await_working(host)
        except HostError:
            signals.unhealthy()
            raise
    elif options.command == "backup":
        with progress.kept(layout, options.run, say=_say) as report:
            _backup(options, host, report)
    elif options.command == "rehearse":
        rehearsal.rehearse(host, _say)
    elif options.command == "restore":
        target = choose.parse_target(options.to, timeline=options.timeline)
        with progress.kept(layout, options.run, say=_say) as report:
            restore.restore(host, target, overwrite=options.yes_overwrite, report=report)
    elif options.command == "reconcile":
        with progress.kept(layout, options.run, say=_say) as report:
            reconcile.reconcile(host, report)
    elif options.command == "move":
        _move(options, host)
    elif options.command == "assets":
        _assets(options, host)
    elif options.command == "initialise":
        awaiting.initialise(host)
    elif options.command == "build":
        logging.getLogger(build.__name__).setLevel(logging.INFO)
        build.await_service(host)
        build.build(host)
        write_private(host.layout.built, "", mode=0o644)
    elif options.command == "build-over":
        build.over(host, Metadata())
    elif options.command == "fetch-images":
        logging.getLogger(fetch.__name__).setLevel(logging.INFO)
        fetch.fetch(host)
    elif options.command == "content":
        refresh.refresh(host, rewritten=options.rewritten, again=options.again, report=_say)
    elif options.command == "space":
        space.tell(host)
    elif options.command == "ready":
        ready.await_ready(host)
        if host.layout.awaits_restore.exists():
            _say(host.layout.awaits_restore.read_text(encoding="utf-8"))
        signals.works()
        write_private(layout.state / "ready", "", mode=0o644)
    elif options.command == "fail":
        failure = layout.state / "failure"
        if not failure.exists():
            write_private(failure, options.reason, mode=0o644)
        if host.document.builder is not None:
            # Its group would try again and again.
            with contextlib.suppress(HostError):
                build.over(host, Metadata())
        signals.fails()


def _backup(options: argparse.Namespace, host: Host, report: progress.Report) -> None:
    with base.alone(host, "backup"):
        taken = base.take_when_due(host) if options.when_due else base.take(host)
    if taken is not None:
        report(f"base backup {taken.attempt}: {taken.bytes} bytes, finished at {taken.finished}")


def _move(options: argparse.Namespace, host: Host) -> None:
    if options.ca is None:
        trusted = rds.certificates(host.document.region, kept=host.layout.data / "rds-ca.crt")
    else:
        trusted = options.ca.read_text(encoding="ascii")
    move.move(host, options.to, certificates=trusted, report=_say)


def _assets(options: argparse.Namespace, host: Host) -> None:
    if options.action == "restore":
        assets.restore(host, overwrite=options.yes_overwrite, report=_say)
    else:
        {"keep": assets.keep, "backup": assets.back_up}[options.action](host, _say)


def _say(line: str) -> None:
    print(f"openqa-on-aws: {line}", flush=True)


def _images(options: argparse.Namespace, layout: Layout) -> None:
    kept = layout.state / "artifacts"
    if options.document is None:
        images.install_found(options.role or document.ROLES, cache=layout.cache, kept=kept)
        return

    read = document.load(options.document)
    images.install(read, cache=layout.cache, kept=kept, s3=lambda: aws.client("s3", read.region))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="openqa-on-aws: %(message)s")
    sys.exit(main(sys.argv[1:], Layout()))
