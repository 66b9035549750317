"""Findings of the validation rules that are as they should be, each with its reason beside the resource."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct

EXPLICIT_ZONES = (
    "The environment file names the zones, so that synth asks AWS nothing and nothing ever moves."
)


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accepts one finding on a construct and what it contains.

    Args:
        construct: where the finding is.
        rule: the rule with its plugin, such as ``AwsSolutions::AwsSolutions-S1``: only so is it reported.
        reason: why this is right here.
    """
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))
