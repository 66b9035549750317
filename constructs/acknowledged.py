"""Findings of the validation rules that are as they should be, each with its reason beside the resource."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
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
