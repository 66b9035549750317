"""Whether this host does its work: asked locally, never through the load balancer."""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import URLError

from userdata.host import tap
from userdata.host.commands import run
from userdata.host.document import required
from userdata.host.errors import HostError
from userdata.host.host import Host

log = logging.getLogger(__name__)
# A database that recovers from a crash takes its time.
SECONDS = 780
# An upgrade of openQA's schema takes longer: two hours were seen, with millions of jobs on a slow disk.
UPGRADE_SECONDS = 6 * 3600
UPGRADE = "/usr/share/openqa/script/initdb"
PAUSE = 2.0
# Many hosts boot at a time, and to list its workers openQA queries its database for each of them: pause this
# many times as long as it took to answer, but at most so long.
RESTS, MOST_REST = 3, 10.0
# A new host with a service that ended this often will not come up.
RESTARTS = 5
# The web UI works without these: a host must not be replaced because a broker is unreachable.
_BESIDE = re.compile(r"openqa-(controller|enqueue@.*|fedora-.*|messages|timetable)\.service")
# Of a worker. A reservation belongs to its name, and so may be older than this host.
_WORKING = ("idle", "running", "reserved")
# What else writes to a container unit's journal.
_RUNTIME = ("podman", "conmon")
# podman prints it when it has started a container.
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


