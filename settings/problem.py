"""An error message in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

from pydantic.fields import FieldInfo


class Problem(NamedTuple):
    """What is wrong with one key."""

    key: str
    value: object  # None: the key is missing
    wrong: str
    allowed: str

    def line(self, file: str) -> str:
        """The message, with the name of the file."""
        value = "is missing" if self.value is None else f"= {shown(self.value)}"
        wrong = f": {self.wrong}" if self.wrong else ""
        return f"{file}: {self.key} {value}{wrong}; allowed: {self.allowed}"


def shown(value: object) -> str:
    """A value as in TOML, but tables as in JSON: one printable line, cut short."""
    written = json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(one if one.isprintable() else json.dumps(one).strip('"') for one in written)
    return text if len(text) <= 120 else f"{text[:117]}..."


def allowed(field: FieldInfo) -> str:
    """Tell what a field may hold: its description, the choices of a literal, or its kind."""
    if field.description:
        return field.description
    inner = (field.annotation, *get_args(field.annotation))
    if choices := [choice for kind in inner for choice in get_args(kind) if isinstance(choice, str)]:
        return " or ".join(shown(choice) for choice in choices)
    return "true or false" if field.annotation is bool else "a table"


def twice(key: str, values: Sequence[object], allowed: str) -> Iterator[Problem]:
    """Find what a list holds more than once."""
    for value in dict.fromkeys(value for value in values if values.count(value) > 1):
        yield Problem(key, value, "listed twice", allowed)
