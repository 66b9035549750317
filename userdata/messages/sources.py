"""The files that openQA fetches for a build, and whether they have changed."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from userdata.messages.openqa import UnavailableError

# Parameters by which openQA fetches assets (lib/OpenQA/Utils.pm, asset_type_from_setting and get_url_short).
FETCHED = re.compile(
    r"(ISO(_\d+)?|HDD_\d+|REPO_\d+|ASSET_\d+|UEFI_PFLASH_VARS|KERNEL|INITRD)(_DECOMPRESS)?_URL"
)
_SECONDS = 30.0


class _Mirrors(urllib.request.HTTPRedirectHandler):
    """Uses HEAD for mirrors, too: urllib would fetch the file there."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        made = super().redirect_request(req, *answer)
        if made:
            made.method = req.get_method()
        return made


_opener = urllib.request.build_opener(_Mirrors)


def stamp(parameters: Mapping[str, str]) -> str | None:
    """Identify the versions of a build's files: when each was changed, and how large it is.

    Args:
        parameters: Of ``isos post``.

    Returns:
        The same as long as the files are unchanged; None: a server does not say when its file changed.

    Raises:
        UnavailableError: A server does not answer at the moment, or has no such file.
    """
    found = [_about(url) for name, url in sorted(parameters.items()) if FETCHED.fullmatch(name)]
    return None if None in found else "\n".join(map(str, found))


def _about(url: str) -> str | None:
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # the environment file's address
        with _opener.open(request, timeout=_SECONDS) as answer:
            changed = answer.headers["Last-Modified"] or answer.headers["ETag"]
            return f"{changed} {answer.headers['Content-Length']}" if changed else None
    except HTTPError as error:
        raise UnavailableError(f"HEAD {url}: HTTP {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"HEAD {url}: {error}") from error
