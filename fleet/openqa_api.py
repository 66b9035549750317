"""What openQA tells about its queue and its workers, page by page, believed only where it makes sense.

The routes are openQA's public REST API (``lib/OpenQA/WebAPI/Controller/API/V1/{Job,Worker}.pm``).
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

from fleet.openqa_scheduler import Classes

PAGE = 1000  # jobs; openQA answers in seconds
MOST = 200_000  # rows; more are no queue
WORKERS = 10_000  # openQA gives no more at a time: generic_max_limit of roles/webui/config/openqa.ini.j2
SECONDS = 60.0  # for one reading of all pages
_SILENCE = 15.0  # seconds without a byte
_CHUNK = 1 << 16
_MOST_BYTES = 1 << 28

ACTIVE = ("assigned", "setup", "running", "uploading")
_LIVING = ",".join(("scheduled", *ACTIVE))
_STATES = ("scheduled", *ACTIVE, "done")
_RESERVED = "reserved"  # idle, and kept from all jobs but those of a person: newer versions of openQA
_STATUSES = ("dead", "broken", "running", "idle", _RESERVED)
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")
# Results of jobs that took their usual time.
_ENDED = "passed,softfailed,failed"


class OpenQaError(Exception):
    """openQA does not answer, or not as it should; the message is one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedJob:
    """A job as openQA lists it.

    Attributes:
        id: Its id.
        scheduled: It has no worker yet.
        priority: Lower numbers go first.
        classes: What its worker must offer.
        kind: What jobs that take equally long have in common: test, flavor, machine and architecture.
        parallel: Ids of parents and children in its parallel cluster.
        parents: Ids of jobs that it runs after.
        blocked_by: A job that it waits for, as openQA sees it.
        worker: The id of the worker that has it.
        started: Seconds since the epoch.
        finished: Seconds since the epoch.
    """

    id: int
    scheduled: bool
    priority: int
    classes: Classes
    kind: tuple[str, ...]
    parallel: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    blocked_by: int | None = None
    worker: int | None = None
    started: float | None = None
    finished: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedWorker:
    """A worker as openQA lists it.

    Attributes:
        id: Its id.
        instance: Its host's instance id, which is among its classes: see ``workers.ini.j2``.
        number: Its number on its host, from 1.
        connected: openQA heard of it lately, and it has a job or is fit for one.
        broken: openQA heard of it lately, or it has just gone, and it is not fit for a job.
        job: The job that it has. One that somebody reserved is as busy: it has a negative number, no job's.
    """

    id: int
    instance: str | None
    number: int
    connected: bool
    broken: bool = False
    job: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """All jobs that are not done, and all workers.

    Attributes:
        at: When the reading began, seconds since the epoch.
        jobs: The jobs.
        workers: The workers, dead ones included.
    """

    at: float
    jobs: tuple[ListedJob, ...]
    workers: tuple[ListedWorker, ...]


