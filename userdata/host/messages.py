"""The consumer of messages on the web UI's host: what it is given, in memory and for its eyes alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from userdata.host.document import Document
from userdata.host.host import Host
from userdata.host.secrets import write_private

# The user of roles/messages/units/openqa-messages.service; no other process has it.
USER = 604
WEBUI = "http://127.0.0.1"
_TLS = {"authority": "ca", "certificate": "certificate", "key": "key"}


def folders(document: Document) -> tuple[str, ...]:
    """Returns the folders of userdata/roles that make a host a consumer of messages."""
    return ("messages",) if document.schedule else ()


def configure(host: Host, *, key: str, secret: str, broker: str | None) -> None:
    """Writes the consumer's settings, and makes the folder of what it remembers.

    A secret of no use is the consumer's affair, which says so: it keeps nobody from the web UI.

    Args:
        host: the host.
        key: openQA's API key.
        secret: the key's secret.
        broker: what the secret about the broker holds; None: there is none.
    """
    schedule = host.document.schedule
    if schedule is None:
        return
    folder = host.layout.runtime / "messages"
    _folder(folder)
    _folder(host.layout.data / "schedule")
    given = _given(broker)
    for name, there in _TLS.items():
        _write(folder / f"{name}.pem", given.get(there, ""))
    data = {
        "listen": {
            "broker": schedule.broker,
            "queue": schedule.queue,
            "exchange": schedule.exchange,
            "archive": schedule.archive,
            "password": given.get("password"),
            **{name: f"{name}.pem" if given.get(there) else None for name, there in _TLS.items()},
        },
        "openqa": {"url": WEBUI, "key": key, "secret": secret},
        "rules": list(schedule.rules),
    }
    _write(folder / "settings.json", json.dumps(data, indent=1))


def _given(broker: str | None) -> Mapping[str, str]:
    try:
        data: Any = json.loads(broker or "{}")
    except ValueError:
        return {}
    return (
        {name: text for name, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    )


def _folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    if os.geteuid() == 0:
        os.lchown(path, USER, USER)


def _write(path: Path, text: str) -> None:
    owner = USER if os.geteuid() == 0 else None
    write_private(path, text, uid=owner, gid=owner)
