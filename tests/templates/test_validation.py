"""What the validation rules say: nothing that is not acknowledged, and no acknowledgment for nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aws_cdk import App, Fn, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from cfnlint.api import lint_by_config
from cfnlint.config import ManualArgs
from constructs.acknowledged import reported
from constructs.host_role import HostRole
from constructs.policy_documents import allow, document

import app as project
import settings
from tests.templates.synthesis import Synthesized, findings, synthesize

# To cfn-lint this is mere information; but IAM grants nothing by an action on a resource of another type.
ACTIONS_AND_RESOURCES = "I3510"


@pytest.fixture(scope="module", params=settings.names())
def validated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Each environment with all validation that ``cdk synth`` does."""
    return synthesize(settings.load(request.param), tmp_path_factory.mktemp(request.param), validate=True)


def test_nothing_is_found(validated: Synthesized) -> None:
    assert [plugin["pluginName"] for plugin in validated.report["pluginReports"]] == [
        "AwsSolutions",
        "CloudFormation Validate",
    ]
    assert findings(validated.report, "violations") == []


def test_every_acknowledgment_is_of_use(validated: Synthesized) -> None:
    used = {
        (finding["acknowledgedAt"], finding["acknowledgedId"])
        for finding in findings(validated.report, "suppressedViolations")
    }
    assert validated.acknowledged() == used


def test_every_acknowledgment_has_a_reason(validated: Synthesized) -> None:
    for finding in findings(validated.report, "suppressedViolations"):
        assert len(finding["reason"]) > 40, finding["acknowledgedId"]


def test_patterns_are_acknowledged_whatever_names_them(tmp_path: Path) -> None:
    app = App(outdir=str(tmp_path), builtin_cloud_formation_validation=False)
    stack = Stack(app, "stack")
    role = HostRole(stack, "Role", environment=settings.load("local"), description="any")
    bucket = s3.CfnBucket(stack, "Bucket")
    for name in (bucket.ref, Fn.import_value("other:name"), "plain"):
        role.allow_read_images(name)
    project.check(app)
    with contextlib.suppress(RuntimeError):
        app.synth()
    report = json.loads((tmp_path / "validation-report.json").read_text())
    found = {finding["ruleName"] for finding in findings(report, "violations")}
    assert not [name for name in found if "IAM5" in name]
    assert findings(report, "suppressedViolations")


def test_resources_have_the_names_that_the_rules_report() -> None:
    stack = Stack(App(), "stack")
    table = dynamodb.CfnTable(stack, "Table", key_schema=[])
    names = {
        "plain/*": "plain/*",
        Fn.import_value("other:name"): "other:name",
        table.attr_arn: "<Table.Arn>",
        f"{table.ref}/*": "<Table>/*",
    }
    assert [reported(stack.resolve(name)) for name in names] == list(names.values())
    with pytest.raises(ValueError, match="it is unknown how the security rules report this"):
        reported(stack.resolve(Fn.select(0, Fn.split(",", table.ref))))


@pytest.mark.parametrize("name", settings.names())
def test_cfn_lint(name: str, synthesized: Callable[[str], Synthesized]) -> None:
    environment = synthesized(name)
    matches = lint_by_config(
        ManualArgs(
            templates=[str(file) for file in sorted(environment.directory.glob("*.template.json"))],
            regions=[environment.environment.region],
            # W3010: the environment file names the zones. W6001: the operator reads the web UI's stack alone.
            ignore_checks=["W3010", "W6001"],
            include_checks=[ACTIONS_AND_RESOURCES],
        )
    )
    assert [str(match) for match in matches] == []


def test_cfn_lint_finds_something(tmp_path: Path) -> None:
    file = tmp_path / "wrong.template.json"
    file.write_text(json.dumps({"Resources": {"Volume": {"Type": "AWS::EC2::Volume", "Properties": {}}}}))
    assert lint_by_config(ManualArgs(templates=[str(file)]))


def test_cfn_lint_knows_which_actions_are_for_which_resources(tmp_path: Path) -> None:
    group = "arn:aws:autoscaling:us-east-1:111122223333:autoScalingGroup:*:autoScalingGroupName/any"
    policy = document([allow(["autoscaling:SetInstanceHealth", "ec2:AttachVolume"], [group])])
    file = tmp_path / "wrong.template.json"
    made = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
    file.write_text(json.dumps({"Resources": {"Policy": made}}))
    (match,) = lint_by_config(
        ManualArgs(templates=[str(file)], regions=["us-east-1"], include_checks=[ACTIONS_AND_RESOURCES])
    )
    assert (match.rule.id, "ec2:AttachVolume" in match.message) == (ACTIONS_AND_RESOURCES, True)
