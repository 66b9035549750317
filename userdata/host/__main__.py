"""The commands of ``python3 -m userdata.host``."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from userdata.host import (
    aws,
    document,
    images,
    mesh,
    messages,
    minion,
    progress,
    rds,
    ready,
    reconcile,
    restart,
    roles,
    space,
    tap,
    volume,
)
from userdata.host.backup import assets, awaiting, base, choose, move, rehearsal, restore
from userdata.host.content import refresh
from userdata.host.disk_images import build, fetch
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host, this_host
from userdata.host.layout import Layout
from userdata.host.metadata import Metadata
from userdata.host.secrets import write_private
from userdata.host.signals import Signals

# A command takes its options, and either where things are or this host.
Command = Callable[[argparse.Namespace, Layout], None]
HostCommand = Callable[[argparse.Namespace, Host], None]


def main(arguments: list[str], layout: Layout) -> int:
    """Runs one command; returns the exit code. A failure's reason goes to stderr and to ``state/failure``."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options, layout)
    except (HostError, OSError) as error:
        print(f"openqa-on-aws: {error}", file=sys.stderr)
        # On a full disk, stderr must do.
        with contextlib.suppress(OSError):
            layout.state.mkdir(parents=True, exist_ok=True)
            write_private(layout.state / "failure", str(error), mode=0o644)
        return 1
    except KeyboardInterrupt:
        print("openqa-on-aws: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m userdata.host")
    parser.add_argument("--run", metavar="NAME", help="keep the output for 'progress NAME'")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def anywhere(name: str, command: Command, told: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=told)
        added.set_defaults(command=command)
        return added

    def here(name: str, command: HostCommand, told: str) -> argparse.ArgumentParser:
        return anywhere(name, lambda options, layout: command(options, this_host(layout, Metadata())), told)

    added = anywhere("images", _images, "load container images and keep artifacts")
    added.add_argument("--role", action="append", default=[], choices=document.ROLES)
    added.add_argument("--document", type=Path, help="load only what it names, not all that is there")
    anywhere("switch", _switch, "run the switch service that os-autoinst asks for VLANs; does not return")
    added = anywhere("progress", _progress, "print the output so far of a command started with --run NAME")
    added.add_argument("name")
    added.add_argument("--after", type=int, default=0, help="skip this many lines")

    here("prepare", lambda _, host: roles.prepare(host), "once: name, interface, volume, units")
    anywhere("volume", _volume, "at every start: wait for the data volume, and check it")
    here("configure", lambda _, host: roles.configure(host), "at every start: secrets and configuration")
    here("ready", _ready, "wait until the role works, then report it")
    added = here("fail", _fail, "report that this host failed")
    added.add_argument("reason", help="reported unless a command left a better one")

    here(
        "certificate",
        lambda _, host: roles.renew_certificate(host),
        "renew the database's certificate when due, and report how long it is valid",
    )
    added = here("backup", _backup, "take a base backup of the database")
    added.add_argument("--when-due", action="store_true", help="only if last night's is missing")
    here(
        "backup-figures",
        lambda _, host: base.tell(host),
        "report the age of the newest base backup, and how far WAL archiving lags behind",
    )
    here(
        "rehearse",
        lambda _, host: rehearsal.rehearse(host, _say),
        "prove that the newest backup can be restored",
    )
    added = here("restore", _restore, "restore the database from the backup bucket")
    added.add_argument(
        "--to", required=True, metavar="latest|TIME", help="the latest state, or a time: 2026-01-31T03:00:00Z"
    )
    added.add_argument("--timeline", type=int, help="the timeline to follow (default: the last one written)")
    added.add_argument("--yes-overwrite", action="store_true", help="replace an existing database")
    here(
        "initialise",
        lambda _, host: awaiting.initialise(host),
        "create an empty database even though there are backups",
    )
    added = here("move", _move, "copy the database to another server, such as RDS")
    added.add_argument(
        "--to", required=True, metavar="NAME[:PORT]", help="the server, with an empty database"
    )
    added.add_argument("--ca", type=Path, help="certificates to trust (default: those of RDS in the region)")

    here("restart", _restart, "restart all services with the current secrets")
    here("reconcile", _reconcile, "bring openQA in line with a restored database")
    added = here("assets", _assets, "back up or restore fixed assets and openQA's configuration")
    added.add_argument(
        "action",
        choices=("keep", "backup", "restore"),
        help="keep: restore what a new volume lacks, then back up",
    )
    added.add_argument("--yes-overwrite", action="store_true", help="replace assets that differ")
    added = here("schedule", _schedule, "schedule a Fedora compose or update")
    added.add_argument("kind", choices=("compose", "update"))
    added.add_argument("what", help="the compose's URL, or the update's ID")
    here(
        "schedule-figures",
        lambda _, host: messages.tell(host),
        "report up to when all messages and times have been handled",
    )
    added = here("content", _content, "bring tests, needles and job templates up to date")
    added.add_argument("--rewritten", action="store_true", help="even if the history was rewritten")
    added.add_argument("--again", action="store_true", help="load all job templates again")
    here("space", lambda _, host: space.tell(host), "report the free space of data volume and root disk")
    here(
        "minion-figures",
        lambda _, host: minion.tell(host),
        "report how many of openQA's background jobs failed, and how long the oldest has waited",
    )
    here("fetch-images", _fetch_images, "on the web UI's host: put the published disk images in place")
    here("build", _build, "on a builder: bring the disk images up to date and publish them")
    here(
        "build-over",
        lambda _, host: build.over(host, Metadata()),
        "on a builder: report the outcome and end the host",
    )

    here("tap", _tap, "at every start of a tap host: set up bridge, tap devices and forwarding")
    here("check-tap", _check_tap, "check the tap network; if it does not work, mark the host unhealthy")
    here(
        "follow-mesh",
        lambda _, host: mesh.follow(host, rounds=itertools.count()),
        "maintain the tunnels to the fleet's other hosts; does not return",
    )
    return parser


