"""Rules that turn a message into parameters of ``isos post``. Nothing here does any I/O."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

# What identifies a build in openQA: posting it twice would run everything twice.
IDENTITY = ("DISTRI", "VERSION", "FLAVOR", "ARCH", "BUILD")
FIELD = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
# AMQP's topic patterns: words separated by dots, * for one word, # for any number of words.
TOPIC = r"([A-Za-z0-9_-]+|[*#])(\.([A-Za-z0-9_-]+|[*#]))*"
_PLACEHOLDER = re.compile(rf"\{{(?P<field>{FIELD})\}}")


class RuleError(Exception):
    """A message lacks what a rule needs; the text is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message.

    Attributes:
        id: The sender's ID, unique.
        topic: Its routing key.
        body: The decoded JSON object.
    """

    id: str
    topic: str
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which messages announce a build, and what openQA is told about it.

    Attributes:
        topic: An AMQP topic pattern.
        filter: By field of the body, a pattern with ``*`` and ``?`` that its value must match. A dot in a
            field leads into an object.
        post: Parameters of ``isos post``; ``{field}`` stands for a field's value.
    """

    topic: str
    filter: Mapping[str, str]
    post: Mapping[str, str]

    def matches(self, message: Message) -> bool:
        """Tell whether the rule applies to a message."""
        return topic_matches(self.topic, message.topic) and all(
            (value := _text(find(message.body, field))) is not None and fnmatchcase(value, pattern)
            for field, pattern in self.filter.items()
        )

    def parameters(self, message: Message) -> dict[str, str]:
        """Fill the parameters in from a message.

        Raises:
            RuleError: The message lacks a field, or it is not a single value.
        """

        def value(found: re.Match[str]) -> str:
            text = _text(find(message.body, found["field"]))
            if not text:
                raise RuleError(f"the body has no value at {found['field']}")
            if not text.isprintable():
                # JSON can hold half a surrogate pair, which is no valid text for openQA.
                raise RuleError(f"the body has no printable text at {found['field']}: {text!r}")
            return text

        return {name: _PLACEHOLDER.sub(value, template) for name, template in self.post.items()}


def builds(post: Mapping[str, str], each: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Make the parameters of a build for each combination of values.

    Args:
        post: Parameters of all builds; ``{NAME}`` in them stands for the build's value of ``NAME``.
        each: By parameter, the values that it takes in turn.
    """

    def filled(values: Mapping[str, str]) -> dict[str, str]:
        def value(found: re.Match[str]) -> str:
            return values.get(found["field"], found[0])

        return {**{name: _PLACEHOLDER.sub(value, template) for name, template in post.items()}, **values}

    return [filled(dict(zip(each, values, strict=True))) for values in product(*each.values())]


def one_by_one(tables: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Turn tables with ``post`` and ``each`` into a table with ``post`` for each single build."""
    for table in tables:
        rest = {name: value for name, value in table.items() if name != "each"}
        yield from (rest | {"post": post} for post in builds(table["post"], table["each"]))


def topic_matches(pattern: str, topic: str) -> bool:
    """Tell whether a topic matches an AMQP topic pattern."""
    return _words_match(pattern.split("."), topic.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])


def find(body: Mapping[str, Any], field: str) -> Any:
    """Return the value at a field's path in a body; None where there is none."""
    found: Any = body
    for name in field.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def malformed(template: str) -> str | None:
    """Return a brace of a template that belongs to no placeholder, with what follows it; None if all do."""
    rest = re.search(r"[{}].*", _PLACEHOLDER.sub("", template))
    return rest[0] if rest else None


def fields(template: str) -> frozenset[str]:
    """Return the fields that a template's placeholders stand for."""
    return frozenset(found["field"] for found in _PLACEHOLDER.finditer(template))


def _text(value: Any) -> str | None:
    """A single value as text, in JSON's form: ``true``, ``42``; None if it is not a single value."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, int | float) else None


def topics(rules: tuple[Rule, ...]) -> Iterator[str]:
    """Yield each topic pattern once."""
    yield from dict.fromkeys(rule.topic for rule in rules)


def parse(topic: object, identifier: object, raw: bytes) -> Message:
    """Make a message from what a broker delivers.

    Args:
        topic: The routing key.
        identifier: The message's ID. If the sender gave none, it is derived from the content.
        raw: The body.

    Raises:
        RuleError: The body is not a JSON object, or there is no topic.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RuleError(f"its body is not JSON: {error}") from error
    return of(topic, identifier or hashlib.sha256(f"{topic}\n".encode() + raw).hexdigest(), body)


def of(topic: object, identifier: object, body: object) -> Message:
    """Make a message from its decoded parts.

    Raises:
        RuleError: One is missing or of the wrong type.
    """
    if not isinstance(topic, str) or not topic:
        raise RuleError("it has no topic")
    if not isinstance(identifier, str) or not identifier:
        raise RuleError("it has no id")
    if not isinstance(body, dict):
        raise RuleError("its body is not a JSON object")
    return Message(id=identifier, topic=topic, body=body)
