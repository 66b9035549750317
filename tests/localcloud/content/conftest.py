"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.localcloud.deployed import Deployment, deployed


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content") as made:
        yield made
