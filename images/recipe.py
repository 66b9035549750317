"""What each container image and artifact is made of, and the name that follows from it.

A recipe's hash covers its folder (``userdata/containers/NAME`` or the artifact's sources), the hash of
the recipe it is built on, the operating system, the architecture, the packages that a deployment adds and
:data:`PACKAGES_AS_OF`. Equal hashes mean equal recipes, so synth, build and host agree on a name without
talking to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

IMAGES = ("database", "webui", "proxy", "worker")
ARTIFACTS = ("sample",)
# Built only for a deployment that wants it, from git; always made of Fedora, whatever the hosts run.
ON_DEMAND = ("consumer",)
SYSTEMS = ("debian", "fedora")
ARCHITECTURES = ("x86_64", "aarch64")

# What "base" is built from: a Debian suite for mmdebstrap, or an image to pull.
DISTRIBUTIONS = {"debian": "trixie", "fedora": "fedora:44"}

# Change it to rebuild everything with the distribution's current packages.
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


@dataclass(frozen=True)
class Recipe:
    """What one container image or artifact is made of.

    Attributes:
        name: one of :data:`IMAGES`, :data:`ON_DEMAND`, :data:`ARTIFACTS`, or a shared layer of
            :data:`PARENTS`.
        os: what the containers run, one of :data:`SYSTEMS`.
        architecture: one of :data:`ARCHITECTURES`.
        packages: for ``worker`` only: what the tests need besides what every worker has, by the packages'
            names in ``os``.

    Raises:
        ValueError: one of them is not allowed.
    """

    name: str
    os: str
    architecture: str
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("image or artifact", self.name, (*PARENTS, *ARTIFACTS)),
            ("operating system", self.os, SYSTEMS),
            ("architecture", self.architecture, ARCHITECTURES),
        ):
            if value not in allowed:
                raise ValueError(f"no {what} {value!r}: allowed are {', '.join(allowed)}")
        if self.packages and self.name != "worker":
            raise ValueError(f"{self.name} takes no packages: only worker does")

    @property
    def sources(self) -> Path:
        """The folder that holds it."""
        if self.name in ARTIFACTS:
            return _USERDATA / "content" / self.name / "image"
        return _USERDATA / "containers" / self.name

    @property
    def parent(self) -> Recipe | None:
        """The layer that it is built on; None if it is none of ours."""
        parent = PARENTS.get(self.name)
        return Recipe(parent, self.os, self.architecture) if parent else None

    @cached_property
    def hash(self) -> str:
        """The hash of all that determines the content: 16 hexadecimal digits."""
        # Artifacts are test content: built with Debian's tools, the same for every host.
        target = (
            ("artifact",)
            if self.name in ARTIFACTS
            else (self.os, self.architecture, DISTRIBUTIONS[self.os], *sorted(self.packages))
        )
        inputs = (self.name, *target, PACKAGES_AS_OF, self.parent.hash if self.parent else "")
        return digest([*(text.encode() for text in inputs), *_contents(self.sources)])

    @property
    def reference(self) -> str:
        """An image's name in podman, such as ``localhost/openqa-webui:0123456789abcdef``."""
        return f"localhost/openqa-{self.name}:{self.hash}"

    @property
    def archive_name(self) -> str:
        """The archive's file name, such as ``webui-0123456789abcdef.oci.tar`` or ``sample-….iso``."""
        return f"{self.name}-{self.hash}.{'iso' if self.name in ARTIFACTS else 'oci.tar'}"

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments with which ``python -m images`` builds it."""
        target = ("--os", self.os, "--arch", self.architecture)
        return ("archive", self.name, *target, *(f"--package={package}" for package in self.packages))


def system(name: str, os: str) -> str:
    """Returns what an image's containers run, on hosts that run ``os``."""
    return "fedora" if name in ON_DEMAND else os


def digest(parts: Iterable[bytes]) -> str:
    """Returns one hash over parts and their boundaries: 16 hexadecimal digits of SHA-256."""
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
