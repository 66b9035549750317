"""What sets up a machine: the Makefile and the scripts of ``tools/``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_a_registry_out_of_reach_is_told(tmp_path: Path) -> None:
    for name in ("Makefile", "package.json", "package-lock.json"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    options = {"registry": "http://127.0.0.1:1", "cache": str(tmp_path / "cache"), "fetch_retries": "0"}
    done = subprocess.run(
        ["make", "--old-file=.venv/.complete", "node_modules/.complete"],
        cwd=tmp_path,
        env=os.environ | {f"npm_config_{name}": value for name, value in options.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "request to http://127.0.0.1:1/aws-cdk failed" in done.stderr
