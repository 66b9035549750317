"""The agent on every host: shuts the host down in order when its Auto Scaling group wants it gone.

The instance metadata says when (``autoscaling/target-lifecycle-state``). Then the role ends as its kind must:
workers finish their jobs; the database and the web UI stop, and release what the next host needs. Only then
does the group's terminating hook complete. :func:`decide` decides what to do, only from what was seen.

EC2 may announce a spot host's end instead. After a rebalance recommendation its workers finish their jobs,
and the host tells its group, which replaces it at once and waits for them. After an interruption notice, two
minutes before the end, they hand their jobs back, and openQA runs them again elsewhere. None of this needs
the controller.

While a worker host stays, its agent closes and opens workers as the controller says (`fleet.closings`).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeVar

from botocore.config import Config

from fleet.closings import Told
from userdata.host import aws, interface, names, volume
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host, this_host
from userdata.host.layout import Layout
from userdata.host.metadata import Metadata
from userdata.host.signals import Signals

log = logging.getLogger(__name__)
Known = TypeVar("Known")

POLL_SECONDS = 5.0
# What fails is tried again in the next round, and no round may wait long for an AWS that does not answer: a
# spot host has two minutes after its notice.
_CALLS = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, read_timeout=10)
# A third of the shortest sensible hook timeout (the group's is minutes).
HEARTBEAT_SECONDS = 60.0
# EC2 Auto Scaling keeps an instance waiting for 48 hours at most, whatever the heartbeats: its user guide,
# "Lifecycle hook considerations". Leave time to say goodbye.
DRAIN_SECONDS = 47 * 3600.0
# The longest time-out of a terminating hook (constructs/worker_fleet.py): a host whose group still waits for
# no hook by then was detached, or goes anyway.
HOOK_SECONDS = 1800.0
# How often a worker host makes sure that its name is its own.
KEEP_SECONDS = 60.0
TOLD_AGAIN_SECONDS = 60.0
LOOK_SECONDS = 60.0  # how often to look for workers that ended by themselves
STARTED = "started"  # in the file of a closed worker that shall come back
GOING = ("Terminated", "Detached")
# From the EC2 user guide, "Spot Instance interruption notices" and "rebalance recommendations".
INTERRUPTION = "spot/instance-action"
REBALANCE = "events/recommendations/rebalance"


class Step(Enum):
    """What to do next."""

    WAIT = "wait"
    DRAIN = "drain"
    HAND_BACK = "hand back"
    LEAVE = "leave"
    HEARTBEAT = "heartbeat"
    STOP = "stop"


class Notice(Enum):
    """What EC2 announces to a spot host."""

    REBALANCE = "rebalance recommendation"
    INTERRUPTION = "interruption"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the agent knows at one moment.

    Attributes:
        going: the group wants the host gone, and waits for its hook.
        busy: how many workers still run; 0 on hosts of another role.
        drain_seconds: since draining began; None before.
        heartbeat_seconds: since the last heartbeat; None before the first.
        notice: what EC2 announced; None once the jobs were handed back.
        left: the group was told that the host is of no more use.
    """

    going: bool
    busy: int
    drain_seconds: float | None
    heartbeat_seconds: float | None
    notice: Notice | None = None
    left: bool = False


def decide(seen: Seen) -> Step:
    """Returns the next step.

    Once begun, draining goes on whatever the group says: the workers were told to go.
    """
    if seen.notice is Notice.INTERRUPTION:
        return Step.HAND_BACK
    if seen.drain_seconds is None:
        return Step.DRAIN if seen.going or seen.notice else Step.WAIT
    if seen.notice is Notice.REBALANCE and not (seen.left or seen.going):
        # Its hook waits for the jobs. If it stayed in service, workers that are gone would count as free.
        return Step.LEAVE
    if not seen.busy or seen.drain_seconds >= DRAIN_SECONDS:
        if seen.going:
            return Step.STOP
        return Step.WAIT if seen.left else Step.LEAVE
    if seen.going and (seen.heartbeat_seconds is None or seen.heartbeat_seconds >= HEARTBEAT_SECONDS):
        return Step.HEARTBEAT
    return Step.WAIT


