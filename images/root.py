"""The roots that instances of the local cloud boot, and throw-away containers over them."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from pathlib import Path

from images import build, cache, recipe
from images.container import Bind, change, execute, log_path
from images.debian import DebianRoot

# What Debian's own cloud image brings, as far as it matters to a host (no kernel and no boot loader).
BASE = DebianRoot(
    name="base",
    packages=(
        "ca-certificates",
        "cloud-guest-utils",
        "cloud-init",
        "curl",
        "dbus",
        "e2fsprogs",
        "iproute2",
        "iputils-ping",
        "kmod",
        "less",
        "libnss-resolve",
        "libpam-systemd",
        "netbase",
        "openssl",
        "procps",
        "python3",
        "sudo",
        "systemd-resolved",
        "systemd-sysv",
        "systemd-timesyncd",
        "udev",
    ),
)

_PROJECT = Path(__file__).parent.parent
_USERDATA = _PROJECT / "userdata"
# Plays AWS's mount-s3, which is in no package registry, as on an AMI that has it already.
_MOUNTPOINT = _PROJECT / "localcloud/mountpoint"
_MOUNTPOINT_AT = Path("usr/lib/mount-s3/localcloud")
_INSTALLED_AT = "/opt/openqa-on-aws/userdata"
_INSTALL = f"{_INSTALLED_AT}/install.sh"
# All that determines what the installation does.
_INSTALL_SOURCES = (
    *("install.sh", "signed.sh", "mount-s3/*.sh", "os/*.sh", "host/images.py"),
    *("containers/worker/*.control", "containers/worker/*.sh"),
)


def plain_root() -> Path:
    """Returns the base root with what could not be installed on it later: the stand-in for mount-s3.

    Raises:
        BuildError: it could not be made.
    """
    final = plain_path()
    with cache.locked(cache.root() / "plain.lock"):
        if not final.exists():
            base = BASE.make()
            with cache.step("root plain"), cache.workspace() as folder:
                _copy(base, folder / "root", log=log_path("root-plain"))
                _put_mountpoint(folder / "root")
                cache.publish(folder / "root", final)
    return final


def plain_path() -> Path:
    """Returns where today's plain root is, once made."""
    inputs = [BASE.path.name.encode(), *(source.read_bytes() for source in _mountpoint_sources())]
    return cache.root() / "roots" / f"plain-{recipe.digest(inputs)}"


def golden_root() -> Path:
    """Returns the plain root after ``userdata/install.sh``: packages and container images are in it.

    Raises:
        BuildError: it could not be made, or the installation failed.
    """
    final = golden_path()
    with cache.locked(cache.root() / "golden.lock"):
        if not final.exists():
            archives = build.build("debian", platform.machine())
            plain = plain_root()
            with cache.step("root golden"), cache.workspace() as folder:
                copy = folder / "root"
                log = log_path("root-golden")
                _copy(plain, copy, log=log)
                binds = [
                    Bind(source=_USERDATA, target=_INSTALLED_AT),
                    Bind(source=_gather(archives.values(), folder / "archives"), target=cache.DEFAULT),
                ]
                change(copy, ["bash", _INSTALL], name=folder.name, binds=binds, log=log)
                cache.publish(copy, final)
    return final


def golden_path() -> Path:
    """Returns where today's golden root is, once made."""
    names = [
        recipe.Recipe(name, "debian", platform.machine()).archive_name
        for name in recipe.IMAGES + recipe.ARTIFACTS
    ]
    sources = sorted(path for pattern in _INSTALL_SOURCES for path in _USERDATA.glob(pattern))
    sources += _mountpoint_sources()
    inputs = [BASE.path.name.encode(), *(name.encode() for name in names)]
    return cache.root() / "roots" / f"golden-{recipe.digest([*inputs, *(s.read_bytes() for s in sources)])}"


def _copy(root: Path, target: Path, *, log: Path) -> None:
    execute(["cp", "--archive", "--reflink=auto", str(root), str(target)], log=log)


def _mountpoint_sources() -> list[Path]:
    return sorted(path for pattern in ("*.py", "*.sh") for path in _MOUNTPOINT.glob(pattern))


def _put_mountpoint(root: Path) -> None:
    """Installs the stand-in as /usr/bin/mount-s3."""
    package = root / _MOUNTPOINT_AT
    shutil.copytree(_MOUNTPOINT, package / _MOUNTPOINT.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_MOUNTPOINT.parent / "__init__.py", package)
    program = root / "usr/bin/mount-s3"
    shutil.copy(_MOUNTPOINT / "mount-s3.sh", program)
    program.chmod(0o755)


def _gather(files: Iterable[Path], folder: Path) -> Path:
    """Returns a new folder with just these files.

    Bound one by one, each would leave an empty file of its name in the root.
    """
    folder.mkdir()
    for file in files:
        (folder / file.name).hardlink_to(file)
    return folder
