"""The certificates of the CAs that sign RDS's server certificates."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from userdata.host.errors import HostError
from userdata.host.secrets import write_private

_SECONDS = 20


def url(region: str) -> str:
    """Returns where AWS publishes them: its RDS guide, "Using SSL/TLS to encrypt a connection"."""
    return f"https://truststore.pki.rds.amazonaws.com/{region}/{region}-bundle.pem"


def certificates(region: str, *, kept: Path) -> str:
    """Fetches the region's certificates, and keeps them in case they cannot be fetched some day.

    The connection is verified like any to a public site: Amazon's name, signed by a CA the system trusts.

    Args:
        region: the AWS region.
        kept: where they are kept.

    Raises:
        HostError: they cannot be fetched and never were, or are not certificates.
    """
    try:
        with urllib.request.urlopen(url(region), timeout=_SECONDS) as answer:  # noqa: S310  # https
            text: str = answer.read().decode("ascii")
    except (OSError, HTTPException, ValueError) as error:
        if kept.exists():
            return kept.read_text(encoding="ascii")
        raise HostError(f"{url(region)}: {getattr(error, 'reason', error)}") from error
    check(text, url(region))
    write_private(kept, text, mode=0o644)
    return text


def check(text: str, source: str) -> None:
    """Refuses a text that is not a list of certificates.

    Raises:
        HostError: it is not.
    """
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise HostError(f"{source}: holds no certificates") from error