class OpenQaApi:
    """openQA's API, without a key.

    Args:
        url: The web UI's address.
        seconds: What one reading may take in all.
        page: Jobs asked for at a time.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        seconds: float = SECONDS,
        page: int = PAGE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._seconds = seconds
        self._page = page
        self._clock = clock
        # No proxy, whatever the environment says: the web UI is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self) -> Queue:
        """Read the queue and the workers.

        Raises:
            OpenQaError: openQA does not answer in time, or its answer makes no sense.
        """
        at, deadline = self._clock(), time.monotonic() + self._seconds
        jobs: dict[int, ListedJob] = {}
        before: int | None = None
        while True:
            page = self._jobs({"state": _LIVING}, before=before, deadline=deadline)
            jobs |= {job.id: job for job in page}
            if len(page) < self._page:
                break
            oldest = min(job.id for job in page)
            if (before is not None and oldest >= before) or len(jobs) > MOST:
                raise OpenQaError("openQA's list of jobs does not end.")
            before = oldest
        # All at once: openQA lists workers in no order, so that pages may miss some.
        rows = self._rows("workers", {"limit": WORKERS}, deadline)
        if len(rows) >= WORKERS:
            raise OpenQaError("openQA's list of workers does not end.")
        return Queue(at=at, jobs=tuple(jobs.values()), workers=tuple(map(parse_worker, rows)))

    def finished(self) -> tuple[ListedJob, ...]:
        """Read the jobs that ended last, a page of them: what jobs usually take is learned from them.

        Raises:
            OpenQaError: As of `read`.
        """
        deadline = time.monotonic() + self._seconds
        return self._jobs({"state": "done", "result": _ENDED}, before=None, deadline=deadline)

    def _jobs(
        self, query: Mapping[str, object], *, before: int | None, deadline: float
    ) -> tuple[ListedJob, ...]:
        # By id and not by offset: jobs that start and end between two pages shift offsets.
        limits = {"limit": self._page} | ({} if before is None else {"before": before})
        return tuple(map(parse_job, self._rows("jobs", {**query, **limits}, deadline)))

    def _rows(self, what: str, query: Mapping[str, object], deadline: float) -> list[Any]:
        answer = self._get(f"{self._url}/api/v1/{what}?{urlencode(query)}", deadline)
        rows = answer.get(what) if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise OpenQaError(f"openQA's list of {what} is none.")
        return rows

    def _get(self, url: str, deadline: float) -> Any:
        try:
            with self._opener.open(url, timeout=_SILENCE) as response:
                body = bytearray()
                # Of what has arrived: a server that sends a byte now and then must not hold us for ever.
                while chunk := response.read1(_CHUNK):
                    body += chunk
                    if time.monotonic() > deadline:
                        raise OpenQaError(f"openQA took more than {self._seconds:.0f} s to answer.")
                    if len(body) > _MOST_BYTES:
                        raise OpenQaError("openQA's answer does not end.")
            return json.loads(body)
        except (OSError, HTTPException) as error:
            raise OpenQaError(f"openQA does not answer: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise OpenQaError(f"openQA's answer is not JSON: {error}.") from error


def parse_job(row: Any) -> ListedJob:
    """Read one entry of openQA's list of jobs.

    Raises:
        OpenQaError: It makes no sense.
    """
    try:
        settings, parents, children = row["settings"], row["parents"], row["children"]
        if row["state"] not in _STATES:
            raise ValueError(f"{row['state']!r} is no state")
        return ListedJob(
            id=_number(row["id"]),
            scheduled=row["state"] == "scheduled",
            priority=_integer(row["priority"]),
            classes=_classes(settings),
            kind=tuple(str(settings.get(key, "")) for key in ("TEST", "FLAVOR", "MACHINE", "ARCH")),
            parallel=(*_numbers(parents, "Parallel"), *_numbers(children, "Parallel")),
            parents=(*_numbers(parents, "Chained"), *_numbers(parents, "Directly chained")),
            blocked_by=_optional(row.get("blocked_by_id")),
            worker=_optional(row.get("assigned_worker_id")),
            started=_moment(row.get("t_started")),
            finished=_moment(row.get("t_finished")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OpenQaError(f"A job in openQA's list makes no sense: {error!r}.") from error


def parse_worker(row: Any) -> ListedWorker:
    """Read one entry of openQA's list of workers.

    Raises:
        OpenQaError: It makes no sense.
    """
    try:
        if row["status"] not in _STATUSES:
            raise ValueError(f"{row['status']!r} is no status")
        id = _number(row["id"])
        job = -id if row["status"] == _RESERVED else _optional(row.get("jobid"))
        return ListedWorker(
            id=id,
            instance=_instance(row["properties"].get("WORKER_CLASS", "")),
            number=_number(row["instance"]),
            connected=row["status"] in ("idle", "running", _RESERVED)
            or (row["status"] == "broken" and job is not None),
            broken=row["status"] == "broken" and job is None,
            job=job,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OpenQaError(f"A worker in openQA's list makes no sense: {error!r}.") from error


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no number")
    return value


def _number(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError(f"{value!r} is negative")
    return int(value)


def _optional(value: Any) -> int | None:
    return None if value is None else _number(value)


def _numbers(dependencies: Mapping[str, Any], kind: str) -> tuple[int, ...]:
    return tuple(map(_number, dependencies.get(kind, [])))


def _classes(settings: Mapping[str, Any]) -> Classes:
    # openQA's own default: lib/OpenQA/Schema/ResultSet/Jobs.pm.
    text = settings.get("WORKER_CLASS") or f"qemu_{settings.get('ARCH') or 'x86_64'}"
    # As openQA splits and compares them: a class with a blank is another.
    return frozenset(text.split(","))


def _instance(classes: str) -> str | None:
    return next((name for name in classes.split(",") if _INSTANCE.fullmatch(name)), None)


def _moment(text: Any) -> float | None:
    if text is None:
        return None
    # openQA's are in UTC, and do not say so.
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
