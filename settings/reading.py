"""Reads an environment file, and says in words what is wrong with it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from settings.checks import problems
from settings.model import Environment
from settings.problem import Problem, allowed, shown

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
        The environment, checked as a whole.

    Raises:
        SettingsError: There is no such environment, or its file is not valid. Each line of the message
            tells one reason: file, key, value and what is allowed.
    """
    if not directory.is_dir():
        raise SettingsError(
            f"{directory}: there is no such folder; allowed: one with NAME.toml for each environment"
        )
    known = names(directory)
    folder = directory.name if directory == ENVIRONMENTS else str(directory)
    if name not in known:
        there = ", ".join(known) or f"none, {folder} holds no *.toml"
        wrong = f"there is no environment {shown(name)}" if name else "no environment is named"
        raise SettingsError(f"{folder}: {wrong}; allowed: {there}")
    path = directory / f"{name}.toml"
    file = f"{folder}/{name}.toml"
    text = ""
    try:
        # Some editors put a byte order mark in front.
        text = path.read_text(encoding="utf-8-sig")
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise SettingsError(f"{file}: not valid TOML: {error}{_line(text, str(error))}") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    return _validated(document, name=name, file=file)


def _line(text: str, wrong: str) -> str:
    """Quote the line that a TOML error is about, and tell what is allowed there."""
    found = re.search(r"\(at line (\d+), column \d+\)$", wrong)
    if found is None:
        return ""
    line = text.split("\n")[int(found[1]) - 1].strip()
    quoted = "".join(one if one.isprintable() else "?" for one in line[:80])
    choice = "KEY = VALUE, with text in straight quotes, and true or false in lowercase"
    if wrong.startswith("Cannot"):
        choice = "each key and each [table] once, but one [[table]] for each item of a list"
    return f": {quoted}; allowed: {choice}"


def _validated(document: Mapping[str, Any], *, name: str, file: str) -> Environment:
    found = []
    if "name" in document:
        wrong = "unknown key, as an environment has the name of its file"
        found.append(Problem("name", document["name"], wrong, ", ".join(_keys(Environment))))
    try:
        environment = Environment.model_validate({**document, "name": name})
    except ValidationError as error:
        for detail in error.errors():
            # A list whose items are invalid counts as empty, but that is reported already.
            if not (detail["type"] == "too_short" and detail["input"]):
                found.append(_of_field(document, detail))
    else:
        found += problems(environment)
        if not found:
            return environment
    raise SettingsError("\n".join(problem.line(file) for problem in found))


# The key that names a table of a list; the tables of other lists go by number.
NAMED: Mapping[str, str] = {"fleets": "name", "builders": "architecture"}


def _key(document: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Name a place in the document; a fleet goes by its name, a builder by its architecture."""
    parts: list[str] = []
    for part in location:
        name = str(part + 1) if isinstance(part, int) else part
        if isinstance(part, int) and len(parts) == 1 and parts[0] in NAMED:
            table = document[parts[0]][part]
            name = str(table.get(NAMED[parts[0]], name) if isinstance(table, dict) else name)
        parts.append(name if re.fullmatch(r"[\w-]+", name, re.ASCII) else shown(name))
    return ".".join(parts)


def _of_field(document: Mapping[str, Any], error: ErrorDetails) -> Problem:
    """Put pydantic's finding in this module's words."""
    location, wrong = error["loc"], ""
    value: Any = error["input"]
    if location[-2:] == (value, "[key]"):  # pydantic's mark of a key that its table does not take
        location, value, wrong = location[:-1], document, "the table takes no such key"
        for part in location:
            value = value[part]
    key = _key(document, location)
    model, field = _place(location)
    if field is None:
        return Problem(key, value, _unknown(str(location[-1]), model), ", ".join(_keys(model)))
    if location == ("name",):
        wrong = "the file's name"
    choice = allowed(field)
    if not field.description and (table := _table(field)):
        choice = f"a table [{key}] with {', '.join(_keys(table))}"
    return Problem(key, None if error["type"] == "missing" else value, wrong, choice)


def _unknown(name: str, model: type[BaseModel]) -> str:
    """Tell what is wrong with a key that its table does not have, and which was probably meant."""
    there = Environment.model_fields.get(name)
    if model is not Environment and there and not _table(there):
        # In TOML a key belongs to the last table above it, however much is between them.
        return "unknown key in this table; a key of the file itself stands above all tables"
    near = difflib.get_close_matches(name, _keys(model), n=1)
    return f"unknown key, perhaps {near[0]}" if near else "unknown key"


def _place(location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Follow a location from table to table, to the first key that holds no table.

    Returns:
        The last table's model and the key's field; None: the table has no such key.
    """
    model: type[BaseModel] = Environment
    field: FieldInfo | None = None
    inside: type[BaseModel] | None = Environment
    for part in location:
        if inside and isinstance(part, str):
            model, field = inside, inside.model_fields.get(part)
            inside = _table(field) if field else None
    return model, field


def _table(field: FieldInfo) -> type[BaseModel] | None:
    """Find the model of the table, or of the tables, that a field holds."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    """List the keys that a table of a file may hold; the environment's own name is not one."""
    return tuple(key for key in model.model_fields if key != "name" or model is not Environment)
