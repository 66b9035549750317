"""The user data, run for real with its paths moved into a folder and its dangerous programs replaced."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.userdata import machine

BOOT = machine.REPOSITORY / "userdata/boot.sh"
BOOTSTRAP = machine.REPOSITORY / "userdata/bootstrap.sh"
# EC2 takes 16 KB of user data before base64: its user guide, "Run commands when you launch an EC2 instance".
LIMIT = 16 * 1024


def user_data(document: str, **values: str) -> str:
    """The boot script with its tokens replaced, as the launch template has it."""
    text = BOOT.read_text()
    for token, value in {"DOCUMENT": document, "REGION": machine.REGION, **values}.items():
        assert f"@@{token}@@" in text
        text = text.replace(f"@@{token}@@", value)
    assert "@@" not in text
    return text


@dataclass
class Folder:
    """A machine that is a folder."""

    root: Path

    def program(self, name: str, script: str) -> None:
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def boot(self, text: str) -> subprocess.CompletedProcess[str]:
        for folder in ("/opt/openqa-on-aws", "/var/lib/openqa-on-aws", "/etc/openqa-on-aws", "/dev/console"):
            text = text.replace(folder, f"{self.root}{folder}")
        environment = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-s"], input=text, env=environment, capture_output=True, text=True, check=False
        )

    def ran(self) -> str:
        log = self.root / "log"
        return log.read_text() if log.exists() else ""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A machine whose bundle only tells that it was reached."""
    made = Folder(tmp_path)
    (tmp_path / "dev").mkdir()
    made.program("systemctl", f'echo "systemctl $*" >>{tmp_path}/log')
    # Stands in for the download with boto3, and for the check that it is there.
    made.program("python3", f'[[ $1 == - ]] || exit 0; cat >/dev/null; exec cp {tmp_path}/bundle.tar.gz "$2"')
    script = tmp_path / "userdata/bootstrap.sh"
    script.parent.mkdir()
    script.write_text(f"echo bootstrap >>{tmp_path}/log\n")
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as archive:
        archive.add(script, "userdata/bootstrap.sh")
    return made


def text_for(
    folder: Folder, *, sha256: str | None = None, document: str = '{"a": "$(false) `false` \'"}'
) -> str:
    good = hashlib.sha256((folder.root / "bundle.tar.gz").read_bytes()).hexdigest()
    return user_data(document, BUNDLE_BUCKET="bucket", BUNDLE_KEY="key", BUNDLE_SHA256=sha256 or good)


def test_first_boot_leaves_the_document_as_it_is_and_hands_over(folder: Folder) -> None:
    done = folder.boot(text_for(folder))
    assert done.returncode == 0, done.stderr
    assert folder.ran() == "bootstrap\n"
    document = json.loads((folder.root / "etc/openqa-on-aws/host.json").read_text())
    assert document == {"a": "$(false) `false` '"}


def test_a_second_first_boot_is_refused_and_harms_nothing(folder: Folder) -> None:
    folder.boot(text_for(folder))
    again = folder.boot(text_for(folder))
    assert again.returncode == 1
    assert "first boot refused" in again.stdout
    assert "first boot refused" in (folder.root / "dev/console").read_text()
    assert folder.ran() == "bootstrap\n", "neither booted again nor powered off"


def test_a_changed_bundle_is_not_run(folder: Folder) -> None:
    done = folder.boot(text_for(folder, sha256="0" * 64))
    assert done.returncode == 1
    assert "checking the bundle's SHA-256" in (folder.root / "dev/console").read_text()
    assert folder.ran() == "systemctl --no-block poweroff\n"


def test_a_failed_download_is_told_and_powers_off(folder: Folder) -> None:
    (folder.root / "bundle.tar.gz").rename(folder.root / "elsewhere")
    text = user_data("{}", BUNDLE_BUCKET="bucket", BUNDLE_KEY="key", BUNDLE_SHA256="0" * 64)
    done = folder.boot(text)
    assert done.returncode == 1
    assert "fetching the bundle s3://bucket/key" in (folder.root / "dev/console").read_text()
    assert folder.ran() == "systemctl --no-block poweroff\n"


def ready_to_hand_over(folder: Folder, *, python: str) -> None:
    """As boot.sh leaves the machine; the host's commands are played by a script."""
    document = folder.root / "etc/openqa-on-aws/host.json"
    document.parent.mkdir(parents=True)
    document.write_text('{"role": "webui"}')
    folder.program("python3", f'[[ $1 != -c ]] || exec {sys.executable} "$@"; {python}')


@pytest.mark.parametrize("failing", ["install", "prepare", "ready"])
def test_bootstrap_reports_what_failed(folder: Folder, failing: str) -> None:
    root = folder.root / "opt/openqa-on-aws"
    (root / "userdata").mkdir(parents=True)
    (folder.root / "var/lib/openqa-on-aws").mkdir(parents=True)
    status = 1 if failing == "install" else 0
    (root / "userdata/install.sh").write_text(f"exit {status}\n")
    ready_to_hand_over(folder, python=f'echo "$3" >>{folder.root}/log; [[ $3 != {failing} ]]')
    done = folder.boot(BOOTSTRAP.read_text())
    assert done.returncode == 1
    log = folder.ran().splitlines()
    stop = "systemctl stop openqa-worker@*.service openqa-worker-plain@*.service"
    assert log[-3:] == [stop, "fail", "systemctl --no-block poweroff"]
    assert "powering off" in (folder.root / "dev/console").read_text()
    assert ("prepare" in log) == (failing != "install")


def test_bootstrap_goes_through_all_steps(folder: Folder) -> None:
    root = folder.root / "opt/openqa-on-aws"
    (root / "userdata").mkdir(parents=True)
    (root / "userdata/install.sh").write_text(f'echo "install $*" >>{folder.root}/log\n')
    ready_to_hand_over(folder, python=f'echo "$3" >>{folder.root}/log')
    done = folder.boot(BOOTSTRAP.read_text())
    assert done.returncode == 0, done.stdout
    assert folder.ran().splitlines() == [
        f"install --role webui --document {folder.root}/etc/openqa-on-aws/host.json",
        "prepare",
        "systemctl start openqa-agent.service",
        "systemctl start --no-block openqa-on-aws.target",
        "ready",
    ]


@pytest.mark.parametrize("name", machine.NAMES)
def test_user_data_fits_and_holds_no_secret(name: str) -> None:
    document = machine.read(name)
    # Real ARNs and asset keys are longer than the fixtures'.
    document["secrets"] = dict.fromkeys(document["secrets"], f"arn:aws:secretsmanager:{'x' * 120}")
    for image in document["images"].values():
        image["key"] = "x" * 100
    text = user_data(
        json.dumps(document), BUNDLE_BUCKET="b" * 63, BUNDLE_KEY="k" * 80, BUNDLE_SHA256="0" * 64
    )
    assert len(text.encode()) < LIMIT
    assert "password" not in text.lower()
