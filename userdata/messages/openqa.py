"""The part of openQA's API for scheduling a build: look for existing jobs, then ``isos post``."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

from userdata.messages.rules import IDENTITY

_SECONDS = 100.0
# openQA makes all jobs of a build before it answers, and shows none until then. As long as nginx waits.
POST_SECONDS = 900.0
_MOST_BYTES = 1 << 26
# openQA, or nginx in front of it, will always refuse this request; other codes are worth another try.
_FINAL = frozenset({400, 404, 405, 409, 413, 414, 422, 431})
# How it refuses, with 403 and in plain text, to fetch assets from a domain that is not allowed:
# lib/OpenQA/Utils.pm, asset_download_error.
_NO_DOWNLOAD = "Asset download requested"


class UnavailableError(Exception):
    """openQA does not answer at the moment; the text is one sentence."""


class FailedError(UnavailableError):
    """openQA itself failed on this request, and may do so each time."""


class RefusedError(Exception):
    """openQA refuses this request for good; the text is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Posted:
    """The outcome of ``isos post``.

    Attributes:
        ids: The jobs.
        failed: What was not scheduled, with openQA's reason.
        error: Why nothing was scheduled: openQA reports its own failures with HTTP 200.
    """

    ids: tuple[int, ...]
    failed: tuple[str, ...]
    error: str = ""


class OpenQa:
    """The API.

    Args:
        url: The web UI's address.
        key: The API key.
        secret: The key's secret.
    """

    def __init__(self, *, url: str, key: str, secret: str) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._secret = secret

    def job_of(self, parameters: Mapping[str, str]) -> int | None:
        """Return a job, in whatever state, of the build that parameters of ``isos post`` name.

        Returns:
            Its number; None: the build has none.

        Raises:
            UnavailableError: openQA does not answer at the moment.
            RefusedError: It refuses for good.
        """
        query = {name.lower(): parameters[name] for name in IDENTITY}
        # Jobs have it in lower case, whatever was posted (lib/OpenQA/JobSettings.pm).
        query["distri"] = query["distri"].lower()
        query["limit"] = "1"  # a build can have thousands
        answer = self._request("GET", f"/api/v1/jobs?{urlencode(query)}")
        try:
            return next((int(job["id"]) for job in answer["jobs"]), None)
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"GET /api/v1/jobs: the answer lists no jobs: {error!r}") from error

    def post(self, parameters: Mapping[str, str]) -> Posted:
        """Schedule a build.

        Raises:
            UnavailableError: openQA does not answer at the moment.
            RefusedError: It refuses for good.
        """
        try:
            answer = self._request(
                "POST", "/api/v1/isos", urlencode(parameters).encode(), seconds=POST_SECONDS
            )
        except FailedError as error:  # treated like most of openQA's own failures, which come with HTTP 200
            return Posted(ids=(), failed=(), error=str(error))
        return posted(answer)

    def _request(
        self, method: str, path: str, data: bytes | None = None, *, seconds: float = _SECONDS
    ) -> Any:
        request = urllib.request.Request(f"{self._url}{path}", method=method, data=data)  # noqa: S310
        for name, value in self._signature(request.full_url).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310  # settings: HTTP
                found = json.loads(answer.read(_MOST_BYTES))
        except HTTPError as error:
            said = _reason(error)
            reason = f"{method} {urlsplit(path).path}: HTTP {error.code} {said}".rstrip()
            if error.code in _FINAL or _NO_DOWNLOAD in said:
                raise RefusedError(reason) from error
            raise (FailedError if error.code == 500 else UnavailableError)(reason) from error
        except (OSError, HTTPException, ValueError) as error:
            raise UnavailableError(f"{method} {urlsplit(path).path}: {error}") from error
        if not isinstance(found, dict):
            raise UnavailableError(f"{method} {urlsplit(path).path}: the answer is not a JSON object")
        return found

    def _signature(self, url: str) -> dict[str, str]:
        """Sign as lib/OpenQA/UserAgent.pm does: HMAC-SHA1 over path, query and time."""
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        now = f"{time.time():.6f}"
        digest = hmac.new(self._secret.encode(), f"{target}{now}".encode(), hashlib.sha1).hexdigest()
        return {
            "Accept": "application/json",
            "X-API-Key": self._key,
            "X-API-Microtime": now,
            "X-API-Hash": digest,
        }


def posted(answer: Mapping[str, Any]) -> Posted:
    """Read openQA's answer to ``isos post``."""
    return Posted(
        ids=tuple(sorted(map(int, answer.get("ids", ())))),
        failed=tuple(_failure(failure) for failure in answer.get("failed", ())),
        error=str(answer.get("error") or ""),
    )


def _failure(failure: object) -> str:
    if not isinstance(failure, dict):
        return str(failure)
    reasons = failure.get("error_messages") or failure.get("error_message") or "no reason given"
    said = "; ".join(map(str, reasons)) if isinstance(reasons, list) else str(reasons)
    job = failure.get("job_name") or (f"job {failure['job_id']}" if "job_id" in failure else "")
    return f"{job}: {said}" if job else said


def _reason(error: HTTPError) -> str:
    """openQA's own explanation, if there is one."""
    try:
        text = error.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, HTTPException):
        return ""
    try:
        return f"({json.loads(text)['error']})"
    except (ValueError, KeyError, TypeError):
        return f"({text.strip()})" if text.startswith(_NO_DOWNLOAD) else ""
