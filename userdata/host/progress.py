"""The output of a long command, kept so that it can be followed from elsewhere.

Systems Manager shows a command's output only once it has ended; so another command asks for this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from userdata.host.layout import Layout

Report = Callable[[str], None]


@contextmanager
def kept(layout: Layout, name: str | None, *, say: Report) -> Iterator[Report]:
    """Gives a report function that keeps each line and passes it on.

    Args:
        layout: where things are.
        name: identifies this run; None: nobody will ask.
        say: takes each line, too.
    """
    if name is None:
        yield say
        return
    path = _file(layout, name)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as file:

        def report(line: str) -> None:
            print(line, file=file)
            say(line)

        yield report


def after(layout: Layout, name: str, count: int) -> list[str]:
    """Returns a run's lines after the first ``count``; none if it has not begun."""
    try:
        lines = _file(layout, name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return lines[count:]


def _file(layout: Layout, name: str) -> Path:
    return layout.runtime / "progress" / name
