"""A database host for the backups' tests."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import cache, recipe
from tests.backup.bare_host import BareHost, prepare
from tests.prerequisites import missing


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the database's container image."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        missing("a database host needs root and /dev/fuse")
    name = recipe.archive_name("database", "debian", platform.machine())
    archive = cache.root() / "images" / f"debian-{platform.machine()}" / name
    if not archive.exists():
        missing("the database's image is not built: python -m images archive database")
    folder, root = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("image")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    blobs = folder / "blobs/sha256"

    def blob(digest: str) -> Path:
        return blobs / digest.removeprefix("sha256:")

    index = json.loads((folder / "index.json").read_text())
    for layer in json.loads(blob(index["manifests"][0]["digest"]).read_text())["layers"]:
        subprocess.run(
            ["tar", "--extract", f"--file={blob(layer['digest'])}", f"--directory={root}"], check=True
        )
    return root


@pytest.fixture(scope="module")
def host(image: Path) -> Iterator[BareHost]:
    """A database host with an empty bucket."""
    with subprocess.Popen(
        [
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sleep", "infinity"),
        ]
    ) as keeper:
        aws = None
        try:
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children")
            while not (first := children.read_text().split()):
                time.sleep(0.05)
            made = BareHost(pid=int(first[0]), image=image)
            aws = prepare(made)
            yield made
        finally:
            keeper.kill()
            if aws is not None:
                aws.wait()
