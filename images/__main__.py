"""The command line: ``python -m images``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from images import build, cache, recipe, root
from images.errors import BuildError


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        arguments: the command line's; None: this process's own.
    """
    options = _parser().parse_args(arguments)
    # Root builds, but whoever deploys must be able to read it.
    os.umask(0o022)
    try:
        options.run(options)
    except (BuildError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m images",
        description="Builds what hosts run. Each result is named by the hash of its recipe and kept in "
        f"$OPENQA_CACHE (default: {cache.DEFAULT}). Progress goes to standard error. Building needs root.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    building = commands.add_parser("build", help="build what all deployments have: images and the sample CD")
    building.set_defaults(run=_build)
    one = commands.add_parser("archive", help="build one, unless it is there, and print its path")
    one.add_argument("name", choices=recipe.IMAGES + recipe.ON_DEMAND + recipe.ARTIFACTS)
    one.add_argument(
        "--package",
        action="append",
        default=[],
        dest="packages",
        metavar="NAME",
        help="for worker only: also install this package; may be repeated",
    )
    one.set_defaults(run=_archive)
    listing = commands.add_parser("list", help="show all images and artifacts, and which are built")
    listing.set_defaults(run=_list)
    for parser_of_target in (building, one, listing):
        parser_of_target.add_argument(
            "--os", choices=recipe.SYSTEMS, default="debian", help="default: debian"
        )
        parser_of_target.add_argument(
            "--arch", choices=recipe.ARCHITECTURES, default=platform.machine(), help="default: this machine's"
        )

    golden = commands.add_parser(
        "golden", help="build the root that instances of the local cloud boot, and print its path"
    )
    golden.set_defaults(run=_golden)
    clean = commands.add_parser(
        "clean",
        help="remove what today's recipes no longer name",
        description="Removes archives and roots that today's recipes no longer name, workers' images with a "
        "deployment's own packages, logs, and the layers that only speed up builds. Stop a running local "
        "cloud first: it may boot from what is removed.",
    )
    clean.set_defaults(run=_clean)
    return parser


def _build(options: argparse.Namespace) -> None:
    for name, path in build.build(options.os, options.arch).items():
        print(f"{name:10} {_size(path):>8}  {path}")


def _archive(options: argparse.Namespace) -> None:
    os = recipe.system(options.name, options.os)
    wanted = recipe.Recipe(options.name, os, options.arch, tuple(options.packages))
    print(build.archive(wanted))


def _list(options: argparse.Namespace) -> None:
    for name in recipe.IMAGES + recipe.ARTIFACTS + recipe.ON_DEMAND:
        path = build.archive_path(recipe.Recipe(name, recipe.system(name, options.os), options.arch))
        missing = "on demand" if name in recipe.ON_DEMAND else "to build"
        print(f"{name:10} {_size(path) if path.exists() else missing:>9}  {path}")


def _golden(options: argparse.Namespace) -> None:
    print(root.golden_root())


def _clean(options: argparse.Namespace) -> None:
    with cache.locked(cache.root() / "build.lock"), cache.workspace() as folder:
        for number, path in enumerate(_outdated()):
            print(f"removing {path}")
            # Under its name it is there whole or not at all: another commit's recipes may name it.
            path.rename(folder / str(number))


def _outdated() -> Iterator[Path]:
    current = {
        build.archive_path(recipe.Recipe(name, os, architecture))
        for name in recipe.IMAGES + recipe.ON_DEMAND + recipe.ARTIFACTS
        for os in recipe.SYSTEMS
        for architecture in recipe.ARCHITECTURES
    }
    current |= {root.BASE.path, build.BUILDER.path, build.CONTAINER.path}
    current |= {root.plain_path(), root.golden_path()}
    for pattern in ("images/*/*", "roots/*", "logs", "storage"):
        yield from (path for path in sorted(cache.root().glob(pattern)) if path not in current)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
