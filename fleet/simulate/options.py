"""Types of command-line arguments for argparse: each error says what is allowed."""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)

# Together they make more than a million jobs, as many as fit into the memory of a small machine.
MOST_DAYS = 92
MOST_LOAD = 10


def whole(least: int, most: int) -> Callable[[str], int]:
    """Make the type of whole numbers in a range.

    Args:
        least: The smallest that is allowed.
        most: The largest.
    """
    return _in_range(int, "whole number", least, most)


def number(least: float, most: float) -> Callable[[str], float]:
    """Make the type of numbers in a range.

    Args:
        least: The smallest that is allowed.
        most: The largest.
    """
    return _in_range(float, "number", least, most)


def _in_range(
    kind: Callable[[str], Number], what: str, least: Number, most: Number
) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise ArgumentTypeError(f"{text!r} is not a {what} from {least} to {most}")
        return value

    return read


def seed(text: str) -> int:
    """Read the seed of a run's random numbers."""
    return whole(1, 10**9)(text)


def file(text: str) -> Path:
    """Read where to write a file, and check before a long run that it can be written."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{text!r} is a folder; allowed is a file")
    if not path.exists():
        folder(str(path.parent))
    elif not os.access(path, os.W_OK):
        raise ArgumentTypeError(f"{text!r} is not writable; allowed is a file that is")
    return path


def folder(text: str) -> Path:
    """Read where to write files, and check before a long run that they can be written."""
    path = Path(text)
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise ArgumentTypeError(f"{text!r} is not a folder in which files may be written")
    return path
