"""Findings of the security rules that are as they should be, each with its reason beside the resource."""

from __future__ import annotations

from aws_cdk import Acknowledgment, Validations
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accepts one finding of cdk-nag's AwsSolutions pack on a construct and what it contains.

    Args:
        construct: where the finding is.
        rule: the rule without the pack's name, such as ``S1`` or ``IAM5[Resource::*]``.
        reason: why this is right here.
    """
    Validations.of(construct).acknowledge(
        Acknowledgment(id=f"AwsSolutions::AwsSolutions-{rule}", reason=reason)
    )
