"""Findings of the validation rules that are as they should be, each with its reason beside the resource."""

from __future__ import annotations

from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct

EXPLICIT_ZONES = (
    "The environment file names the zones, so that synth asks AWS nothing and nothing ever moves."
)


def acknowledge(construct: IConstruct, *rules: str, reason: str) -> None:
    """Accepts findings on a construct and what it contains.

    Args:
        construct: where the findings are.
        rules: the rules with their plugin, such as ``AwsSolutions::AwsSolutions-S1``: only so are they
            reported.
        reason: why this is right here.
    """
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule in rules))


def acknowledge_patterns(construct: IConstruct, *resources: str, reason: str) -> None:
    """Accepts that policies name resources by patterns; those without a ``*`` are no finding.

    Args:
        construct: where the policies are.
        resources: what they name.
        reason: why this is right here.
    """
    stack = Stack.of(construct)
    names = [reported(stack.resolve(resource)) for resource in resources]
    rules = [f"AwsSolutions::AwsSolutions-IAM5[Resource::{name}]" for name in names if "*" in name]
    acknowledge(construct, *rules, reason=reason)


def reported(resource: Any) -> str:
    """Returns a resource as the security rules name it: what is imported goes by its export's name.

    Args:
        resource: text, or what CloudFormation makes text of.

    Raises:
        ValueError: it is another function than those that ARNs are made with.
    """
    match resource:
        case str():
            return resource
        case {"Fn::Join": [str(between), [*parts]]}:
            return between.join(map(reported, parts))
        case {"Fn::ImportValue": str(name)}:
            return name
        case {"Ref": str(id)}:
            return f"<{id}>"
        case {"Fn::GetAtt": [str(id), str(attribute)]}:
            return f"<{id}.{attribute}>"
    message = f"{resource}: no name is known by which the security rules report it: a text, Fn::Join, "
    raise ValueError(f"{message}Fn::ImportValue, Ref or Fn::GetAtt")
