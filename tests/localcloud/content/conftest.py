"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localcloud.deployed import Deployment, deployed

SCHEDULE = (Path(__file__).parent / "schedule.toml").read_text()
CHANGES = {"# No KVM, because few laptops": f"{SCHEDULE}# No KVM, because few laptops"}


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content", CHANGES) as made:
        yield made
