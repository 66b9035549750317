"""IAM's policies as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import aws_iam as iam

_VERSION = "2012-10-17"


def assumed_by(service: str, *, source: str | None = None) -> Mapping[str, Any]:
    """Returns the document that lets an AWS service assume a role.

    Args:
        service: the service's principal.
        source: the ARN, maybe with wildcards, of what the service may act for: otherwise others could have it
            act for resources of theirs. None: the service does not say what it acts for.
    """
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if source:
        statement["Condition"] = {
            "StringEquals": {"aws:SourceAccount": source.split(":")[4]},
            "ArnLike": {"aws:SourceArn": source},
        }
    return document([statement])


def allow(
    actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Returns a statement that allows actions on resources."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**statement, "Condition": conditions} if conditions else statement


def inline_policy(name: str, statements: Sequence[Mapping[str, Any]]) -> iam.CfnRole.PolicyProperty:
    """Returns a role's inline policy."""
    return iam.CfnRole.PolicyProperty(policy_name=name, policy_document=document(statements))


def document(statements: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns a policy document."""
    return {"Version": _VERSION, "Statement": list(statements)}
