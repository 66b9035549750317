"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import Builder
from tests.localcloud.deployed import Deployment, deployed

BUILDER = Builder(
    architecture="x86_64",
    instance_types=("t3.medium",),
    virtualization="none",
    program="sample",
    volume_gib=4,
)
BUILDERS = """\
cache_gib = 2

[[builders]]
architecture = "x86_64"
instance_types = ["t3.medium"]
virtualization = "none"
program = "sample"
volume_gib = 4
"""
SCHEDULE = (Path(__file__).parent / "schedule.toml").read_text()
CHANGES = {
    "# No KVM, because few laptops": f"{SCHEDULE}# No KVM, because few laptops",
    "cache_gib = 2\n": BUILDERS,
}


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content", CHANGES) as made:
        yield made
