"""Configuration from templates: ``NAME.j2`` becomes ``NAME``, anything else is copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from userdata.host.errors import HostError
from userdata.host.secrets import write_private

SUFFIX = ".j2"
# A quadlet of this name is rendered once per worker instance: NAME@1.container, NAME@2.container …
INSTANCE = ("@.container", "@.network")


@dataclass(frozen=True)
class File:
    """A file to write: its path below the target folder, and its text."""

    path: Path
    text: str


def render(folder: Path, context: Mapping[str, Any]) -> list[File]:
    """Renders all files of a folder, in the order of their names; none if it does not exist.

    Args:
        folder: the templates.
        context: their variables; using any other is an error.

    Raises:
        HostError: a template uses a variable that is not in the context, or is malformed.
    """
    if not folder.is_dir():
        return []
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # INI files, units and nginx: nothing is HTML
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return [
        file
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for file in _render(environment, folder, path.relative_to(folder), context)
    ]


def write(files: Iterable[File], folder: Path, *, mode: int, user: int | None = None) -> None:
    """Writes rendered files below a folder.

    Args:
        files: what to write.
        folder: created if missing.
        mode: the files' permissions.
        user: their owner and group, if this process is root; None: this process's.
    """
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, file.text, mode=mode, user=user)


def _render(
    environment: jinja2.Environment, folder: Path, path: Path, context: Mapping[str, Any]
) -> list[File]:
    if path.suffix != SUFFIX:
        return [File(path, (folder / path).read_text(encoding="utf-8"))]
    target = path.with_suffix("")
    try:
        template = environment.get_template(path.as_posix())
        if not target.name.endswith(INSTANCE):
            return [File(target, template.render(context))]
        return [
            File(
                target.with_name(target.name.replace("@.", f"@{number}.")),
                template.render(context, number=number),
            )
            for number in range(1, int(context["workers"]) + 1)
        ]
    except jinja2.TemplateError as error:
        raise HostError(f"template {path}: {error.message}") from error
