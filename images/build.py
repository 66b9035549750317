"""Builds container images and artifacts into the cache, inside a throw-away Debian container.

The machine needs mmdebstrap and systemd-nspawn, not podman: the builder is a root of its own, and podman's
storage in the cache lets images share their layers.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

from images import cache, recipe
from images.container import Bind, log_path, run
from images.debian import DebianRoot
from images.errors import BuildError
from images.recipe import Recipe

BUILDER = DebianRoot(
    name="builder",
    packages=(
        *("ca-certificates", "podman"),
        # for userdata/content/sample/image/build.sh
        *("busybox-static", "cpio", "isolinux", "kmod", "syslinux-common", "xorriso", "xz-utils"),
    ),
)
# What Debian's container images start from.
CONTAINER = DebianRoot(name="container", packages=("ca-certificates",))

# Podman's own default raises the limits, which needs a capability that not every machine grants.
_LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768")


def build(os: str, architecture: str) -> dict[str, Path]:
    """Returns the archives of all images and artifacts by name, building what is missing.

    Takes what :class:`images.recipe.Recipe` does, and raises what :func:`archive` does.
    """
    wanted = [Recipe(name, os, architecture) for name in recipe.IMAGES + recipe.ARTIFACTS]
    if not all(archive_path(one).exists() for one in wanted):
        words = ("build", "--os", os, "--arch", architecture)
        _refuse_elsewhere("images", architecture, words, archive_path(wanted[0]).parent)
    return {one.name: archive(one) for one in wanted}


def archive(wanted: Recipe) -> Path:
    """Returns an image's OCI archive or an artifact's file, built on first use.

    Args:
        wanted: what it is made of; its architecture is the machine's own: nothing is built under emulation.

    Raises:
        BuildError: it could not be built.
    """
    final = archive_path(wanted)
    if not final.exists():
        with cache.locked(cache.root() / "build.lock"):
            if not final.exists():
                _build(wanted, final)
    return final


def archive_path(wanted: Recipe) -> Path:
    """Returns where :func:`archive` puts what it builds."""
    return cache.root() / "images" / f"{wanted.os}-{wanted.architecture}" / wanted.archive_name


def _refuse_elsewhere(what: str, architecture: str, words: Sequence[str], place: Path) -> None:
    machine = platform.machine()
    if architecture != machine:
        # With its path, because sudo resets PATH.
        command = shlex.join(["sudo", ".venv/bin/python", "-m", "images", *words])
        raise BuildError(
            f"cannot build {what} for {architecture} on {machine}: on an {architecture} machine, at the same "
            f"commit, run {command}, and copy the files that it lists to {place}"
        )


def _build(wanted: Recipe, final: Path) -> None:
    _refuse_elsewhere(wanted.name, wanted.architecture, wanted.words, final)
    name = wanted.name
    with cache.workspace() as folder:
        out = Bind(source=folder, target="/out", writable=True)
        if name in recipe.ARTIFACTS:
            with cache.step(name):
                sources = Bind(source=wanted.sources, target="/build")
                run(
                    BUILDER.make(),
                    ["/build/build.sh", f"/out/{name}"],
                    binds=[sources, out],
                    log=log_path(name),
                )
        else:
            _build_image(wanted)
            with cache.step(f"{name}, export"):
                save = ("save", "--quiet", "--format=oci-archive", f"--output=/out/{name}")
                _podman(*save, wanted.reference, bind=out)
        cache.publish(folder / name, final)


def _build_image(wanted: Recipe) -> None:
    if _has_image(wanted.reference):
        return
    if wanted.parent:
        _build_image(wanted.parent)
        base = wanted.parent.reference
    else:
        base = _distribution(wanted.os)
    with cache.step(wanted.name):
        _podman(
            *("build", "--isolation=chroot", "--network=host", "--pull=never", *_LIMITS),
            *(f"--build-arg={argument}" for argument in (f"BASE={base}", *_packages(wanted))),
            *(f"--tag={wanted.reference}", "/build"),
            bind=Bind(source=wanted.sources, target="/build"),
            log=wanted.name,
        )


def _packages(wanted: Recipe) -> tuple[str, ...]:
    return (f"PACKAGES={' '.join(wanted.packages)}",) if wanted.packages else ()


def _distribution(os: str) -> str:
    """Returns the name of the image that ``base`` starts from, once podman has it."""
    distribution = recipe.DISTRIBUTIONS[os]
    if os != "debian":
        try:
            _podman("pull", distribution)
        except BuildError:
            raise BuildError(
                f"cannot pull {distribution}, the base of {os} images: its registry must be reachable"
            ) from None
        return distribution
    root = CONTAINER.make()
    reference = f"localhost/openqa-distribution:{root.name.removeprefix('container-')}"
    with cache.step("import"):
        run(
            BUILDER.make(),
            # Podman writes its own /etc/resolv.conf, which must not be a link.
            [
                "sh",
                "-c",
                'tar -C /base -c --exclude=./etc/resolv.conf . | podman import - "$1"',
                "sh",
                reference,
            ],
            binds=[Bind(source=root, target="/base"), _storage()],
            log=log_path("podman"),
        )
    return reference


def _has_image(reference: str) -> bool:
    try:
        _podman("image", "exists", reference)
    except BuildError:
        return False
    return True


def _podman(*arguments: str, bind: Bind | None = None, log: str = "podman") -> None:
    binds = [_storage(), *([bind] if bind else [])]
    run(BUILDER.make(), ["podman", *arguments], binds=binds, log=log_path(log))


def _storage() -> Bind:
    folder = cache.root() / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    return Bind(source=folder, target="/var/lib/containers", writable=True)
