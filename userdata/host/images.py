"""Container images and artifacts: loaded from local archives, or fetched from S3; never pulled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from userdata.host.aws import call
from userdata.host.commands import run
from userdata.host.document import Document, Stored
from userdata.host.errors import HostError

# What each role runs.
IMAGES = {"database": ("database",), "webui": ("webui", "proxy"), "worker": ("worker",), "builder": ()}
ARTIFACTS = {"database": (), "webui": ("sample",), "worker": (), "builder": ()}
_ARCHIVE = ".oci.tar"
_ARTIFACT = ".iso"


def install(document: Document, *, cache: Path, kept: Path, s3: Callable[[], Any]) -> None:
    """Loads the document's images into podman and puts its artifacts where the role looks for them.

    Args:
        document: names them, and their places in S3.
        cache: where archives may be, at any depth; downloads go to its ``images``.
        kept: where artifacts are kept.
        s3: makes an S3 client.

    Raises:
        HostError: one is neither here nor in S3, or an archive does not hold what its name says.
    """
    for name, image in document.images.items():
        if not exists(image.name):
            _, _, tag = image.name.rpartition(":")
            load(_obtain(image, f"{name}-{tag}{_ARCHIVE}", cache, s3), image.name)
    for name, artifact in document.artifacts.items():
        file = f"{name}-{artifact.name}{_ARTIFACT}"
        if not (kept / file).exists():
            _keep(_obtain(artifact, file, cache, s3), kept)


def install_found(roles: Iterable[str], *, cache: Path, kept: Path) -> None:
    """Does what :func:`install` does for all of the roles' archives in the cache: for golden images.

    Raises:
        HostError: a role's image is missing.
    """
    for role in roles:
        for name in IMAGES[role]:
            archives = sorted(cache.rglob(f"{name}-*{_ARCHIVE}"))
            if not archives:
                raise HostError(f"image {name}: no archive {name}-*{_ARCHIVE} in {cache}")
            for archive in archives:
                tag = archive.name.removeprefix(f"{name}-").removesuffix(_ARCHIVE)
                reference = f"localhost/openqa-{name}:{tag}"
                if not exists(reference):
                    load(archive, reference)
        for name in ARTIFACTS[role]:
            for artifact in sorted(cache.rglob(f"{name}-*{_ARTIFACT}")):
                _keep(artifact, kept)


def exists(reference: str) -> bool:
    """Returns whether podman has an image."""
    return run(["podman", "images", "--quiet", "--filter", f"reference={reference}"]).strip() != ""


def load(archive: Path, reference: str) -> None:
    """Loads an archive.

    Raises:
        HostError: podman refused it, or it holds another image.
    """
    run(["podman", "load", "--quiet", "--input", str(archive)], seconds=1200)
    if not exists(reference):
        raise HostError(f"image {reference}: the archive {archive} does not hold it")


def _obtain(stored: Stored, file: str, cache: Path, s3: Callable[[], Any]) -> Path:
    found = next(iter(sorted(cache.rglob(file))), None)
    if found is not None:
        return found
    if stored.bucket is None or stored.key is None:
        raise HostError(f"{file}: not in {cache}, and the host document has no place in S3 for it")
    target = cache / "images" / file
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    call(
        f"s3://{stored.bucket}/{stored.key}",
        s3().download_file,
        Bucket=stored.bucket,
        Key=stored.key,
        Filename=str(partial),
    )
    partial.replace(target)
    return target


def _keep(file: Path, kept: Path) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, kept / file.name)
