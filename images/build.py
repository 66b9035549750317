"""Builds container images and artifacts into the cache, inside a throw-away container of Debian.

The machine needs mmdebstrap and systemd-nspawn, not podman: the builder is a root of its own, and podman's
storage in the cache lets images share their layers.
"""

from __future__ import annotations

import platform
from pathlib import Path

from images import cache, recipe
from images.cache import step
from images.container import Bind, log_path, run
from images.debian import DebianRoot
from images.errors import BuildError

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

    Takes and raises what :func:`archive` does.
    """
    return {name: archive(name, os, architecture) for name in recipe.IMAGES + recipe.ARTIFACTS}


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
    if not final.exists():
        with cache.locked(cache.root() / "build.lock"):
            if not final.exists():
                _build(name, os, architecture, final)
    return final


def archive_path(name: str, os: str, architecture: str) -> Path:
    """Returns where :func:`archive` puts what it builds."""
    return cache.root() / "images" / f"{os}-{architecture}" / recipe.archive_name(name, os, architecture)


def _build(name: str, os: str, architecture: str, final: Path) -> None:
    machine = platform.machine()
    if architecture != machine:
        raise BuildError(
            f"cannot build {name} for {architecture} on {machine}: build it on such a machine, of the same "
            f"commit, and copy it from there to {final}"
        )
    with cache.workspace() as folder:
        out = Bind(source=folder, target="/out", writable=True)
        if name in recipe.ARTIFACTS:
            with step(name):
                sources = Bind(source=recipe.sources(name), target="/build")
                run(
                    BUILDER.make(),
                    ["/build/build.sh", f"/out/{name}"],
                    binds=[sources, out],
                    log=log_path(name),
                )
        else:
            _build_image(name, os, architecture)
            with step(f"{name}, export"):
                reference = recipe.reference(name, os, architecture)
                _podman(
                    "save", "--quiet", "--format=oci-archive", f"--output=/out/{name}", reference, bind=out
                )
        cache.publish(folder / name, final)


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
            *("build", "--isolation=chroot", "--network=host", "--pull=never", *_LIMITS),
            *(f"--build-arg=BASE={base}", f"--tag={reference}", "/build"),
            bind=Bind(source=recipe.sources(name), target="/build"),
            log=name,
        )


def _distribution(os: str) -> str:
    """Returns the name of the image that ``base`` starts from, once podman has it."""
    distribution = recipe.DISTRIBUTIONS[os]
    if os != "debian":
        try:
            _podman("pull", distribution)
        except BuildError:
            raise BuildError(
                f"cannot pull {distribution}, the base of {os} images: its registry must be in reach"
            ) from None
        return distribution
    root = CONTAINER.make()
    reference = f"localhost/openqa-distribution:{root.name.removeprefix('container-')}"
    with step("import"):
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
