"""Plots as SVG, written without a library: small files, and the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from fleet.simulate.world import Sample

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 190, 56, 16, 26, 24
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f")
Line = Sequence[tuple[float, float]]


def over_time(runs: Mapping[str, Sequence[Sample]]) -> str:
    """Draw hosts' slots, busy slots, waiting jobs and dollars an hour over the days, a colour per policy.

    Args:
        runs: For each policy, its samples.

    Returns:
        An SVG document.
    """
    rows: list[tuple[str, Callable[[Sample], float]]] = [
        ("slots that are up", lambda sample: sample.slots),
        ("busy slots", lambda sample: sample.busy),
        ("waiting jobs", lambda sample: sample.waiting),
        ("dollars an hour", lambda sample: sample.rate),
    ]
    panels = [
        _panel(
            title, {n: [(s.time / 86400, get(s)) for s in samples] for n, samples in runs.items()}, y * HEIGHT
        )
        for y, (title, get) in enumerate(rows)
    ]
    return _document("".join(panels), len(rows) * HEIGHT, list(runs), "days, from Monday 00:00 UTC")


def cost_against_wait(points: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Draw what policies cost against how long their jobs wait.

    Args:
        points: For each policy: 95th percentile of the wait in minutes, cost over the floor.

    Returns:
        An SVG document.
    """
    height = 2 * HEIGHT
    everything = [point for group in points.values() for point in group]
    wide = max(x for x, _ in everything) * 1.05 or 1.0
    high = max(y for _, y in everything) * 1.05
    marks = []
    for number, group in enumerate(points.values()):
        for x, y in group:
            cx = LEFT + x / wide * (WIDTH - LEFT - RIGHT)
            cy = TOP + (1 - y / high) * (height - TOP - BOTTOM)
            marks.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{_colour(number)}" fill-opacity="0.7"/>'
            )
    frame = _axes("cost over the floor", wide, high, 0, height)
    return _document(frame + "".join(marks), height, list(points), "95th percentile of the wait, minutes")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _panel(title: str, lines: Mapping[str, Line], top: float) -> str:
    wide = max((x for line in lines.values() for x, _ in line), default=1.0) or 1.0
    high = max((y for line in lines.values() for _, y in line), default=1.0) * 1.05 or 1.0
    drawn = []
    for number, line in enumerate(lines.values()):
        path = " ".join(
            f"{LEFT + x / wide * (WIDTH - LEFT - RIGHT):.1f},"
            f"{top + TOP + (1 - y / high) * (HEIGHT - TOP - BOTTOM):.1f}"
            for x, y in line
        )
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{_colour(number)}" stroke-width="1.2"/>')
    return _axes(title, wide, high, top, HEIGHT) + "".join(drawn)


def _axes(title: str, wide: float, high: float, top: float, height: float) -> str:
    bottom = top + height - BOTTOM
    parts = [f'<text x="{LEFT}" y="{top + 16:.0f}" font-weight="bold">{escape(title)}</text>']
    for share in (0, 0.5, 1):
        y = bottom - share * (height - TOP - BOTTOM)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * high:.3g}</text>')
    for step in range(5):
        x = LEFT + step / 4 * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 14:.1f}" text-anchor="middle">{step / 4 * wide:.3g}</text>'
        )
    return "".join(parts)


def _document(body: str, height: float, names: Sequence[str], below: str) -> str:
    legend = "".join(
        f'<rect x="{LEFT + 150 * n}" y="{height + 12}" width="12" height="12" fill="{_colour(n)}"/>'
        f'<text x="{LEFT + 150 * n + 18}" y="{height + 22}">{escape(name)}</text>'
        for n, name in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 34}" '
        f'font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}{legend}'
        f'<text x="{WIDTH - RIGHT}" y="{height + 22}" text-anchor="end">{escape(below)}</text></svg>\n'
    )