def await_ready(
    host: Host,
    *,
    hold: Callable[[], None],
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until the role works.

    Args:
        host: this host.
        hold: signals that this host must not be given up yet, as openQA's schema is being upgraded, here or,
            most likely, on the web UI's host; called every ``seconds`` if that takes longer.
        seconds: how long to wait, in addition to such an upgrade.
        sleep: waits; takes seconds.

    Raises:
        HostError: it did not in time, a unit failed for good, or one keeps ending; with the reason.
    """
    began = time.monotonic()
    end = next_hold = began + seconds
    while True:
        asked = time.monotonic()
        try:
            check(host)
            return
        except (HostError, OSError, ValueError) as error:
            reason = error
        now = time.monotonic()
        if hopeless := {**_failed_units(), **_ending_units()}:
            raise HostError("; ".join(f"{unit} {how}: {_last_words(unit)}" for unit, how in hopeless.items()))
        if now < began + UPGRADE_SECONDS and (upgrades(host) or _refused_by_webui(host, reason)):
            end = now + seconds
        if now >= end:
            waited = f"waited {now - began:.0f} s for the {host.document.role} to work"
            raise HostError(f"{waited}; the last check said: {reason}") from reason
        if now >= next_hold:
            try:
                hold()
                next_hold = now + seconds
            except HostError as error:  # the next round tries again
                log.warning("%s", error)
        sleep(PAUSE + min(RESTS * (now - asked), MOST_REST))


def check(host: Host) -> None:
    """Checks whether this host does its role's work.

    Raises:
        HostError, OSError, ValueError: it does not.
    """
    checks = {"database": _database, "webui": _webui, "worker": _worker, "builder": _builder}
    checks[host.document.role](host)


def missing_workers(workers: Iterable[Mapping[str, Any]], *, host: str, count: int) -> dict[int, str]:
    """Returns a host's worker instances that take no jobs, each with the reason.

    Args:
        workers: the web UI's list of workers.
        host: the host's instance ID, which each of its workers has among its classes. Its name would not do:
            a lost host that had it before may still be listed as if it were working.
        count: how many instances it should have.
    """
    states = {
        int(worker["instance"]): worker
        for worker in workers
        if host in worker.get("properties", {}).get("WORKER_CLASS", "").split(",")
    }
    missing = {}
    for number in range(1, count + 1):
        worker = states.get(number)
        if worker is None:
            missing[number] = "is not registered"
        elif worker.get("status") not in _WORKING:
            missing[number] = f"is {worker.get('status')}: {worker.get('error') or 'no reason given'}"
    return missing


def check_database(host: Host) -> None:
    """Logs in to the database as its clients do.

    Raises:
        HostError: the login fails.
    """
    database = required(host.document.database, "database")
    password = (host.layout.secrets / "database").read_text(encoding="ascii")
    # Over TCP on the loopback, verifying the name that clients use.
    run(
        [
            *("podman", "exec", "--interactive", "openqa-database", "/opt/bin/login.sh"),
            *(host.document.database_host, database.user, database.name),
        ],
        stdin=password,
        seconds=30,
    )


def _database(host: Host) -> None:
    # A host that awaits a restore counts as working: the operator restores on it, so it must stay.
    if not host.layout.awaits_restore.exists():
        check_database(host)


def _webui(host: Host) -> None:
    # As the load balancer and the API's clients do.
    get("http://127.0.0.1/health")
    jobs = json.loads(get("http://127.0.0.1/api/v1/jobs?limit=1"))
    if "jobs" not in jobs:
        raise HostError("the web UI's API answers without jobs")


def _worker(host: Host) -> None:
    worker = required(host.document.worker, "worker")
    if worker.network == "tap":
        tap.check(host)
    workers = json.loads(get(f"http://{host.document.webui_host}/api/v1/workers?limit=10000"))["workers"]
    missing = missing_workers(workers, host=host.instance, count=worker.count(host.instance_type))
    if missing:
        raise HostError("; ".join(f"worker {number} {reason}" for number, reason in missing.items()))


def upgrades(host: Host) -> bool:
    """Returns whether openQA's schema is being upgraded (``roles/webui/bin/setup.sh``)."""
    if host.document.role != "webui":
        return False
    try:
        return bool(run(["pgrep", "--full", UPGRADE]))
    except HostError:  # there is no such process
        return False


def _refused_by_webui(host: Host, reason: Exception) -> bool:
    """Whether the web UI's host is up and openQA is not, which is not the worker host's fault.

    Its successor would wait for the same thing, and the controller would think the fleet cannot come up.
    """
    cause = reason.reason if isinstance(reason, URLError) else None
    return host.document.role == "worker" and isinstance(cause, ConnectionRefusedError)


def _builder(host: Host) -> None:
    # It starts to build once this host is in service.
    run(["systemctl", "is-active", "disk-image-build.service"])


def _failed_units() -> dict[str, str]:
    answer = run(
        [
            "systemctl",
            "list-units",
            "--state=failed",
            "--plain",
            "--no-legend",
            "openqa*",
            "os-autoinst*",
            "srv-data*",
        ]
    )
    units = [line.split()[0] for line in answer.splitlines() if line]
    return {unit: "failed" for unit in units if not _BESIDE.fullmatch(unit)}


def _ending_units() -> dict[str, str]:
    """Services restart forever, which is right for a host that has worked before, but not for a new one."""
    answer = run(["systemctl", "show", "--property=Id,NRestarts", "openqa*.service", "os-autoinst*.service"])
    units = [dict(line.split("=", 1) for line in block.splitlines()) for block in answer.split("\n\n")]
    return {
        unit["Id"]: f"ended {unit['NRestarts']} times"
        for unit in units
        if int(unit.get("NRestarts", 0)) >= RESTARTS and not _BESIDE.fullmatch(unit["Id"])
    }


def _last_words(unit: str) -> str:
    # Without --all, messages longer than 4096 bytes would be null.
    journal = run(["journalctl", "--all", "--output=json", "--lines=50", f"_SYSTEMD_UNIT={unit}"])
    entries = [json.loads(line) for line in journal.splitlines()]
    said = [
        _text(entry["MESSAGE"]).strip() for entry in entries if entry.get("SYSLOG_IDENTIFIER") not in _RUNTIME
    ]
    return next(
        (text for text in reversed(said) if text and not _CONTAINER_ID.fullmatch(text)), "it said nothing"
    )


def _text(message: str | list[int]) -> str:
    """Unprintable text, such as colours, comes as bytes: systemd.io/JOURNAL_EXPORT_FORMATS."""
    return message if isinstance(message, str) else bytes(message).decode(errors="replace")


def get(url: str) -> str:
    """Returns the answer of one of our addresses.

    Raises:
        OSError: there is none, or it is an error.
    """
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # our own http:// addresses
            body: bytes = response.read()
    except HTTPException as error:
        raise OSError(f"{url}: {error}") from error
    return body.decode()