def _signals(host: Host) -> Signals:
    return Signals(host.document, host.instance, host.client)


def _say(line: str) -> None:
    print(f"openqa-on-aws: {line}", flush=True)


def _images(options: argparse.Namespace, layout: Layout) -> None:
    kept = layout.state / "artifacts"
    if options.document is None:
        images.install_found(options.role or document.ROLES, cache=layout.cache, kept=kept)
        return

    read = document.load(options.document)
    images.install(read, cache=layout.cache, kept=kept, s3=lambda: aws.client("s3", read.region))


def _switch(_: argparse.Namespace, layout: Layout) -> None:
    # Imported here because only tap hosts have its D-Bus library.
    from userdata.host import switch_bus

    switch_bus.serve(tap.network_of(document.load(layout.document)))


def _volume(_: argparse.Namespace, layout: Layout) -> None:
    volume.show(required(document.load(layout.document).volume, "volume"), layout.device)


def _progress(options: argparse.Namespace, layout: Layout) -> None:
    for line in progress.after(layout, options.name, options.after):
        print(line)


def _ready(_: argparse.Namespace, host: Host) -> None:
    signals = _signals(host)

    def hold() -> None:
        _say("openQA is not up, most likely because its database schema is being upgraded: waiting")
        signals.holds()

    # Booting may have used up much of the time after which the group gives up on a silent host.
    signals.heartbeat(host.document.launch_hook)
    ready.await_ready(host, hold=hold)
    if host.layout.awaits_restore.exists():
        _say(host.layout.awaits_restore.read_text(encoding="utf-8"))
    signals.works()
    write_private(host.layout.state / "ready", "", mode=0o644)


def _fail(options: argparse.Namespace, host: Host) -> None:
    failure = host.layout.state / "failure"
    if not failure.exists():
        write_private(failure, options.reason, mode=0o644)
    if host.document.builder is not None:
        # Otherwise its group would retry forever.
        with contextlib.suppress(HostError):
            build.over(host, Metadata())
    _signals(host).fails(failure.read_text(encoding="utf-8"))


def _backup(options: argparse.Namespace, host: Host) -> None:
    with progress.kept(host.layout, options.run, say=_say) as report:
        with base.alone(host, "backup"):
            taken = base.take_when_due(host) if options.when_due else base.take(host)
        if taken is not None:
            report(f"base backup {taken.attempt}: {taken.bytes} bytes, finished at {taken.finished}")


def _restore(options: argparse.Namespace, host: Host) -> None:
    target = choose.parse_target(options.to, timeline=options.timeline)
    with progress.kept(host.layout, options.run, say=_say) as report:
        restore.restore(host, target, overwrite=options.yes_overwrite, report=report)


def _move(options: argparse.Namespace, host: Host) -> None:
    if options.ca is None:
        trusted = rds.certificates(host.document.region, kept=host.layout.data / "rds-ca.crt")
    else:
        trusted = options.ca.read_text(encoding="ascii")
    move.move(host, options.to, certificates=trusted, report=_say)


def _restart(options: argparse.Namespace, host: Host) -> None:
    with progress.kept(host.layout, options.run, say=_say) as report:
        restart.restart(host, report)


def _reconcile(options: argparse.Namespace, host: Host) -> None:
    with progress.kept(host.layout, options.run, say=_say) as report:
        reconcile.reconcile(host, report)


def _assets(options: argparse.Namespace, host: Host) -> None:
    if options.action == "restore":
        assets.restore(host, overwrite=options.yes_overwrite, report=_say)
    else:
        {"keep": assets.keep, "backup": assets.back_up}[options.action](host, _say)


def _schedule(options: argparse.Namespace, host: Host) -> None:
    with progress.kept(host.layout, options.run, say=_say) as report:
        messages.schedule_by_hand(host, options.kind, options.what, report)


def _content(options: argparse.Namespace, host: Host) -> None:
    with progress.kept(host.layout, options.run, say=_say) as report:
        refresh.refresh(host, rewritten=options.rewritten, again=options.again, report=report)


def _fetch_images(_: argparse.Namespace, host: Host) -> None:
    logging.getLogger(fetch.__name__).setLevel(logging.INFO)
    fetch.fetch(host)


def _build(_: argparse.Namespace, host: Host) -> None:
    logging.getLogger(build.__name__).setLevel(logging.INFO)
    build.await_service(host)
    build.build(host)
    write_private(host.layout.built, "", mode=0o644)


def _tap(_: argparse.Namespace, host: Host) -> None:
    tap.set_up(host)
    if host.document.worker and host.document.worker.mesh:
        mesh.set_up(host)


def _check_tap(_: argparse.Namespace, host: Host) -> None:
    try:
        tap.await_working(host)
    except HostError:
        _signals(host).unhealthy()
        raise


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="openqa-on-aws: %(message)s")
    sys.exit(main(sys.argv[1:], Layout()))
