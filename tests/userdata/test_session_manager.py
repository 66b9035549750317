"""The Session Manager agent: installed only with a good signature of the expected key."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.userdata import machine

FOLDER = machine.REPOSITORY / "userdata/session-manager"
# As published: docs.aws.amazon.com/systems-manager/latest/userguide/verify-agent-signature.html
FINGERPRINT = "4855A9E6833216D6A77D8FE451A8E050D0052E5D"


def gpg(home: Path, *arguments: str) -> str:
    machine.program("gpg")
    home.mkdir(mode=0o700, exist_ok=True)
    said = subprocess.run(
        ["gpg", "--homedir", str(home), "--batch", *arguments], capture_output=True, text=True, check=True
    ).stdout
    # Each call with a secret key starts an agent, which would outlive the test.
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    return said


def test_the_key_is_the_published_one(tmp_path: Path) -> None:
    said = gpg(tmp_path / "gpg", "--show-keys", "--with-colons", str(FOLDER / "amazon-ssm-agent.asc"))
    assert [line.split(":")[9] for line in said.splitlines() if line.startswith("fpr")] == [FINGERPRINT]


@pytest.mark.parametrize(
    ("signed", "installed"), [("by the key", True), ("by another", False), ("not", False)]
)
def test_only_what_the_key_signed_is_installed(tmp_path: Path, signed: str, installed: bool) -> None:
    machine.program("gpgv")
    home, other, programs = tmp_path / "home", tmp_path / "other", tmp_path / "bin"
    for keys in (home, other):
        gpg(keys, "--passphrase", "", "--quick-generate-key", "SSM Agent", "ed25519", "sign")
    package = tmp_path / "package"
    package.write_text("the package")
    signature = tmp_path / "package.sig"
    if signed == "not":
        signature.write_text("nothing")
    else:
        signer = home if signed == "by the key" else other
        gpg(signer, "--output", str(signature), "--detach-sign", str(package))
    userdata = tmp_path / "userdata"
    shutil.copytree(FOLDER, userdata / "session-manager")
    (userdata / "session-manager/amazon-ssm-agent.asc").write_text(gpg(home, "--armor", "--export"))
    (userdata / "os").mkdir()
    log = tmp_path / "log"
    (userdata / f"os/{platform.freedesktop_os_release()['ID']}.sh").write_text(
        "signature_packages=() session_manager_package=debian_amd64/amazon-ssm-agent.deb\n"
        f'os_install_file() {{ cat "$1" >>{log}; }}\n'
    )
    programs.mkdir()
    curl = f'while [[ $1 != --output ]]; do shift; done; echo "$3" >>{tmp_path}/urls; ext=; '
    curl += f'[[ $3 != *.sig ]] || ext=.sig; cp {package}$ext "$2"'
    for name, script in {"curl": curl, "systemctl": f"echo systemctl $* >>{log}"}.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(
        ["bash", str(userdata / "session-manager/install.sh"), "eu-west-1"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == installed, done.stderr
    assert log.exists() == installed
    assert (
        (tmp_path / "urls")
        .read_text()
        .startswith("https://s3.eu-west-1.amazonaws.com/amazon-ssm-eu-west-1/3.")
    )
