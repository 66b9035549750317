"""Secrets: from Secrets Manager to files in memory that only root reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from userdata.host.aws import call
from userdata.host.errors import HostError


def fetch(manager: Any, *, arns: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Writes each secret to ``directory/NAME``, mode 0600, and returns them.

    Args:
        manager: a Secrets Manager client.
        arns: the secrets' ARNs by name.
        directory: made with mode 0700.

    Raises:
        HostError: a secret cannot be read, or is no text.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    values = {}
    for name, arn in arns.items():
        answer = call(f"secret {name}", manager.get_secret_value, SecretId=arn)
        if "SecretString" not in answer:
            raise HostError(f"secret {name}: holds bytes; allowed: text, by --secret-string")
        values[name] = answer["SecretString"]
        write_private(directory / name, values[name])
    return values


def write_private(path: Path, text: str, *, mode: int = 0o600, user: int | None = None) -> None:
    """Replaces a file in one step, also should the machine lose its power; at no time can others read it.

    Args:
        path: the file.
        text: its new content.
        mode: its permissions, in the end.
        user: its owner and group, where this process is root; None: this process's.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if user is not None and os.geteuid() == 0:
            os.fchown(descriptor, user, user)
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
