"""Days of the week as operators write them: ``mon``, or from one to another, ``fri-mon``."""

from __future__ import annotations

import re

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(DAYS)
PATTERN = rf"(?P<first>{_DAY})(-(?P<last>{_DAY}))?"


def days(found: re.Match[str]) -> frozenset[int]:
    """Return the days of what matched a pattern with `PATTERN` in it, 0 for Monday."""
    first = DAYS.index(found["first"])
    last = DAYS.index(found["last"] or found["first"])
    return frozenset((first + i) % 7 for i in range((last - first) % 7 + 1))
