"""What schedules builds on the web UI's host: its settings, in memory and readable by it alone.

Fedora's keys, callbacks and settings are those of fedora-infra/ansible (roles/openqa/dispatcher).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from userdata.host import figures, render, users
from userdata.host.commands import run
from userdata.host.document import Document, Schedule
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.progress import Report
from userdata.host.secrets import write_private
from userdata.messages import memory

WEBUI = "http://127.0.0.1"
# What a consumer remembers, in its own writable folder.
_STATE = "state.json"
# fedora_openqa asks Fedora's servers what is in a compose.
_BY_HAND_SECONDS = 900
_TLS = {"authority": "ca", "certificate": "certificate", "key": "key"}

_PRODUCTION = "org.fedoraproject.prod"
_SCHEDULER_KEYS = (
    f"{_PRODUCTION}.pungi.compose.status.change",
    f"{_PRODUCTION}.bodhi.update.status.testing.koji-build-group.build.complete",
    f"{_PRODUCTION}.coreos.build.state.change",
)
_REPORTERS = {
    "report_resultsdb": ("OpenQAResultsDBReporter", "resultsdb_url", ("done", "create", "restart")),
    "report_wiki": ("OpenQAWikiReporter", "wiki_hostname", ("done",)),
}


@dataclass(frozen=True, kw_only=True)
class FedoraConsumer:
    """One of fedora_openqa's consumers.

    Attributes:
        name: Its container is ``openqa-NAME``.
        app: How it introduces itself to the broker.
        callback: What fedora-messaging calls, as ``MODULE:CLASS``.
        logger: The class of ``fedora_openqa.consumer``, whose name its logger has.
        url: The broker's address, with an empty password, as fedora-messaging wants it.
        queue: The queue's name.
        keys: The routing keys.
        config: What the class needs besides openQA's address.
    """

    name: str
    app: str
    callback: str
    logger: str
    url: str
    queue: str
    keys: tuple[str, ...]
    config: Mapping[str, Any]


def folders(document: Document) -> tuple[str, ...]:
    """Returns the folders of userdata/roles for scheduling builds by messages and by the clock."""
    found = []
    if document.schedule is not None:
        found.append("messages" if document.schedule.program == "rules" else "fedora-messages")
    if document.timetable:
        found.append("timetable")
    return ("schedule", *found) if found else ()


def fedora_consumers(schedule: Schedule, *, url: str) -> Iterator[FedoraConsumer]:
    """Yields fedora_openqa's consumers that a host runs.

    Args:
        schedule: the settings.
        url: the address at which people reach the web UI.
    """
    broker = schedule.broker.replace("@", ":@", 1)
    yield FedoraConsumer(
        name="fedora-scheduler",
        app="openQA on AWS, scheduler",
        callback="userdata.messages.fedora:Scheduler",
        logger="OpenQAScheduler",
        url=broker,
        queue=schedule.queue,
        keys=_SCHEDULER_KEYS,
        config={"update_arches": list(schedule.architectures)},
    )
    for name, report in sorted(schedule.reports.items()):
        reporter, target, events = _REPORTERS[name]
        yield FedoraConsumer(
            name=f"fedora-{name.replace('_', '-')}",
            app=f"openQA on AWS, {name.replace('_', ' ')}",
            callback=f"fedora_openqa.consumer:{reporter}",
            logger=reporter,
            url=broker,
            queue=report["queue"],
            keys=tuple(f"{_PRODUCTION}.openqa.job.{event}" for event in events),
            config={target: report["to"], "openqa_baseurl": url, "do_report": True},
        )


def fedora_files(
    host: Host, kind: Literal["config", "quadlets"], context: Mapping[str, Any]
) -> list[render.File]:
    """Renders the files of one kind for each of Fedora's consumers.

    Args:
        host: the host.
        kind: the folder of templates below ``roles/fedora-messages/consumer``.
        context: the variables of all templates.

    Raises:
        HostError: a template uses a variable that is not in the context, or is malformed.
    """
    document = host.document
    if document.schedule is None or document.webui is None or document.schedule.program == "rules":
        return []
    folder = host.layout.bundle / "userdata/roles/fedora-messages/consumer" / kind
    return [
        render.File(file.path.with_stem(_stem(kind, consumer)), file.text)
        for consumer in fedora_consumers(document.schedule, url=document.webui.url)
        for file in render.render(folder, {**context, "consumer": consumer})
    ]


def _stem(kind: Literal["config", "quadlets"], consumer: FedoraConsumer) -> str:
    return consumer.name if kind == "config" else f"openqa-{consumer.name}"


def tell(host: Host) -> None:
    """Reports to CloudWatch for how long messages, or times of the timetable, may have been left unhandled.

    Raises:
        HostError: that is unknown, or CloudWatch did not accept it.
    """
    unknown = []
    try:
        if host.document.schedule is not None:
            figures.put(host, ScheduleLagSeconds=_lag(host, "schedule"))
    except HostError as error:
        unknown.append(str(error))
    try:
        if host.document.timetable:
            figures.put(host, TimetableLagSeconds=_lag(host, "timetable"))
    except HostError as error:
        unknown.append(str(error))
    if unknown:
        raise HostError("; ".join(unknown))


def _lag(host: Host, name: str) -> float:
    path = host.layout.data / name / _STATE
    try:
        return max(0.0, time.time() - memory.read_since(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(f"{path}: does not say up to when everything was handled: {error!r}") from error


def schedule_by_hand(host: Host, kind: str, what: str, report: Report) -> None:
    """Has fedora_openqa schedule a compose or an update, in its scheduler's container.

    It waits while openQA's templates change: half the templates would make half the jobs.

    Args:
        host: the web UI's host.
        kind: ``compose`` or ``update``.
        what: the compose's URL, or the update's ID.
        report: takes each line that the program prints.

    Raises:
        HostError: the host has no fedora_openqa, or it failed.
    """
    schedule = host.document.schedule
    if schedule is None or schedule.program != "fedora_openqa":
        raise HostError(
            'fedora_openqa does not run here: the environment needs [schedule] program = "fedora_openqa"'
        )
    server = f"--openqa-hostname=http://{host.document.webui_host}"
    command = ["podman", "exec", "openqa-fedora-scheduler", "fedora-openqa", kind, server, what]
    with host.layout.templates_lock.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        lines = run(command, seconds=_BY_HAND_SECONDS).splitlines()
    for line in lines:
        report(line)


def configure(host: Host, *, key: str, secret: str, broker: str | None) -> None:
    """Creates the state folders of consumer and timetable, and writes the settings of our own ones.

    An unusable secret is left for the consumer to report: it must not take the web UI down.

    Args:
        host: the host.
        key: openQA's API key.
        secret: the key's secret.
        broker: the content of the broker's secret; None: there is none.
    """
    openqa = {"url": WEBUI, "key": key, "secret": secret}
    schedule = host.document.schedule
    if schedule is None:
        _forget(host, "schedule")
    elif schedule.program == "rules":
        _configure_rules(host, schedule, openqa=openqa, given=_given(broker))
    else:
        host.layout.templates_lock.touch(mode=0o644)
        users.make_folder(host.layout.data, "schedule", user=users.OPENQA, mode=0o700)
    if host.document.timetable:
        _write_settings(host, "timetable", {"timetable": list(host.document.timetable), "openqa": openqa})
        users.make_folder(host.layout.data, "timetable", user=users.MESSAGES, mode=0o700)
    else:
        _forget(host, "timetable")


def _forget(host: Host, name: str) -> None:
    """Forgets the state: if this is ever enabled again, it must not schedule what came in between."""
    (host.layout.data / name / _STATE).unlink(missing_ok=True)


def _configure_rules(
    host: Host, schedule: Schedule, *, openqa: Mapping[str, str], given: Mapping[str, str]
) -> None:
    listen = {
        "broker": schedule.broker,
        "queue": schedule.queue,
        "exchange": schedule.exchange,
        "archive": schedule.archive,
        "password": given.get("password"),
        **{name: f"{name}.pem" if given.get(there) else None for name, there in _TLS.items()},
    }
    folder = _write_settings(
        host, "messages", {"listen": listen, "openqa": openqa, "rules": list(schedule.rules)}
    )
    for name, there in _TLS.items():
        _write(folder / f"{name}.pem", given.get(there, ""))
    users.make_folder(host.layout.data, "schedule", user=users.MESSAGES, mode=0o700)


def _write_settings(host: Host, name: str, data: Mapping[str, Any]) -> Path:
    """Writes the settings of ``python3 -m userdata.messages`` to a folder of their own and returns it."""
    folder = host.layout.runtime / name
    users.make_folder(host.layout.runtime, name, user=users.MESSAGES, mode=0o700)
    host.layout.templates_lock.touch(mode=0o644)
    lock = os.path.relpath(host.layout.templates_lock, folder)
    _write(folder / "settings.json", json.dumps({**data, "templates_lock": lock}, indent=1))
    return folder


def _given(broker: str | None) -> Mapping[str, str]:
    try:
        data: Any = json.loads(broker or "{}")
    except ValueError:
        return {}
    return (
        {name: text for name, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    )


def _write(path: Path, text: str) -> None:
    write_private(path, text, user=users.MESSAGES)
