"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator

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
CHANGES = {
    "cache_gib = 2\n": """\
cache_gib = 2

[[builders]]
architecture = "x86_64"
instance_types = ["t3.medium"]
virtualization = "none"
program = "sample"
volume_gib = 4
"""
}


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content", CHANGES) as made:
        yield made
