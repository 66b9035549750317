"""The options of ``mount-s3`` that the stand-in knows; any other is an error."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Source: github.com/awslabs/mountpoint-s3, doc/CONFIGURATION.md
DEFAULT_PART = 8 * 1024 * 1024
SMALLEST_PART, LARGEST_PART = 5 * 1024**2, 5 * 1024**3
DEFAULT_TTL = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to mount, where and how; times in seconds, sizes in bytes."""

    bucket: str
    directory: Path
    prefix: str
    region: str | None
    endpoint: str | None
    path_style: bool
    read_only: bool
    allow_delete: bool
    allow_overwrite: bool
    allow_other: bool
    uid: int
    gid: int
    file_mode: int
    dir_mode: int
    metadata_ttl: float
    write_part_size: int
    foreground: bool


def parse(arguments: Sequence[str], *, uid: int, gid: int) -> Options:
    """Read a command line.

    Args:
        arguments: Without the program's name.
        uid: Owns what is there unless the command line says otherwise.
        gid: Its group.

    Raises:
        SystemExit: The command line is not one of ``mount-s3``, or holds an option that is not here.
    """
    parser = argparse.ArgumentParser(prog="mount-s3", allow_abbrev=False)
    parser.add_argument("bucket")
    parser.add_argument("directory", type=Path)
    parser.add_argument("-f", "--foreground", action="store_true")
    parser.add_argument("--prefix", type=_prefix, default="")
    parser.add_argument("--region")
    parser.add_argument("--endpoint-url", dest="endpoint")
    parser.add_argument("--force-path-style", dest="path_style", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--allow-delete", action="store_true")
    parser.add_argument("--allow-overwrite", action="store_true")
    parser.add_argument("--allow-other", action="store_true")
    parser.add_argument("--uid", type=int, default=uid)
    parser.add_argument("--gid", type=int, default=gid)
    parser.add_argument("--file-mode", type=_mode, default=0o644)
    parser.add_argument("--dir-mode", type=_mode, default=0o755)
    parser.add_argument("--metadata-ttl", type=float, default=DEFAULT_TTL)
    parser.add_argument("--write-part-size", type=_part, default=DEFAULT_PART)
    return Options(**vars(parser.parse_args(arguments)))


def _prefix(text: str) -> str:
    if text and not text.endswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in '/'")
    return text


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise argparse.ArgumentTypeError(f"{text} is not a mode from 0000 to 0777")
    return mode


def _part(text: str) -> int:
    size = int(text)
    if not SMALLEST_PART <= size <= LARGEST_PART:
        raise argparse.ArgumentTypeError(f"{size} is not from {SMALLEST_PART} to {LARGEST_PART} bytes")
    return size
