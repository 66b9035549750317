"""How a host of each role ends, and how workers are closed and opened, for the agent (`fleet.agent`)."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from userdata.host import interface, volume
from userdata.host.commands import run
from userdata.host.errors import HostError
from userdata.host.host import Host

log = logging.getLogger(__name__)

TOLD_AGAIN_SECONDS = 60.0  # until a worker that was told to go, and still runs, is told again
LOOK_SECONDS = 60.0  # how often to look for workers that ended by themselves
STARTED = "started"  # in the file of a closed worker that shall come back


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
