"""``app.py`` as the CDK CLI runs it: what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import settings
from tests.templates.synthesis import ROOT, Synthesized


def run(cwd: Path, tmp_path: Path, **context: str) -> subprocess.CompletedProcess[str]:
    """Runs the app with a context, without network, credentials or validation."""
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "CDK_CONTEXT_JSON": json.dumps({**flags, **context}),
        "CDK_OUTDIR": str(tmp_path / "out"),
        "CDK_VALIDATION": "false",
    }
    return subprocess.run(
        [sys.executable, "app.py"], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_writes_what_the_tests_look_at(tmp_path: Path, local: Synthesized) -> None:
    done = run(ROOT, tmp_path, env="local")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for part, template in local.templates.items():
        assert json.loads((tmp_path / "out" / f"openqa-local-{part}.template.json").read_text()) == template


@pytest.mark.parametrize("taken", ["bundle-*", "cdk.out"])
def test_what_cannot_be_written_is_one_line(tmp_path: Path, taken: str) -> None:
    """What Python writes, and what the CDK does: folders are in the way."""
    run(ROOT, tmp_path, env="local")
    (file,) = (tmp_path / "out").glob(taken)
    file.unlink()
    file.mkdir()
    done = run(ROOT, tmp_path, env="local")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"The templates cannot be written to {tmp_path / 'out'}: ")


@pytest.mark.parametrize("context", [{}, {"env": "nowhere"}])
def test_without_an_environment_it_lists_those_there_are(tmp_path: Path, context: dict[str, str]) -> None:
    done = run(ROOT, tmp_path, **context)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith(", ".join(settings.names()))


def test_classes_that_no_job_asks_for_are_annotations_and_no_refusal(tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    folder.mkdir()
    local = (ROOT / "environments/local.toml").read_text()
    (folder / "odd.toml").write_text(local.replace('["qemu_x86_64"]', '["qemu_x86_64", "tmp", "temp"]'))
    done = run(ROOT, tmp_path, env="odd", environments=str(folder))
    assert done.returncode == 0
    # Of the app, so that the CLI tells it whichever stacks it is asked for.
    report = json.loads((tmp_path / "out/validation-report.json").read_text())
    found = [finding for plugin in report["pluginReports"] for finding in plugin["violations"]]
    assert [finding["severity"] for finding in found] == ["warning", "warning"]
    for finding, name in zip(found, ("tmp", "temp"), strict=True):
        assert finding["violatingConstructs"] == [{"constructPath": ""}]
        assert finding["description"].startswith(f'odd: fleets.small.classes = "{name}": no job of content ')


def test_a_bad_setting_is_one_line(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "environments", project / "environments")
    shutil.copy(ROOT / "app.py", project)
    shutil.copytree(ROOT / "settings", project / "settings")
    for folder in ("stacks", "constructs", "images", "fleet", "userdata"):
        (project / folder).symlink_to(ROOT / folder)
    file = project / "environments" / "local.toml"
    file.write_text(file.read_text().replace('kind = "local"', 'kind = "lokal"'))
    done = run(project, tmp_path, env="local")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('environments/local.toml: kind = "lokal"')
    assert "Traceback" not in done.stdout + done.stderr


def test_the_cli_is_pinned() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]["aws-cdk"]
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]["node_modules/aws-cdk"]
    # Version 3.0.0 was published by accident, and cannot read what today's library writes.
    assert wanted == locked["version"] == "2.1148.1"


def test_the_cli_tells_its_own_faults_and_reports_nothing() -> None:
    chosen = json.loads((ROOT / "cdk.json").read_text())
    assert chosen.get("notices", True) is True
    assert chosen["versionReporting"] is False


def test_constructs_stays_a_namespace() -> None:
    # The library of that name extends its own package with this folder; a regular package would hide it.
    assert not (ROOT / "constructs" / "__init__.py").exists()
