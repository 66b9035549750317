"""A message archive such as Fedora's datagrepper: what was published while nobody listened.

Parameters and answer are those of its ``/v2/search`` (https://apps.fedoraproject.org/datagrepper): ``start``,
``end`` (seconds since the epoch), ``topic``, ``order``, ``page`` and ``rows_per_page``; ``raw_messages`` and
``pages``.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

ROWS = 100
_SECONDS = 60.0
_MOST_PAGES = 1000
_MOST_BYTES = 1 << 26


class ArchiveError(Exception):
    """The archive does not answer, or not as it should; the text is one sentence."""


def read(url: str, *, topics: Sequence[str], start: float, end: float) -> Iterator[dict[str, Any]]:
    """Yield the archive's messages of a time span, the oldest first.

    Args:
        url: The archive's search address.
        topics: AMQP topic patterns. The archive knows no wildcards: with any, it is asked for all topics.
        start: Seconds since the epoch.
        end: Seconds since the epoch.

    Yields:
        Messages as the archive has them: ``id``, ``topic``, ``body``.

    Raises:
        ArchiveError: It does not answer, or not as it should.
    """
    exact = [] if any(set("*#") & set(topic) for topic in topics) else topics
    query = [("start", f"{start:.0f}"), ("end", f"{end:.0f}"), ("order", "asc"), ("rows_per_page", str(ROWS))]
    query += [("topic", topic) for topic in exact]
    for page in range(1, _MOST_PAGES + 1):
        answer = _get(f"{url}?{urlencode([*query, ('page', str(page))])}")
        try:
            found, pages = list(answer["raw_messages"]), int(answer["pages"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArchiveError(f"{url} does not answer like an archive: {error!r}") from error
        yield from (message for message in found if isinstance(message, dict))
        if page >= pages:
            return
    raise ArchiveError(f"{url} has more than {_MOST_PAGES} pages for one query")


def _get(url: str) -> Any:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310  # settings: HTTP
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return json.loads(answer.read(_MOST_BYTES))
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise ArchiveError(f"the archive does not answer: {error}") from error
