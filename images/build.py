"""Builds container images and artifacts into the cache, inside a throw-away container of Debian.

The machine needs mmdebstrap and systemd-nspawn, not podman: the builder is a root of its own, and podman's
storage in the cache lets images share their layers.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import cache, recipe
from images.root import (
    Bind,
    BuildError,
    base_root,
    debian_root,
    derived_root,
    log_path,
    publish,
    run,
)

_BUILDER_PACKAGES = (
    *("ca-certificates", "podman"),
    # for userdata/content/sample/image/build.sh
    *("busybox-static", "cpio", "isolinux", "kmod", "syslinux-common", "xorriso"),
)
# Podman's own default raises the limits, which needs a capability that not every machine grants.
_LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768")
_REPOSITORY = Path(__file__).parent.parent


def archive(name: str, os: str, architecture: str) -> Path:
    """Returns an image's OCI archive or an artifact's file, built on first use.

    Args:
        name: one of :data:`images.recipe.IMAGES` or :data:`images.recipe.ARTIFACTS`.
        os: what the containers run.
        architecture: the machine's own; nothing is built under emulation.

    Raises:
        BuildError: it could not be built.
        ValueError: an argument is none of the allowed.
    """
    final = archive_path(name, os, architecture)
    if final.exists():
        return final
    with cache.locked(cache.root() / "build.lock"):
        if not final.exists():
            _build(name, os, architecture, final)
    return final


def archive_path(name: str, os: str, architecture: str) -> Path:
    """Returns where :func:`archive` puts what it builds."""
    return cache.root() / "images" / f"{os}-{architecture}" / recipe.archive_name(name, os, architecture)


def build(os: str, architecture: str) -> dict[str, Path]:
    """Returns all images' and artifacts' archives by name, building what is missing. See :func:`archive`."""
    return {name: archive(name, os, architecture) for name in recipe.IMAGES + recipe.ARTIFACTS}


def golden_root() -> Path:
    """Returns the base root after ``userdata/install.sh``; see :func:`images.root.golden_root`."""
    os, architecture = "debian", platform.machine()
    archives = build(os, architecture)
    base = base_root()
    with step("golden root"):
        return derived_root(
            "golden",
            base,
            ["/opt/openqa-on-aws/userdata/install.sh"],
            inputs=(_install_inputs(), recipe.PACKAGES_AS_OF, *(path.name for path in archives.values())),
            binds=(
                Bind(source=_REPOSITORY / "userdata", target="/opt/openqa-on-aws/userdata"),
                *(
                    Bind(source=path, target=f"/var/cache/openqa-on-aws/{path.name}")
                    for path in archives.values()
                ),
            ),
        )


@contextmanager
def step(what: str) -> Iterator[None]:
    """Says on standard error what begins, and how long it took."""
    print(f"images: {what} …", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"images: {what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _install_inputs() -> str:
    files = [_REPOSITORY / "userdata" / "install.sh", *(_REPOSITORY / "userdata" / "os").glob("*")]
    return recipe.digest(path.read_bytes() for path in sorted(files))


def _build(name: str, os: str, architecture: str, final: Path) -> None:
    if architecture != platform.machine():
        raise BuildError(
            f"cannot build {name} for {architecture} on {platform.machine()}: run it on such a machine"
        )
    with cache.workspace() as folder:
        if name in recipe.ARTIFACTS:
            with step(name):
                _build_artifact(name, folder)
        else:
            _build_image(name, os, architecture)
            with step(f"{name}: export"):
                reference = recipe.reference(name, os, architecture)
                _podman(
                    ["save", "--quiet", "--format=oci-archive", f"--output=/out/{name}", reference],
                    Bind(source=folder, target="/out", writable=True),
                )
        publish(folder / name, final)


def _build_artifact(name: str, folder: Path) -> None:
    run(
        _builder(),
        ["/build/build.sh", f"/out/{name}"],
        binds=(
            Bind(source=recipe.sources(name), target="/build"),
            Bind(source=folder, target="/out", writable=True),
        ),
        log=log_path(name),
    )


def _build_image(name: str, os: str, architecture: str) -> None:
    reference = recipe.reference(name, os, architecture)
    if _has_image(reference):
        return
    parent = recipe.PARENTS[name]
    if parent:
        _build_image(parent, os, architecture)
        base = recipe.reference(parent, os, architecture)
    else:
        base = _distribution(os)
    with step(name):
        _podman(
            [
                *("build", "--isolation=chroot", "--network=host", "--pull=never", *_LIMITS),
                *(f"--build-arg=BASE={base}", f"--tag={reference}", "/build"),
            ],
            Bind(source=recipe.sources(name), target="/build"),
            log=name,
        )


def _distribution(os: str) -> str:
    """Returns the reference of the image that ``base`` starts from, imported or pulled."""
    distribution = recipe.DISTRIBUTIONS[os]
    if os != "debian":
        try:
            _podman(["pull", distribution])
        except BuildError:
            raise BuildError(
                f"cannot pull {distribution}, the base of {os} images: its registry must be in reach"
            ) from None
        return distribution
    with step("distribution"):
        root = debian_root("container", packages=("ca-certificates",), variant="minbase")
        reference = f"localhost/openqa-distribution:{root.name.removeprefix('container-')}"
        run(
            _builder(),
            [
                "sh",
                "-c",
                'tar -C /base -c --exclude=./etc/resolv.conf . | podman import - "$1"',
                "sh",
                reference,
            ],
            binds=(Bind(source=root, target="/base"), _storage()),
            log=log_path("podman"),
        )
    return reference


def _has_image(reference: str) -> bool:
    try:
        _podman(["image", "exists", reference])
    except BuildError:
        return False
    return True


def _podman(arguments: list[str], *binds: Bind, log: str = "podman") -> None:
    run(_builder(), ["podman", *arguments], binds=(_storage(), *binds), log=log_path(log))


def _storage() -> Bind:
    folder = cache.root() / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    return Bind(source=folder, target="/var/lib/containers", writable=True)


def _builder() -> Path:
    return debian_root("builder", packages=_BUILDER_PACKAGES)