class Role(Protocol):
    """What the agent can do with this host's role."""

    def drain(self) -> None:
        """Asks the role to end; returns at once."""

    def busy(self) -> int:
        """Returns how many parts of it have not ended yet."""

    def stop(self) -> None:
        """Ends what is left, and releases what the next host needs."""


class Workers(ABC):
    """A worker host: each worker that is told to go finishes its job first, then exits.

    Args:
        count: The number of workers; they are numbered from 1.
        closed: A folder that holds a file, named by its number, for each worker that was told to go and may
            come back: a restarted agent must know them.
    """

    def __init__(self, count: int, closed: Path) -> None:
        self._numbers = range(1, count + 1)
        self._closed = closed
        self._missing: frozenset[int] = frozenset()
        self._looked = float("-inf")

    def drain(self) -> None:
        """Sends each worker the signal to finish its job and go."""
        for number in self._running():
            self._try(self._tell, number)

    def busy(self) -> int:
        """Returns how many workers still run."""
        return len(self._running())

    def stop(self) -> None:
        """Stops the remaining workers, which report it to openQA."""
        run(["systemctl", "stop", *map(self._unit, self._numbers)])

    def close(self, wanted: frozenset[int]) -> None:
        """Tells workers that shall take no jobs to go, and starts those that shall take jobs again.

        It also starts those that ended by themselves: openQA's worker exits with 0 even if it could not go
        on, so that systemd takes it for one that was told to go.

        Args:
            wanted: The numbers of the workers that shall take no jobs.
        """
        wanted &= frozenset(self._numbers)
        marks = {int(path.name): path for path in self._closed.iterdir()} if self._closed.is_dir() else {}
        looks = time.monotonic() - self._looked >= LOOK_SECONDS
        if not (wanted or marks or looks):
            return
        running = self._running()
        if looks:
            self._looked = time.monotonic()
            missing = frozenset(self._numbers) - set(running) - wanted - marks.keys()
            for number in sorted(missing & self._missing):
                log.info("worker %d is gone: it is started again", number)
                self._try(self._start, number)
            self._missing = missing
        for number in sorted(marks.keys() - wanted):
            mark = marks[number]
            if number not in running:
                # The file stays until the worker runs: systemd may be unable to start it now.
                if self._try(self._start, number):
                    mark.write_text(STARTED)
                    os.utime(mark, (0, 0))
            elif mark.read_text() == STARTED:
                mark.unlink()
            # Else it is still finishing its job and will then go, whatever it is told: it is started later.
        self._closed.mkdir(parents=True, exist_ok=True)
        for number in sorted(wanted):
            mark = marks.get(number, self._closed / str(number))
            if number not in running:
                # It may be about to start: then tell it as soon as it runs.
                mark.write_text("")
                os.utime(mark, (0, 0))
                continue
            due = not mark.exists() or time.time() - mark.stat().st_mtime >= TOLD_AGAIN_SECONDS
            if due and self._try(self._tell, number):
                mark.write_text("")

    @staticmethod
    def _try(act: Callable[[int], None], number: int) -> bool:
        """Does something with a worker, and tells whether it worked: a failure concerns no other worker."""
        try:
            act(number)
        except HostError as error:
            log.warning("worker %d: %s", number, error)
            return False
        return True

    def _start(self, number: int) -> None:
        run(["systemctl", "start", "--no-block", self._unit(number)])

    @abstractmethod
    def _running(self) -> list[int]:
        """Returns the numbers of the workers that run."""

    @abstractmethod
    def _tell(self, number: int) -> None:
        """Sends a worker the signal to finish its job and go."""

    @abstractmethod
    def _unit(self, number: int) -> str:
        """Returns the name of a worker's unit."""


