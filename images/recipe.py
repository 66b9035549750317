"""What each container image and artifact is made of, and the name that follows from it.

A recipe's hash covers its folder (``userdata/containers/NAME`` or the artifact's sources), the hash of
the recipe it is built on, the operating system, the architecture and :data:`PACKAGES_AS_OF`. Equal hashes
mean equal recipes, so synth, build and host agree on a name without talking to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

IMAGES = ("database", "webui", "proxy", "worker")
ARTIFACTS = ("sample",)
# Built only for a deployment that wants it, from git; what it is made of is Fedora's on every host.
ON_DEMAND = ("consumer",)
SYSTEMS = ("debian", "fedora")
ARCHITECTURES = ("x86_64", "aarch64")

# What "base" is built from: a Debian suite for mmdebstrap, or an image to pull.
DISTRIBUTIONS = {"debian": "trixie", "fedora": "fedora:43"}

# Change it to build everything anew with the distribution's current packages.
PACKAGES_AS_OF = "2026-11-22"

# Shared layers: what each image is built on.
PARENTS = {
    "base": None,
    "openqa": "base",
    "database": "base",
    "proxy": "base",
    "webui": "openqa",
    "worker": "openqa",
    "consumer": "base",
}

_USERDATA = Path(__file__).parent.parent / "userdata"


def sources(name: str) -> Path:
    """Returns the folder that holds the recipe of an image or artifact.

    Raises:
        ValueError: there is no such recipe.
    """
    if name in PARENTS:
        return _USERDATA / "containers" / name
    if name in ARTIFACTS:
        return _USERDATA / "content" / name / "image"
    raise ValueError(f"no image or artifact {name!r}: allowed are {', '.join(IMAGES + ARTIFACTS)}")


def system(name: str, os: str) -> str:
    """Returns what an image's containers run, on hosts that run ``os``."""
    return "fedora" if name in ON_DEMAND else os


def recipe_hash(name: str, os: str, architecture: str) -> str:
    """Returns the hash of all that decides an image's or artifact's content: 16 hexadecimal digits.

    Args:
        name: one of :data:`IMAGES`, :data:`ARTIFACTS`, or a shared layer of :data:`PARENTS`.
        os: what the containers run, one of :data:`SYSTEMS`.
        architecture: one of :data:`ARCHITECTURES`.

    Raises:
        ValueError: an argument is none of these.
    """
    if os not in SYSTEMS:
        raise ValueError(f"no operating system {os!r}: allowed are {', '.join(SYSTEMS)}")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"no architecture {architecture!r}: allowed are {', '.join(ARCHITECTURES)}")
    folder = sources(name)
    parent = PARENTS.get(name)
    # Artifacts are test content: built with Debian's tools, the same for every host.
    target = ("artifact",) if name in ARTIFACTS else (os, architecture, DISTRIBUTIONS[os])
    inputs = (name, *target, PACKAGES_AS_OF, recipe_hash(parent, os, architecture) if parent else "")
    return digest([*(text.encode() for text in inputs), *_contents(folder)])


def reference(name: str, os: str, architecture: str) -> str:
    """Returns an image's name in podman, such as ``localhost/openqa-webui:0123456789abcdef``.

    Takes and raises what :func:`recipe_hash` does.
    """
    return f"localhost/openqa-{name}:{recipe_hash(name, os, architecture)}"


def archive_name(name: str, os: str, architecture: str) -> str:
    """Returns an archive's file name, such as ``webui-0123456789abcdef.oci.tar`` or ``sample-….iso``.

    Takes and raises what :func:`recipe_hash` does.
    """
    suffix = "iso" if name in ARTIFACTS else "oci.tar"
    return f"{name}-{recipe_hash(name, os, architecture)}.{suffix}"


def digest(parts: Iterable[bytes]) -> str:
    """Returns one hash over parts whose borders count: 16 hexadecimal digits of SHA-256."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()[:16]


def _contents(folder: Path) -> Iterable[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            executable = b"x" if path.stat().st_mode & 0o100 else b"-"
            yield path.relative_to(folder).as_posix().encode()
            yield executable + path.read_bytes()
