"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.addresses import DEVELOPER
from tests.localcloud.deployed import Deployment, deployed

# Tests of a repository that is outside the VPC, beside the sample that comes with the hosts.
CONTENT = f"""\
profile = "sample"
distri = "pushed"
tests = "http://{DEVELOPER}/tests.git"
tests_ref = "main"
loader = "openqa"
templates = ["templates/tables.json", "templates/groups/*.yaml"]
asset_limits = {{ "first" = 3, "pushed" = 7 }}
cloudinit = true
"""
SCHEDULE = (Path(__file__).parent / "schedule.toml").read_text()
CHANGES = {
    'profile = "sample"\n': CONTENT,
    "# No KVM, because few laptops": f"{SCHEDULE}# No KVM, because few laptops",
}


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content", CHANGES) as made:
        yield made
