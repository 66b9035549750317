"""Accepts findings of the validation rules, each with its reason, beside the resource."""

from __future__ import annotations

from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import IConstruct

EXPLICIT_ZONES = "The environment file names the zones, so that synth needs no AWS and nothing ever moves."


def acknowledge(construct: IConstruct, *rules: str, reason: str) -> None:
    """Accepts findings on a construct and what it contains.

    Args:
        construct: where the findings are.
        rules: the rules with their plugin, such as ``AwsSolutions::AwsSolutions-S1``, as they are reported.
        reason: why this is right here.
    """
    Validations.of(construct).acknowledge(*(Acknowledgment(id=rule, reason=reason) for rule in rules))


def acknowledge_patterns(construct: IConstruct, *resources: str, reason: str) -> None:
    """Accepts that policies name resources by patterns; resources without a ``*`` are never reported.

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
    """Returns a resource as the security rules name it: an import goes by its export's name.

    Args:
        resource: text, or a function that CloudFormation resolves to text.

    Raises:
        ValueError: it is not one of the functions that ARNs are built with.
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
    message = f"{resource}: it is unknown how the security rules report this; allowed: text, Fn::Join, "
    raise ValueError(f"{message}Fn::ImportValue, Ref, Fn::GetAtt")
