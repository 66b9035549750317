"""A database host for the backups' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.bare_host import BareHost, image_archive, running, unpack
from tests.prerequisites import missing


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the database's container image."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("a database host needs root and /dev/fuse")
    archive = image_archive()
    if not archive.exists():
        missing("the database's image is not built: python -m images archive database")
    root = tmp_path_factory.mktemp("image")
    unpack(archive, root)
    return root


@pytest.fixture(scope="module")
def host(image: Path) -> Iterator[BareHost]:
    """A database host with an empty bucket."""
    with running(image) as made:
        yield made
