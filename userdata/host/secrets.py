"""Secrets: from Secrets Manager to files in memory that only root reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from userdata.host.aws import call
from userdata.host.errors import HostError

_DIGITS = frozenset("0123456789abcdef")


def fetch(manager: Any, *, arns: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Writes each secret to ``directory/NAME``, mode 0600, and returns them.

    Args:
        manager: a Secrets Manager client.
        arns: the secrets' ARNs by name.
        directory: created with mode 0700.

    Raises:
        HostError: a secret cannot be read, or is not text.
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


def password(text: str) -> str:
    """Returns the database role's password.

    Raises:
        HostError: the secret holds something else.
    """
    if not (len(text) >= 16 and text.isascii() and text.isalnum()):
        raise HostError("secret database: not 16 or more letters and digits")
    return text


def api_key(name: str, text: str) -> tuple[str, str]:
    """Returns a key of openQA's API and its secret.

    Args:
        name: ``api_key`` or ``worker_key``.
        text: the secret's content: key and secret, 16 hexadecimal digits each.

    Raises:
        HostError: it holds something else.
    """
    if len(text) != 32 or not set(text) <= _DIGITS:
        raise HostError(f"secret {name}: not 32 hexadecimal digits in lower case")
    return text[:16], text[16:]


def sign_in_client(text: str) -> dict[str, str]:
    """Returns the ``key`` and the ``secret`` of the OAuth2 client.

    Raises:
        HostError: the secret holds something else.
    """
    try:
        client = json.loads(text)
        found = {"key": client["key"], "secret": client["secret"]}
    except (KeyError, TypeError, ValueError) as error:
        raise HostError('secret sign_in: not a JSON object with "key" and "secret"') from error
    if not all(isinstance(value, str) and value.isprintable() for value in found.values()):
        raise HostError('secret sign_in: "key" and "secret" must be one line of text each')
    return found


def write_private(path: Path, text: str, *, mode: int = 0o600, user: int | None = None) -> None:
    """Replaces a file atomically, even if the power fails; others can never read it meanwhile.

    Args:
        path: the file.
        text: its new content.
        mode: its final permissions.
        user: its owner and group, if this process is root; None: this process's.
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
