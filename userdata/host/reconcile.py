"""Bringing openQA in line with a restored database: the current key, and jobs that match the files left.

It may be run any number of times: what is in order stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from userdata.host import interrupted, ready, restart
from userdata.host.content.repository import ADMINISTRATOR, inside
from userdata.host.content.templates import HOST
from userdata.host.errors import HostError
from userdata.host.host import Host
from userdata.host.openqa_database import rows, sql
from userdata.host.progress import Report

# What openQA shows next to the result. Jobs whose reason begins like this have been handled.
NO_RESULTS = "restore: its results are lost"
NO_ASSETS = "restore: assets are lost"


def reconcile(host: Host, report: Report = print) -> None:
    """Starts openQA with the restored database and puts its jobs in order.

    Raises:
        HostError: openQA does not start, or refuses.
    """
    restart.restart(host, report)
    openqa = host.layout.data / "openqa"
    report(f"{_without_files(openqa / 'share/factory')} assets are lost")
    report(f"{_interrupted()} jobs that ran are scheduled again")
    report(f"{_without_assets()} jobs cannot run: their assets are lost")
    report(f"{_without_results(openqa)} finished jobs have lost their results")


def lost_assets(rows: Iterable[Sequence[str]], factory: Path) -> list[int]:
    """Returns the IDs of assets whose files are gone.

    Args:
        rows: type, name and ID of each asset.
        factory: the folder of all assets.
    """
    return [
        int(id)
        for kind, name, id in rows
        if not any((factory / kind / place / name).exists() for place in ("", "fixed"))
    ]


def lost_results(rows: Iterable[Sequence[str]], openqa: Path) -> list[int]:
    """Returns the IDs of jobs whose result folders are gone.

    Args:
        rows: for each job that ever had a folder: ID, folder, and whether it is archived (``t``).
        openqa: openQA's folder.
    """
    roots = {"f": openqa / "testresults", "t": openqa / "archive/testresults"}
    return [
        int(id)
        for id, folder, archived in rows
        if not (roots[archived] / f"{int(id) // 1000:05d}" / folder).is_dir()
    ]


def _without_files(factory: Path) -> int:
    """Removes the sizes of assets that are gone, so that openQA looks for the file whenever it needs one."""
    if gone := lost_assets(rows("select type, name, id from assets where size is not null"), factory):
        sql(f"update assets set size = null where id in ({_list(gone)})")  # noqa: S608  # numbers
    return len(gone)


def _interrupted() -> int:
    """Ends the jobs that ran, as openQA does for a dead worker, and restarts them."""
    marked = f"reason = '{interrupted.REASON}'"
    # Jobs that openQA itself has scheduled again run from the beginning.
    sql(f"update jobs set reason = null where {marked} and state = 'scheduled'")  # noqa: S608
    for job in _ids(f"select id from jobs where {interrupted.UNFINISHED} order by id"):  # noqa: S608
        _api("POST", f"jobs/{job}/set_done", result="incomplete", reason=interrupted.REASON)
    # Jobs whose workers were quicker. openQA's API cannot change a result.
    sql(
        "update jobs set result = 'incomplete', t_updated = now() "  # noqa: S608
        f"where {marked} and state = 'done' and result in ('passed', 'softfailed', 'failed')"
    )
    # Also those that an earlier attempt ended but did not restart, or that lacked an asset then.
    ended = _ids(
        f"select id from jobs where {marked} and state = 'done' and clone_id is null order by id"  # noqa: S608
    )
    return sum(bool(_api("POST", f"jobs/{job}/restart").get("result")) for job in ended)


def _without_assets() -> int:
    """Ends the scheduled jobs whose assets are gone; openQA itself decides what a job needs."""
    count = 0
    # A job that waits for another may still get its assets from that one.
    for job in _ids("select id from jobs where state = 'scheduled' and blocked_by_id is null order by id"):
        answer = json.loads(ready.get(f"http://127.0.0.1/api/v1/jobs/{job}?check_assets=1"))
        missing = answer["job"].get("missing_assets") or []
        if missing:
            reason = f"{NO_ASSETS}: {', '.join(missing)}"
            _api("POST", f"jobs/{job}/set_done", result="incomplete", reason=reason)
            count += 1
    return count


def _without_results(openqa: Path) -> int:
    """Marks the finished jobs whose results are gone. openQA's API cannot change a result."""
    finished = rows(
        "select id, result_dir, archived from jobs where state = 'done' and result_dir is not null "
        "and coalesce(reason, '') not like 'restore: %' order by id"
    )
    if gone := lost_results(finished, openqa):
        sql(
            "update jobs set result = 'incomplete', t_updated = now(), "  # noqa: S608  # numbers
            f"reason = '{NO_RESULTS} (it was ' || result || coalesce(': ' || reason, '') || ')' "
            f"where id in ({_list(gone)})"
        )
    return len(gone)


def _api(method: str, path: str, **parameters: str) -> Mapping[str, Any]:
    words = [f"{name}={value}" for name, value in parameters.items()]
    # The key is in client.conf, so that no command line shows it.
    command = ("openqa-cli", "api", f"--host={HOST}", f"--method={method}", path, *words)
    answer = inside(*command, user=ADMINISTRATOR, folder="/", seconds=120)
    try:
        found: Mapping[str, Any] = json.loads(answer)
    except ValueError as error:
        raise HostError(f"openQA's answer to {method} {path} is not JSON: {answer[:200]!r}") from error
    return found


def _ids(query: str) -> list[int]:
    return [int(row[0]) for row in rows(query)]


def _list(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))