class ContainerWorkers(Workers):
    """A host with workers in containers."""

    def _running(self) -> list[int]:
        names = run(["podman", "ps", "--format={{.Names}}"]).split()
        return [number for number in self._numbers if self._container(number) in names]

    def _tell(self, number: int) -> None:
        run(["podman", "kill", "--signal=HUP", self._container(number)])

    def _unit(self, number: int) -> str:
        return f"openqa-worker@{number}.service"

    def _container(self, number: int) -> str:
        return f"openqa-worker-{number}"


class HostWorkers(Workers):
    """A tap host, which runs openQA's workers itself."""

    def _running(self) -> list[int]:
        units = {self._unit(number): number for number in self._numbers}
        states = "--state=active,activating,deactivating"
        answer = run(["systemctl", "list-units", states, "--plain", "--no-legend", *units])
        return [units[line.split()[0]] for line in answer.splitlines()]

    def _tell(self, number: int) -> None:
        # Only the main process, not its guests.
        run(["systemctl", "kill", "--kill-whom=main", "--signal=HUP", self._unit(number)])

    def _unit(self, number: int) -> str:
        return f"openqa-worker-plain@{number}.service"


class Stateful:
    """The database or web UI host: stops, and releases its volume and its interface."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def drain(self) -> None:
        """Does nothing: jobs run elsewhere, and each request is short."""

    def busy(self) -> int:
        """Returns 0."""
        return 0

    def stop(self) -> None:
        """Unmounts the volume, which stops everything that uses it, then releases volume and interface."""
        # This comes first, or a timer's service would have the volume mounted again.
        run(["systemctl", "stop", "openqa-on-aws.target"], seconds=600)
        run(["systemctl", "stop", "srv-data.mount"], seconds=600)
        ec2 = self._host.client("ec2")
        if self._host.document.volume is not None:
            volume.detach(ec2, volume=self._host.document.volume, instance=self._host.instance)
        if self._host.document.interface is not None:
            interface.detach(ec2, interface=self._host.document.interface.id, instance=self._host.instance)


class Builder:
    """A builder of disk images: what it has not published is lost, and no trace of it remains."""

    def drain(self) -> None:
        """Does nothing: it is told to go when its work is over or no longer wanted."""

    def busy(self) -> int:
        """Returns 0."""
        return 0

    def stop(self) -> None:
        """Ends the work."""
        run(["systemctl", "stop", "disk-image-build.service"])


def role_of(host: Host) -> Role:
    """Returns what this host can do."""
    if host.document.builder is not None:
        return Builder()
    worker = host.document.worker
    if worker is None:
        return Stateful(host)
    kind = HostWorkers if worker.network == "tap" else ContainerWorkers
    return kind(worker.count(host.instance_type), host.layout.runtime / "closed-workers")


def watch(
    *,
    target: Callable[[], str | None],
    role: Role,
    heartbeat: Callable[[], None],
    complete: Callable[[], bool],
    unfit: Callable[[], None],
    notice: Callable[[], Notice | None],
    keep: Callable[[], None],
    tend: Callable[[], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Follows the group's wish and EC2's notices until the host is stopped and the hook completed.

    An error in one round is logged and the round repeated: an agent that gives up leaves a host that nobody
    drains.

    Args:
        target: asks the instance metadata for the wanted lifecycle state; None where there is no group.
        role: this host's role.
        heartbeat: restarts the hook's timer.
        complete: completes the hook; tells whether the group waited for it. The group may begin to wait only
            after the metadata say that the host is to go.
        unfit: tells the group that the host is of no more use.
        notice: asks the instance metadata for what EC2 announces.
        keep: called every minute at the end of a round, for what must not be lost while the host runs.
        tend: called in every round in which nothing is to be done and the host has not been told to go.
        sleep: waits; takes seconds.
        clock: seconds, monotonic.
    """
    draining: float | None = None
    beaten: float | None = None
    stopped: float | None = None
    going = handed_back = left = False
    kept = drained = float("-inf")
    while True:
        now = clock()
        try:
            going = going or _asked(target, None) in GOING
            step = decide(
                Seen(
                    going=going,
                    busy=0 if draining is None else _asked(role.busy, 1),
                    drain_seconds=None if draining is None else now - draining,
                    heartbeat_seconds=None if beaten is None else now - beaten,
                    notice=None if handed_back else _asked(notice, None),
                    left=left,
                )
            )
            if step is not Step.WAIT:
                log.info("%s", step.value)
            if step is Step.DRAIN:
                # Set first: heartbeats must not wait for workers that cannot be told, and are told again.
                draining = drained = now
                role.drain()
                continue
            if step is Step.HAND_BACK:
                role.stop()
                draining, handed_back = now, True
                continue
            if step is Step.STOP:
                if stopped is None:
                    role.stop()
                    stopped = now
                if complete() or now - stopped >= HOOK_SECONDS:
                    return
            if step is Step.LEAVE:
                unfit()
                left = True
            if step is Step.HEARTBEAT:
                beaten = now
                heartbeat()
            if draining is None:
                tend()
            elif not handed_back and now - drained >= TOLD_AGAIN_SECONDS:
                # A worker that was just starting did not get the signal.
                drained = now
                role.drain()
        except HostError as error:
            log.warning("%s", error)
        if clock() - kept >= KEEP_SECONDS:
            _asked(keep, None)
            kept = clock()
        sleep(POLL_SECONDS)


