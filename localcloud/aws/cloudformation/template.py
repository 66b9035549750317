"""Templates: what they depend on, and what their intrinsic functions evaluate to. Pure functions."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

SECTIONS = {
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Rules",
    "Mappings",
    "Conditions",
    "Resources",
    "Outputs",
}
ATTRIBUTES = {
    "Type",
    "Properties",
    "DependsOn",
    "Condition",
    "Metadata",
    "CreationPolicy",
    "UpdatePolicy",
    "DeletionPolicy",
    "UpdateReplacePolicy",
}
POLICIES = ("Delete", "Retain", "RetainExceptOnCreate")
PSEUDO = {
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::NotificationARNs",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
}
_SUBSTITUTION = re.compile(r"\$\{([^!}][^}]*)\}")
_NOTHING = object()


class TemplateError(Exception):
    """A template that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What intrinsic functions refer to.

    Attributes:
        mappings: The template's Mappings section.
        ref: The value of a parameter, pseudo parameter or resource.
        attribute: The value of a resource's attribute: logical id, attribute name.
        condition: Whether the condition of this name holds.
        imported: The value of another stack's export.
        zones: The names of the region's availability zones.
    """

    mappings: Mapping[str, Any]
    ref: Callable[[str], Any]
    attribute: Callable[[str, str], Any]
    condition: Callable[[str], bool]
    imported: Callable[[str], Any]
    zones: tuple[str, ...]


def parse(body: str) -> dict[str, Any]:
    """Read a template.

    Args:
        body: JSON, or the YAML of the CDK's bootstrap template.

    Returns:
        The template with its sections and resource attributes checked.

    Raises:
        TemplateError: It is not a template, or has parts that are not supported here.
    """
    try:
        template = json.loads(body) if body.lstrip().startswith("{") else _load_yaml(body)
    except ValueError as error:
        raise TemplateError(f"Template format error: {error}") from error
    if not isinstance(template, dict) or not template.get("Resources"):
        raise TemplateError("Template format error: At least one Resources member must be defined.")
    if unknown := sorted(template.keys() - SECTIONS):
        raise TemplateError(f"Invalid template property or properties [{', '.join(unknown)}]")
    for name, resource in template["Resources"].items():
        if unknown := sorted(resource.keys() - ATTRIBUTES):
            raise TemplateError(f"Resource {name}: unsupported attribute {', '.join(unknown)}")
        for attribute in ("DeletionPolicy", "UpdateReplacePolicy"):
            if resource.get(attribute, "Delete") not in POLICIES:
                raise TemplateError(
                    f"Resource {name}: the local cloud does not support {attribute} {resource[attribute]}"
                )
    known = PSEUDO | template["Resources"].keys() | template.get("Parameters", {}).keys()
    missing = sorted(references({**template, "Metadata": {}, "Parameters": {}}) - known)
    if missing:
        raise TemplateError(
            f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the "
            "Resources block of the template"
        )
    return template


def _load_yaml(body: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML with CloudFormation's short forms."""

    def short(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = loader.construct_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            value = loader.construct_sequence(node, deep=True)
        else:
            value = loader.construct_mapping(node, deep=True)
        if suffix == "GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}

    Loader.add_multi_constructor("!", short)
    # Dates stay text: policy versions and the format version look like dates.
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(body, Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def references(value: Any) -> set[str]:
    """All names that ``Ref``, ``Fn::GetAtt``, ``Fn::Sub`` and ``DependsOn`` mention in ``value``."""
    return set(_references(value))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    if not isinstance(value, dict):
        return
    for key, argument in value.items():
        if key == "Ref" and isinstance(argument, str):
            yield argument
        elif key == "Fn::GetAtt":
            yield argument.split(".")[0] if isinstance(argument, str) else argument[0]
        elif key == "Fn::Sub":
            text, extra = argument if isinstance(argument, list) else (argument, {})
            names = {name.split(".")[0] for name in _SUBSTITUTION.findall(text)}
            yield from names - extra.keys()
            yield from _references(extra)
        elif key == "DependsOn":
            yield from [argument] if isinstance(argument, str) else argument
        else:
            yield from _references(argument)


def creation_order(resources: Mapping[str, Any]) -> list[str]:
    """The logical ids, each after all that it depends on, otherwise as in the template.

    Raises:
        TemplateError: They depend on each other in a circle.
    """
    position = {name: index for index, name in enumerate(resources)}
    sorter = TopologicalSorter(
        {name: references(resource) & resources.keys() for name, resource in resources.items()}
    )
    order: list[str] = []
    try:
        sorter.prepare()
    except CycleError as error:
        names = ", ".join(sorted(set(error.args[1])))
        raise TemplateError(f"Circular dependency between resources: [{names}]") from error
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: position[name])
        order += ready
        sorter.done(*ready)
    return order


def resolve(value: Any, scope: Scope) -> Any:
    """Work out all intrinsic functions in a value.

    Args:
        value: A part of a template.
        scope: What it may refer to.

    Returns:
        The plain value; None for ``AWS::NoValue`` itself, which inside lists and maps just disappears.

    Raises:
        TemplateError: A function is unknown or has the wrong arguments.
    """
    result = _resolve(value, scope)
    return None if result is _NOTHING else result


def _resolve(value: Any, scope: Scope) -> Any:
    if isinstance(value, list):
        items = (_resolve(item, scope) for item in value)
        return [item for item in items if item is not _NOTHING]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref":
            return _NOTHING if argument == "AWS::NoValue" else scope.ref(argument)
        if name == "Condition" and isinstance(argument, str):
            return scope.condition(argument)
        if name.startswith("Fn::"):
            function = _FUNCTIONS.get(name)
            if function is None:
                raise TemplateError(f"Template error: {name} is not supported by the local cloud")
            try:
                return function(argument, scope)
            except (TypeError, ValueError, KeyError, IndexError) as error:
                raise TemplateError(
                    f"Template error: invalid use of {name}: {argument!r} ({error})"
                ) from error
    items = ((key, _resolve(item, scope)) for key, item in value.items())
    return {key: item for key, item in items if item is not _NOTHING}


def _get_att(argument: Any, scope: Scope) -> Any:
    name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
    return scope.attribute(name, _resolve(attribute, scope))


def _join(argument: Any, scope: Scope) -> str:
    separator, items = argument
    return str(separator).join(str(item) for item in _resolve(items, scope))


def _sub(argument: Any, scope: Scope) -> str:
    text, extra = argument if isinstance(argument, list) else (argument, {})
    values = _resolve(extra, scope)

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in values:
            return str(values[name])
        if "." in name:
            return str(scope.attribute(*name.split(".", 1)))
        return str(scope.ref(name))

    return re.sub(r"\$\{!([^}]*)\}", r"${\1}", _SUBSTITUTION.sub(replace, text))


def _if(argument: Any, scope: Scope) -> Any:
    condition, yes, no = argument
    return _resolve(yes if scope.condition(condition) else no, scope)


def _find_in_map(argument: Any, scope: Scope) -> Any:
    name, first, second, *_ = (_resolve(item, scope) for item in argument)
    return scope.mappings[name][first][second]


def _cidr(argument: Any, scope: Scope) -> list[str]:
    block, count, bits = _resolve(argument, scope)
    subnets = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
    return [str(next(subnets)) for _ in range(int(count))]


def _select(argument: Any, scope: Scope) -> Any:
    index, items = _resolve(argument, scope)
    return items[int(index)]


def _split(argument: Any, scope: Scope) -> list[str]:
    separator, text = _resolve(argument, scope)
    return str(text).split(separator)


def _base64(argument: Any, scope: Scope) -> str:
    return base64.b64encode(str(_resolve(argument, scope)).encode()).decode()


def _equals(argument: Any, scope: Scope) -> bool:
    left, right = _resolve(argument, scope)
    return bool(left == right)


def _contains(argument: Any, scope: Scope) -> bool:
    items, item = _resolve(argument, scope)
    return item in items


_FUNCTIONS: dict[str, Callable[[Any, Scope], Any]] = {
    "Fn::And": lambda argument, scope: all(_resolve(argument, scope)),
    "Fn::Base64": _base64,
    "Fn::Cidr": _cidr,
    "Fn::Contains": _contains,
    "Fn::Equals": _equals,
    "Fn::FindInMap": _find_in_map,
    "Fn::GetAZs": lambda argument, scope: list(scope.zones),
    "Fn::GetAtt": _get_att,
    "Fn::If": _if,
    "Fn::ImportValue": lambda argument, scope: scope.imported(_resolve(argument, scope)),
    "Fn::Join": _join,
    "Fn::Not": lambda argument, scope: not _resolve(argument, scope)[0],
    "Fn::Or": lambda argument, scope: any(_resolve(argument, scope)),
    "Fn::Select": _select,
    "Fn::Split": _split,
    "Fn::Sub": _sub,
    "Fn::ToJsonString": lambda argument, scope: json.dumps(_resolve(argument, scope)),
}
