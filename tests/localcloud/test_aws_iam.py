from __future__ import annotations

from typing import Any

import pytest

from localcloud.aws.iam import Need, judge


def policy(**statement: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}


def need(action: str = "ec2:AttachVolume", resource: str = "arn:x:volume/vol-1", **context: str) -> Need:
    return Need(
        action=action,
        resource=resource,
        context={key.replace("__", ":").replace("_", "/"): [value] for key, value in context.items()},
    )


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ({"Action": "ec2:AttachVolume"}, True),
        ({"Action": "ec2:attachvolume"}, True),
        ({"Action": ["s3:*", "ec2:Attach*"]}, True),
        ({"Action": "ec2:Detach*"}, False),
        ({"NotAction": "s3:*"}, True),
        ({"Action": "*", "Resource": "arn:x:volume/*"}, True),
        ({"Action": "*", "Resource": "arn:x:volume/vol-?"}, True),
        ({"Action": "*", "Resource": "arn:x:instance/*"}, False),
        ({"Action": "*", "NotResource": "arn:x:volume/*"}, False),
    ],
)
def test_actions_and_resources(statement: dict[str, Any], allowed: bool) -> None:
    assert (judge([policy(**statement)], need()) == "allowed") is allowed


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"StringEquals": {"aws:ResourceTag/team": "qa"}}, True),
        ({"StringEquals": {"aws:ResourceTag/team": ["ops", "qa"]}}, True),
        ({"StringEquals": {"aws:ResourceTag/team": "ops"}}, False),
        ({"StringNotEquals": {"aws:ResourceTag/team": "ops"}}, True),
        ({"StringLike": {"aws:ResourceTag/team": "q*"}}, True),
        ({"StringEquals": {"aws:ResourceTag/other": "qa"}}, False),
        ({"StringNotEquals": {"aws:ResourceTag/other": "qa"}}, True),
        ({"StringNotEquals": {"aws:ResourceTag/team": ["ops", "qa"]}}, False),
        ({"ForAllValues:StringEquals": {"aws:ResourceTag/other": "qa"}}, True),
        ({"ForAllValues:StringEquals": {"aws:ResourceTag/team": ["ops", "qa"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:ResourceTag/team": "ops"}}, False),
        ({"ArnLike": {"aws:ResourceTag/team": "q?"}}, True),
        ({"Bool": {"aws:ResourceTag/team": "QA"}}, True),
        ({"Null": {"aws:ResourceTag/other": "true"}}, True),
        ({"Null": {"aws:ResourceTag/team": "true"}}, False),
        ({"StringEquals": {"aws:ResourceTag/team": "${aws:ResourceTag/team}"}}, True),
        ({"StringLike": {"aws:ResourceTag/team": "${aws:ResourceTag/other}"}}, False),
        ({"StringEquals": {"aws:ResourceTag/team": "qa"}, "Bool": {"aws:ResourceTag/team": "x"}}, False),
    ],
)
def test_conditions(condition: dict[str, Any], allowed: bool) -> None:
    asked = need(aws__resourcetag_team="qa")
    assert (judge([policy(Action="*", Condition=condition)], asked) == "allowed") is allowed


@pytest.mark.parametrize("effect", ["Allow", "Deny"])
@pytest.mark.parametrize("operator", ["DateGreaterThan", "ForAnyValue:StringEquals", "StringEqualsIfExists"])
def test_a_condition_that_is_not_known_is_not_passed_over(operator: str, effect: str) -> None:
    other = policy(Effect=effect, Action="*", Condition={operator: {"aws:ResourceTag/team": "qa"}})
    with pytest.raises(NotImplementedError, match=f"does not support the condition {operator} of policies"):
        judge([policy(Action="*"), other], need(aws__resourcetag_team="qa"))


def test_a_key_of_several_values_needs_a_condition_about_all() -> None:
    asked = need("events:PutEvents", events__source="own")
    of_all = policy(Action="*", Condition={"ForAllValues:StringEquals": {"events:source": ["own"]}})
    assert judge([of_all], asked) == "allowed"
    of_one = policy(Action="*", Condition={"StringEquals": {"events:source": "own"}})
    with pytest.raises(NotImplementedError, match="events:source can have several values"):
        judge([of_one], asked)


def test_a_deny_wins() -> None:
    deny = policy(Effect="Deny", Action="ec2:*")
    assert judge([policy(Action="*"), deny], need()) == "denied"
    assert judge([], need()) == "unmentioned"


def test_principals_of_resource_policies() -> None:
    session = "arn:aws:sts::1:assumed-role/Host/i-1"
    for wanted, verdict in (
        ("*", "allowed"),
        ({"AWS": "arn:aws:iam::1:role/Host"}, "allowed"),
        ({"AWS": "arn:aws:iam::1:root"}, "allowed"),
        ({"AWS": "arn:aws:iam::1:role/Other"}, "unmentioned"),
        ({"Service": "ec2.amazonaws.com"}, "unmentioned"),
        ("arn:aws:iam::1:role/Host", "unmentioned"),
    ):
        assert judge([policy(Action="*", Principal=wanted)], need(), principal=session) == verdict
