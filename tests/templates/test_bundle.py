"""The archive that every instance fetches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from images import bundle


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two files."""
    for name in ("userdata/boot.sh", "fleet/agent.py"):
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    (tmp_path / "project/userdata/boot.sh").chmod(0o744)
    monkeypatch.setattr(bundle, "_PROJECT", tmp_path / "project")
    return tmp_path / "project"


def test_holds_what_runs_on_instances(tmp_path: Path, project: Path) -> None:
    for name in ("__pycache__/agent.pyc", "simulate/world.py", "workload/fedora.json", "catalogue.toml"):
        (project / "fleet" / name).parent.mkdir(exist_ok=True)
        (project / "fleet" / name).write_text("")
    (project / "app.py").write_text("")
    made = bundle.write_bundle(tmp_path)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    with tarfile.open(made.path) as archive:
        entries = {entry.name: entry for entry in archive}
    assert list(entries) == ["userdata/boot.sh", "fleet/agent.py"]
    assert entries["userdata/boot.sh"].mode == 0o755
    assert entries["fleet/agent.py"].mode == 0o644
    assert {entry.uid for entry in entries.values()} == {0}


def test_needs_nothing_that_it_does_not_hold(tmp_path: Path) -> None:
    """The controller imports all that the policy does, the host program all roles."""
    made = bundle.write_bundle(tmp_path)
    (tmp_path / "host").mkdir()
    # Debian 12's tarfile has no filters.
    subprocess.run(["tar", "--extract", f"--file={made.path}", f"--directory={tmp_path}/host"], check=True)
    for module in ("fleet.controller", "fleet.agent", "fleet.turnstile", "userdata.host.__main__"):
        run = subprocess.run(
            [sys.executable, "-c", f"import {module} as it; print(it.__file__)"],
            cwd=tmp_path / "host",
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.stderr == ""
        assert run.stdout.startswith(str(tmp_path / "host"))


def test_depends_on_content_alone(tmp_path: Path, project: Path) -> None:
    first = bundle.write_bundle(tmp_path)
    os.utime(project / "userdata/boot.sh", (1, 1))
    assert bundle.write_bundle(tmp_path) == first
    (project / "userdata/boot.sh").write_text("other")
    assert bundle.write_bundle(tmp_path).sha256 != first.sha256
