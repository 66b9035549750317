"""AWS's packages: installed only with a good signature of the expected key."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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


@dataclass(frozen=True)
class Package:
    """One that AWS signs: its folder, arguments, the suffix of signatures, and where it comes from."""

    folder: str
    arguments: tuple[str, ...]
    suffix: str
    begin: str


PACKAGES = (
    Package(
        "session-manager",
        ("eu-west-1",),
        ".sig",
        "https://s3.eu-west-1.amazonaws.com/amazon-ssm-eu-west-1/3.",
    ),
    Package(
        "session-manager",
        ("cn-north-1",),
        ".sig",
        "https://s3.cn-north-1.amazonaws.com.cn/amazon-ssm-cn-north-1/3.",
    ),
    Package("mount-s3", (), ".asc", "https://s3.amazonaws.com/mountpoint-s3-release/1."),
)


def fingerprints(home: Path) -> list[str]:
    lines = gpg(home, "--list-keys", "--with-colons").splitlines()
    return [line.split(":")[9] for line in lines if line.startswith("fpr")]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.folder))
@pytest.mark.parametrize(
    ("signed", "installed"),
    [("by the key", True), ("by another", False), ("by another that comes along", False), ("not", False)],
)
def test_only_what_the_key_signed_is_installed(
    tmp_path: Path, package: Package, signed: str, installed: bool
) -> None:
    machine.program("gpgv")
    home, other, programs = tmp_path / "home", tmp_path / "other", tmp_path / "bin"
    for keys in (home, other):
        gpg(keys, "--passphrase", "", "--quick-generate-key", "AWS", "ed25519", "sign")
    content, signature, published = (tmp_path / name for name in ("package", "signature", "keys"))
    content.write_text("the package")
    if signed == "not":
        signature.write_text("nothing")
    else:
        signer = home if signed == "by the key" else other
        gpg(signer, "--output", str(signature), "--detach-sign", str(content))
    published.write_text(gpg(home, "--armor", "--export"))
    if signed == "by another that comes along":
        published.write_text(published.read_text() + gpg(other, "--armor", "--export"))
    userdata, log = tmp_path / "userdata", tmp_path / "log"
    shutil.copytree(machine.REPOSITORY / "userdata" / package.folder, userdata / package.folder)
    shutil.copy(machine.REPOSITORY / "userdata/signed.sh", userdata)
    if package.folder == "session-manager":
        shutil.copy(published, userdata / "session-manager/amazon-ssm-agent.asc")
    script = userdata / package.folder / "install.sh"
    (trusted,) = fingerprints(home)
    text, count = re.subn(r"(?m)^(fingerprints?)=.*$", rf"\1=({trusted})", script.read_text())
    assert count == 1
    script.write_text(text)
    (userdata / "os").mkdir()
    (userdata / f"os/{platform.freedesktop_os_release()['ID']}.sh").write_text(
        "signature_packages=() session_manager_package=debian_amd64/amazon-ssm-agent.deb package_format=deb\n"
        f'os_install_file() {{ cat "$1" >>{log}; }}\n'
    )
    programs.mkdir()
    curl = f"""\
while [[ $1 != --output ]]; do shift; done
echo "$3" >>{tmp_path}/urls
case $3 in
  *KEYS) cp {published} "$2" ;;
  *{package.suffix}) cp {signature} "$2" ;;
  *) cp {content} "$2" ;;
esac"""
    for name, body in {"curl": curl, "systemctl": f"echo systemctl $* >>{log}"}.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    # Of a short name: sockets of gpg's agent are in it.
    with TemporaryDirectory() as scratch:
        done = subprocess.run(
            ["bash", str(script), *package.arguments],
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": scratch},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode == 0) == installed, done.stderr
    assert log.exists() == installed
    fetched = (tmp_path / "urls").read_text().splitlines()
    assert any(url.startswith(package.begin) for url in fetched), fetched


def test_mount_s3_is_trusted_by_its_published_fingerprints() -> None:
    script = (machine.REPOSITORY / "userdata/mount-s3/install.sh").read_text()
    # docs.aws.amazon.com/AmazonS3/latest/userguide/mountpoint-installation.html
    published = "8AEFE705EBE329C0948C75A66F1C3B3AEF4B030B 673FE4061506BB469A0EF857BE397A52B086DA5A"
    assert f"fingerprints=({published})" in script
