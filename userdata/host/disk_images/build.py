"""What a builder host does: bring the images up to date, publish them, and go away.

The program is createhdds, or behaves like it: in the folder of the images, ``check --clean`` exits with 0 if
all of them are current, and ``all --clean`` makes what is missing or outdated. It gives an image its name
once it is complete. Published images are represented by empty files of the same size and time: that is all
the program looks at, so they need not be fetched.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from userdata.host import figures
from userdata.host.aws import call, wait
from userdata.host.backup import manifests as times
from userdata.host.disk_images.manifest import NAME, Image, Manifest
from userdata.host.disk_images.store import Store
from userdata.host.document import Builder, required
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.metadata import Metadata

log = logging.getLogger(__name__)

ATTEMPTS = 3
# Objects expire after three times as long: constructs/disk_images.py.
RENEW = timedelta(days=30)
TURN_SECONDS = 3600
SERVICE_SECONDS = 900
LEAVE_SECONDS = 3600

# Runs the program with some arguments in the folder of the images; returns its exit code.
Program = Callable[..., int]


def build(host: Host, *, program: Program | None = None) -> Manifest:
    """Brings the images up to date and publishes them.

    Args:
        host: a builder, in service.
        program: makes the images; None: the one that the host document names.

    Returns:
        What was published.

    Raises:
        HostError: some images could not be made; the others are published all the same.
    """
    builder = settings(host)
    store = Store(host.client("s3"), bucket=builder.bucket, prefix=builder.prefix)
    await_turn(host)
    before, tag = store.read()
    stored = {image: store.stored(image) for image in (before.images if before else ())}
    kept = {image.name: (image, since) for image, since in stored.items() if since is not None}
    marks = place(host.layout.images, (image for image, _ in kept.values()))
    current = update(program or _program(host, builder))
    images = []
    for path in sorted(host.layout.images.iterdir()):
        if not NAME.fullmatch(path.name):
            continue
        if marks.get(path.name) == _mark(path):
            image, since = kept[path.name]
            images.append(store.renew(image) if datetime.now(UTC) - since > RENEW else image)
        else:
            log.info("publishing %s", path.name)
            images.append(store.put(path))
    if not images:
        raise HostError(f"the builder's program made no image: {builder.program}")
    before_checked = before.checked if before else None
    checked = times.now() if current else before_checked
    made = Manifest(checked=checked, images=tuple(images))
    store.write(made, tag=tag)
    if not current:
        raise HostError(f"after {ATTEMPTS} attempts some images are still missing or outdated")
    return made


def settings(host: Host) -> Builder:
    """Returns this builder's settings.

    Raises:
        HostError: the document is that of another kind of host.
    """
    return required(host.document.builder, "builder")


def await_service(host: Host) -> None:
    """Waits until the host has signalled that it works; its group would not end it before.

    Raises:
        HostError: it did not in time.
    """
    ready = host.layout.state / "ready"
    wait("this host to be ready", lambda: ready.exists() or None, seconds=SERVICE_SECONDS)


def await_turn(host: Host, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits until the group has no other host: one that is being ended may still be at work.

    Raises:
        HostError: one stays, or AWS does not answer.
    """

    def alone() -> bool | None:
        answer = call(
            f"group {host.document.group}",
            host.client("autoscaling").describe_auto_scaling_groups,
            AutoScalingGroupNames=[host.document.group],
        )
        members = [entry for group in answer["AutoScalingGroups"] for entry in group["Instances"]]
        return {member["InstanceId"] for member in members} <= {host.instance} or None

    wait("another builder to be gone", alone, seconds=TURN_SECONDS, pause=5, sleep=sleep)


def place(folder: Path, images: Iterable[Image]) -> dict[str, tuple[int, int]]:
    """Empties a folder and puts a stand-in there for each image; returns a mark to recognise each by."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marks = {}
    for image in images:
        path = folder / image.name
        path.touch()
        os.truncate(path, image.bytes)
        os.utime(path, (image.modified, image.modified))
        marks[image.name] = _mark(path)
    return marks


def update(program: Program) -> bool:
    """Has the program make what is missing or outdated; returns whether everything is current in the end."""
    for _ in range(ATTEMPTS):
        if program("check", "--clean") == 0:
            return True
        program("all", "--clean")
    return program("check", "--clean") == 0


def over(host: Host, metadata: Metadata) -> None:
    """Reports the outcome, and has the group end this host.

    Raises:
        HostError: AWS did not accept it.
    """
    try:
        tell(host, failed=not host.layout.built.exists())
    except HostError as error:  # a host that stays is worse than one that says nothing
        log.warning("%s", error)
    leave(host, metadata)


def tell(host: Host, *, failed: bool) -> None:
    """Tells CloudWatch whether a run failed.

    Raises:
        HostError: CloudWatch did not accept it.
    """
    figures.put(host, architecture=settings(host).architecture, ImagesFailed=float(failed))


def leave(host: Host, metadata: Metadata, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Sets the group's size to zero, unless this host is on its way out already.

    Raises:
        HostError: AWS did not accept it for an hour.
    """
    said = ""

    def going() -> bool | None:
        nonlocal said
        try:
            # Otherwise another host may have replaced this one, and must stay.
            if metadata.find("autoscaling/target-lifecycle-state") != "Terminated":
                call(
                    f"group {host.document.group}",
                    host.client("autoscaling").set_desired_capacity,
                    AutoScalingGroupName=host.document.group,
                    DesiredCapacity=0,
                )
        except HostError as error:
            said = str(error)
            return None
        return True

    try:
        wait("the group to let this host go", going, seconds=LEAVE_SECONDS, pause=10, sleep=sleep)
    except HostError as error:
        raise HostError(f"{error}: {said}") from error


def _mark(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_ino, about.st_mtime_ns


def _program(host: Host, builder: Builder) -> Program:
    script = host.layout.bundle / "userdata/roles/builder/programs" / f"{builder.program}.sh"
    environment = {**os.environ, "GIT_ADDRESS": builder.git or "", "GIT_REF": builder.ref or ""}

    def run(*arguments: str) -> int:
        log.info("%s %s", builder.program, " ".join(arguments))
        done = subprocess.run(
            ["bash", str(script), *arguments], cwd=host.layout.images, env=environment, check=False
        )
        log.info("%s %s: exit code %d", builder.program, " ".join(arguments), done.returncode)
        return done.returncode

    return run