def _asked(what: Callable[[], Known], unknown: Known) -> Known:
    """Asks for one thing; without an answer the rest of a round, above all the heartbeat, still happens."""
    try:
        return what()
    except HostError as error:
        log.warning("%s", error)
        return unknown


def find_notice(metadata: Metadata) -> Notice | None:
    """Returns what EC2 announces to this host; None if nothing, as always on hosts that are not spot."""
    if metadata.find(INTERRUPTION) is not None:
        return Notice.INTERRUPTION
    return Notice.REBALANCE if metadata.find(REBALANCE) is not None else None


def main(arguments: list[str] | None = None) -> int:
    """Runs the agent; returns when the host may go.

    Args:
        arguments: the command line's words; None takes the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python3 -m fleet.agent",
        description="Shuts this host down in order when its Auto Scaling group wants it gone. "
        "openqa-agent.service starts it.",
    )
    parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    metadata = Metadata()
    host = aws.wait(
        "the instance metadata and the host document",
        lambda: _host(metadata),
        seconds=600,
        pause=POLL_SECONDS,
    )
    signals = Signals(host.document, host.instance, host.client, attempts=1)
    hook = host.document.terminate_hook
    role = role_of(host)
    told = Told(f"http://{host.document.webui_host}", host.instance)
    watch(
        target=lambda: metadata.find("autoscaling/target-lifecycle-state"),
        role=role,
        heartbeat=lambda: signals.heartbeat(hook),
        unfit=signals.unhealthy,
        notice=lambda: find_notice(metadata) if host.document.worker else None,
        complete=lambda: leave(host, signals),
        keep=lambda: keep_name(host, signals),
        tend=lambda: role.close(told()) if isinstance(role, Workers) else None,
    )
    return 0


def keep_name(host: Host, signals: Signals) -> None:
    """Makes sure that a worker host's name is its own; a host that lost its name is to be replaced.

    Raises:
        HostError: another host has the name, or AWS refused.
    """
    if host.document.worker is not None and not names.keep(host):
        signals.unhealthy()
        raise HostError(f"host name: {host.name} belongs to another host now")


def leave(host: Host, signals: Signals) -> bool:
    """Gives a worker host's name back, now that no worker uses it, and lets the group end the host.

    Returns:
        Whether the group waited for that.

    Raises:
        HostError: AWS refused.
    """
    if host.document.worker is not None:
        try:
            names.release(host)
        except HostError as error:  # the next host takes it over anyway, once this one is gone
            log.warning("%s", error)
    return signals.complete(host.document.terminate_hook, "CONTINUE")


def _host(metadata: Metadata) -> Host | None:
    try:
        host = this_host(Layout(), metadata)
    except HostError as error:
        log.warning("%s", error)
        return None
    return replace(host, client=lambda service: aws.client(service, host.document.region, config=_CALLS))


if __name__ == "__main__":
    sys.exit(main())
