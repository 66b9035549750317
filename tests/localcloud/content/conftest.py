"""One deployment for all that has to do with content: tests and needles, schedules, disk images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.addresses import DEVELOPER
from settings import Builder
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
worker_packages = ["libtext-csv-perl"]
"""
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
    'profile = "sample"\n': CONTENT,
    "# No KVM, because few laptops": f"{SCHEDULE}# No KVM, because few laptops",
    "cache_gib = 2\n": BUILDERS,
}


@pytest.fixture(scope="package")
def content() -> Iterator[Deployment]:
    with deployed("content", CHANGES) as made:
        yield made
