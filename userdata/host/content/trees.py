"""Releases of tests, and how one replaces another."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from userdata.host.errors import HostError

# linux/fcntl.h, linux/fs.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# How the pointer begins that git has in place of a file kept in Git LFS (specification on git-lfs.com).
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
# The newest, and the one before it, which a worker may still be reading.
_KEPT = 2


def publish(content: Path, tests: Path, parts: Mapping[str, Path], links: Mapping[str, str]) -> None:
    """Makes a release and publishes it to workers and openQA.

    Args:
        content: the folder of releases.
        tests: openQA's ``share/tests``.
        parts: trees by destination: ``DISTRI`` first, then what goes into it, such as ``DISTRI/needles``.
        links: further ``DISTRI``, each with the one whose tree it shares.

    Raises:
        HostError: a folder is in the way, or two folders cannot be exchanged.
    """
    distributions = [name for name in parts if "/" not in name]
    for name in distributions:
        if not _is_ours(tests / name):
            raise HostError(f"{tests / name} is not a folder: move it away")
    releases = content / "releases"
    releases.mkdir(exist_ok=True)
    numbers = sorted(int(path.name) for path in releases.iterdir() if path.name.isdigit())
    number = numbers[-1] + 1 if numbers else 1
    release = releases / f"{number}.new"
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir()
    for name, tree in parts.items():
        place = release / name
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)
        link(tree, place)
    for name, distribution in links.items():
        (release / name).symlink_to(distribution)
    release.rename(releases / str(number))
    _point(content / "current", Path("releases") / str(number))
    for name in distributions:
        _replace(tests / name, releases / str(number) / name)
    for name, distribution in links.items():
        if (tests / name).is_dir() and not (tests / name).is_symlink():
            shutil.rmtree(tests / name)
        _point(tests / name, Path(distribution))
    for old in [*numbers, number][:-_KEPT]:
        shutil.rmtree(releases / str(old))


def _is_ours(place: Path) -> bool:
    """Returns whether tests may go there: it is missing, a folder, or a link that shared another's tests."""
    if place.is_symlink():
        return "/" not in str(place.readlink())
    return place.is_dir() or not place.exists()


def check(tree: Path) -> None:
    """Checks that a working tree has no symbolic link that leads out: openQA shows needles to everybody.

    Also checks that needles have their images, as no job would match one whose image is elsewhere.

    Raises:
        HostError: it has such a link, or a needle in Git LFS.
    """
    for path in _leading_out(tree):
        link = path.relative_to(tree)
        raise HostError(f"{tree.name}: {link} is a symbolic link that leads out of the repository")
    for needle in tree.rglob("*.json"):
        image = needle.with_suffix(".png")
        if (
            image.is_file()
            and image.stat().st_size < _POINTER_BYTES
            and image.read_bytes().startswith(_POINTER)
        ):
            name = image.relative_to(tree)
            raise HostError(
                f"{tree.name}: {name} is in Git LFS, which is not followed: commit the file itself to git"
            )


def link(tree: Path, target: Path) -> None:
    """Copies a tree by hard links, without symbolic links that lead out; only folders are new."""
    shutil.copytree(tree, target, symlinks=True, copy_function=_link)
    # Such a link may be in a release from before they were refused, or be newer than the check.
    for path in _leading_out(target):
        path.unlink()


def _leading_out(tree: Path) -> Iterator[Path]:
    whole = tree.resolve()
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(whole):
                yield path


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def _point(link: Path, target: Path) -> None:
    new = link.with_name(f"{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _replace(path: Path, tree: Path) -> None:
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    link(tree, new)
    if path.is_symlink():
        path.unlink()
    if path.exists():
        _exchange(new, path)
        shutil.rmtree(new)
    else:
        new.rename(path)


def _exchange(first: Path, second: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        raise HostError(f"{first} and {second} cannot be exchanged: {os.strerror(ctypes.get_errno())}")
