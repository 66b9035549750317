"""What a test does when the machine lacks something: skip with the reason, or fail in CI."""

from __future__ import annotations

import os

import pytest

from localcloud import prerequisites


def require(missing: str | None) -> None:
    """Skips the calling test or fixture if something is missing; in CI that is a failure.

    Args:
        missing: why the test cannot run here; None if it can.
    """
    if missing is None:
        return
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def require_machine() -> None:
    """Skips the calling test or fixture, or fails it in CI, where no local cloud can run."""
    require(prerequisites.missing())
