"""IAM policies: whether they allow a request. Pure functions.

Rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

Policy = Mapping[str, Any]
Verdict = Literal["allowed", "denied", "unmentioned"]


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request needs to be allowed.

    Attributes:
        action: Service and action, such as ``s3:GetObject``.
        resource: The ARN; ``*`` for actions that know no resources.
        context: Condition keys in lower case, and their values.
    """

    action: str
    resource: str
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)


def judge(policies: Iterable[Policy], need: Need, *, principal: str | None = None) -> Verdict:
    """What policies say about a need.

    Args:
        policies: The policy documents.
        need: What is to be done.
        principal: The caller's ARN or, of a service, its name, for policies of resources; None for those of
            identities.

    Returns:
        ``denied`` if any statement denies it, ``allowed`` if any allows it, else ``unmentioned``.
    """
    effects = {
        statement["Effect"]
        for policy in policies
        for statement in _list(policy["Statement"])
        if _applies(statement, need, principal)
    }
    if "Deny" in effects:
        return "denied"
    return "allowed" if "Allow" in effects else "unmentioned"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _applies(statement: Policy, need: Need, principal: str | None) -> bool:
    def among(key: str, value: str, matches: Callable[[str, str], bool]) -> bool:
        if f"Not{key}" in statement:
            return not any(matches(pattern, value) for pattern in _list(statement[f"Not{key}"]))
        return any(matches(pattern, value) for pattern in _list(statement.get(key, [])))

    if not among("Action", need.action.lower(), lambda pattern, value: like(pattern.lower(), value)):
        return False
    if not among("Resource", need.resource, lambda pattern, value: like(_filled(pattern, need), value)):
        return False
    if principal is not None and not _is_principal(statement.get("Principal"), principal):
        return False
    return all(
        _holds(operator, key, _list(values), need)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _is_principal(wanted: Any, principal: str) -> bool:
    if wanted == "*":
        return True
    if not isinstance(wanted, dict):
        return False
    if not principal.startswith("arn:"):
        return principal in _list(wanted.get("Service", []))
    account = principal.split(":")[4]
    # arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION acts for arn:aws:iam::ACCOUNT:role/ROLE.
    role = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", principal)
    accepted = {"*", principal, role, account, f"arn:aws:iam::{account}:root"}
    return any(name in accepted for name in _list(wanted.get("AWS", [])))


def _filled(pattern: str, need: Need) -> str:
    """A pattern with its policy variables filled in; an unknown one matches nothing."""

    def value(match: re.Match[str]) -> str:
        found = need.context.get(match[1].lower())
        return found[0] if found else "\0"

    return re.sub(r"\$\{([^}*?$]+)\}", value, pattern)


@lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    parts = (
        ".*" if part == "*" else "." if part == "?" else re.escape(part)
        for part in re.split(r"([*?])", pattern)
    )
    return re.compile("".join(parts), re.DOTALL)


def like(pattern: str, value: str) -> bool:
    """Whether a value matches a pattern with ``*`` and ``?``."""
    return _pattern(pattern).fullmatch(value) is not None


def _bool(wanted: str, actual: str) -> bool:
    return str(wanted).lower() == actual.lower()


# Those that the project's policies and the CDK's have.
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "arnlike": like,
    "bool": _bool,
    "stringequals": lambda wanted, actual: wanted == actual,
    "stringlike": like,
}
_NEGATED = {"stringnotequals": "stringequals"}
# Keys that can have several values, so that a condition must say how many of them it is about: the IAM user
# guide, "Single-valued vs. multivalued context keys".
_SEVERAL = {"autoscaling:vpczoneidentifiers", "aws:tagkeys", "dynamodb:leadingkeys", "events:source"}


def _holds(operator: str, key: str, wanted: list[Any], need: Need) -> bool:
    """Whether one condition holds.

    Raises:
        NotImplementedError: The operator is not known here, or AWS does not say what it does with this key,
            so it must neither allow nor fail to deny.
    """
    actual = need.context.get(key.lower())
    name = operator.lower()
    if name == "null":
        return str(wanted[0]).lower() == str(actual is None).lower()
    quantifier, _, name = name.rpartition(":")
    negated = name in _NEGATED
    check = _OPERATORS.get(_NEGATED.get(name, name))
    if check is None or quantifier not in ("", "forallvalues"):
        raise NotImplementedError(f"The local cloud does not support the condition {operator} of policies.")
    if key.lower() in _SEVERAL and not quantifier:
        raise NotImplementedError(
            f"{key} can have several values: a policy needs ForAllValues:{operator} instead of {operator}."
        )
    if actual is None:
        return negated or quantifier == "forallvalues"

    def matches(value: str) -> bool:
        found = any(check(_filled(str(pattern), need), value) for pattern in wanted)
        return found != negated

    return all(matches(value) for value in actual)


def read(document: str | Mapping[str, Any]) -> Policy:
    """Read a policy document."""
    return json.loads(document) if isinstance(document, str) else document
