"""The agent on every host: shuts the host down in order when its Auto Scaling group wants it gone.

The instance metadata says when (``autoscaling/target-lifecycle-state``). Then the role ends as its kind must:
workers finish their jobs; the database and the web UI stop, and release what the next host needs
(`fleet.roles`). Only then does the group's terminating hook complete. :func:`decide` decides what to do, only
from what was seen.

EC2 may announce a spot host's end instead. After a rebalance recommendation its workers finish their jobs,
and the host tells its group, which replaces it at once and waits for them. After an interruption notice, two
minutes before the end, they hand their jobs back, and openQA runs them again elsewhere. None of this needs
the controller.

While a worker host stays, its agent closes and opens workers as the controller says (`fleet.closings`).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from botocore.config import Config

from fleet.closings import Told
from fleet.roles import TOLD_AGAIN_SECONDS, Role, Workers, role_of
from userdata.host import aws, names
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
