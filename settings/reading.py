"""Reads an environment file, and puts what is wrong with it into words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from settings.builder import Builder
from settings.checks import problems
from settings.content import Content
from settings.messages import Rule, Schedule
from settings.model import (
    Backups,
    Database,
    Domain,
    Environment,
    Fleet,
    Image,
    Network,
    Rds,
    SignIn,
    WebUi,
)
from settings.problem import Problem, allowed, shown
from settings.timetable import Entry

ENVIRONMENTS = Path(__file__).parents[1] / "environments"


class SettingsError(Exception):
    """An environment cannot be used; the message has one line for each reason."""


def names(directory: Path = ENVIRONMENTS) -> tuple[str, ...]:
    """List the environments that a directory describes, in alphabetical order."""
    return tuple(sorted(path.stem for path in directory.glob("*.toml") if path.is_file()))


def load(name: str, directory: Path = ENVIRONMENTS) -> Environment:
    """Read and validate an environment.

    Args:
        name: The environment's name: that of its file without ``.toml``.
        directory: Where the files are.

    Returns:
        The environment, with all that follows from its settings checked.

    Raises:
        SettingsError: There is no such environment, or its file is not in order. Each line of the message
            tells one reason: file, key, value and what is allowed.
    """
    known = names(directory)
    if name not in known:
        there = ", ".join(known) or f"none, {directory.name}/ holds no *.toml"
        wrong = f"there is no environment {shown(name)}" if name else "no environment is named"
        raise SettingsError(f"{directory.name}: {wrong}; allowed: {there}")
    path = directory / f"{name}.toml"
    file = f"{directory.name}/{name}.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise SettingsError(f"{file}: not valid TOML: {error}") from None
    return _validated(document, name=name, file=file)


def _validated(document: Mapping[str, Any], *, name: str, file: str) -> Environment:
    found = []
    if "name" in document:
        wrong = "unknown key, an environment has its file's name"
        found.append(Problem("name", document["name"], wrong, ", ".join(_keys(Environment))))
    try:
        environment = Environment.model_validate({**document, "name": name})
    except ValidationError as error:
        for detail in error.errors():
            # A list counts as empty when its items are not in order, which is told already.
            if not (detail["type"] == "too_short" and detail["input"]):
                found.append(_of_field(document, detail))
    else:
        found += problems(environment)
        if not found:
            return environment
    raise SettingsError("\n".join(problem.line(file) for problem in found))


SECTIONS: Mapping[str, type[BaseModel]] = {
    "network": Network,
    "image": Image,
    "domain": Domain,
    "sign_in": SignIn,
    "database": Database,
    "webui": WebUi,
    "backups": Backups,
    "content": Content,
    "schedule": Schedule,
    "fleets": Fleet,
    "builders": Builder,
    "timetable": Entry,
}
# Lists of tables, and the key by which each table goes; None: its number.
LISTS: Mapping[str, str | None] = {"fleets": "name", "builders": "architecture", "timetable": None}


def _key(document: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Name a place in the document; a fleet goes by its name, a builder by its architecture."""
    parts: list[str] = []
    for part in location:
        name = str(part)
        if isinstance(part, int) and len(parts) == 1 and parts[0] in LISTS:
            table = document[parts[0]][part]
            key = LISTS[parts[0]]
            name = str(table.get(key, part + 1) if key and isinstance(table, dict) else part + 1)
        elif isinstance(part, int):
            name = str(part + 1)
        parts.append(name if re.fullmatch(r"[\w-]+", name, re.ASCII) else shown(name))
    return ".".join(parts)


def _of_field(document: Mapping[str, Any], error: ErrorDetails) -> Problem:
    """Put pydantic's finding in this module's words."""
    location = error["loc"]
    key = _key(document, location)
    model = _model(location)
    if error["type"] == "extra_forbidden":
        return Problem(key, error["input"], "unknown key", ", ".join(_keys(model)))
    field = next(model.model_fields[str(part)] for part in reversed(location) if part in model.model_fields)
    return Problem(key, None if error["type"] == "missing" else error["input"], "", allowed(field))


def _model(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Find the model that a key belongs to: a table's, or the environment for the tables themselves."""
    if location[:2] == ("database", "rds") and len(location) > 2:
        return Rds
    if location[:2] == ("schedule", "rules") and len(location) > 3:
        return Rule
    inside = len(location) > (2 if location[0] in LISTS else 1)
    return SECTIONS.get(str(location[0]), Environment) if inside else Environment


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    """List the keys that a file may hold; the environment's own name is not one."""
    return tuple(key for key in model.model_fields if key != "name" or model is not Environment)
