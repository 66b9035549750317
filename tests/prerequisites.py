"""What tests need of the machine: where it is missing they are skipped with the reason; in CI they fail."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from localcloud import prerequisites


def missing(reason: str) -> NoReturn:
    """Skips the calling test, or fails it in CI, where nothing may be missing.

    Args:
        reason: What the machine lacks.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, which continuous integration must have")
    pytest.skip(reason)


def require_machine() -> None:
    """Sees to it that a local cloud can run here."""
    if reason := prerequisites.missing():
        missing(reason)
