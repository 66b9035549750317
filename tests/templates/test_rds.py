"""RDS for the database: beside the container while it moves, instead of it, and the way between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from cfnlint.api import lint_by_config
from cfnlint.config import ManualArgs

import settings
from settings import Database, Environment, Rds
from tests.templates.synthesis import Json, Synthesized, document, exports, findings, imports, synthesize

RDS = Rds(instance_class="db.m7g.large", volume_gib=200)
ORDER = ("network", "storage", "database", "webui", "workers")
INSTANCE = "AWS::RDS::DBInstance"


def with_database(name: str, **changes: Any) -> Environment:
    asked = settings.load(name)
    return asked.model_copy(update={"database": asked.database.model_copy(update=changes)})


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """openQA uses the container; RDS is there to move to."""
    return synthesize(with_database("production", rds=RDS), tmp_path_factory.mktemp("beside"))


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """openQA uses RDS; the container's volume is kept."""
    return synthesize(with_database("production", rds=RDS, engine="rds"), tmp_path_factory.mktemp("moved"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """There is nothing but RDS; all that validates templates looks at it."""
    asked = settings.load("production").model_copy(update={"database": Database(engine="rds", rds=RDS)})
    return synthesize(asked, tmp_path_factory.mktemp("alone"), validate=True)


def instance(synthesized: Synthesized) -> Json:
    ((_, found),) = synthesized.resources(INSTANCE, "database").items()
    return found


def webui(synthesized: Synthesized) -> Json:
    (launched,) = synthesized.properties("AWS::EC2::LaunchTemplate", "webui")
    return document(launched["LaunchTemplateData"])


def test_the_instance_is_safe(alone: Synthesized) -> None:
    found = instance(alone)
    asked = found["Properties"]
    assert (found["DeletionPolicy"], found["UpdateReplacePolicy"]) == ("Snapshot", "Snapshot")
    assert asked["MultiAZ"] is asked["StorageEncrypted"] is asked["DeletionProtection"] is True
    assert asked["PubliclyAccessible"] is asked["DeleteAutomatedBackups"] is False
    assert asked["BackupRetentionPeriod"] == alone.environment.backups.keep_days
    assert (asked["DBInstanceClass"], asked["AllocatedStorage"]) == ("db.m7g.large", "200")
    (parameters,) = alone.properties("AWS::RDS::DBParameterGroup", "database")
    assert parameters["Parameters"]["rds.force_ssl"] == "1"
    assert parameters["Family"] == f"postgres{asked['EngineVersion']}"
    (subnets,) = alone.properties("AWS::RDS::DBSubnetGroup", "database")
    assert len(subnets["SubnetIds"]) == len(alone.environment.network.availability_zones)
    artifact = alone.manifest["artifacts"]["openqa-production-database"]["properties"]
    assert artifact["terminationProtection"] is True


def test_no_key_of_openqas_api_comes_into_the_log(alone: Synthesized) -> None:
    """A slow statement is logged, of which the key may be a parameter."""
    (parameters,) = alone.properties("AWS::RDS::DBParameterGroup", "database")
    assert parameters["Parameters"]["log_parameter_max_length"] == "0"


def test_the_password_is_that_of_the_secret_and_in_no_template(alone: Synthesized) -> None:
    password = instance(alone)["Properties"]["MasterUserPassword"]
    begin, arn, end = password["Fn::Join"][1]
    assert (begin, end) == ("{{resolve:secretsmanager:", ":SecretString:::}}")
    (read,) = webui(alone)["secrets"].keys() & {"database"}
    assert arn["Fn::ImportValue"] in webui(alone)["secrets"][read]


def test_nothing_of_a_database_host_is_left(alone: Synthesized) -> None:
    assert not alone.resources("AWS::AutoScaling::AutoScalingGroup", "database")
    assert not alone.resources("AWS::IAM::Role", "database")
    assert len(alone.resources("AWS::EC2::Volume")) == 1
    names = [record["Name"] for record in alone.properties("AWS::Route53::RecordSet", "storage")]
    assert names == ["webui.production.openqa.internal."]
    metrics = {alarm["MetricName"] for alarm in alone.properties("AWS::CloudWatch::Alarm", "database")}
    assert metrics == {"FreeStorageSpace", "CPUUtilization"}


def test_the_webui_gets_the_name_in_the_certificate(alone: Synthesized, moved: Synthesized) -> None:
    for synthesized, was_ours in ((alone, False), (moved, True)):
        assert "EndpointAddress" in webui(synthesized)["rds"]["name"]
        assert webui(synthesized)["rds"]["moved"] == was_ours
        (policies,) = (role["Policies"] for role in synthesized.properties("AWS::IAM::Role", "webui"))
        assert "database-ca" not in str(policies)


def test_no_backups_of_ours_are_on_the_dashboard(alone: Synthesized, beside: Synthesized) -> None:
    shown = [
        one.properties("AWS::CloudWatch::Dashboard", "dashboard")[0]["DashboardBody"]
        for one in (alone, beside)
    ]
    for what in ("BackupAgeSeconds", '"openqa-production-database"'):
        assert [what in body for body in shown] == [False, True]


def test_rds_is_on_the_dashboard_by_its_alarms(
    beside: Synthesized, alone: Synthesized, production: Synthesized
) -> None:
    def shown(made: Synthesized) -> list[str]:
        (dashboard,) = made.properties("AWS::CloudWatch::Dashboard", "dashboard")
        widgets = json.loads(dashboard["DashboardBody"])["widgets"]
        graphs = [widget["properties"] for widget in widgets if widget["type"] == "metric"]
        return [arn for graph in graphs for arn in graph.get("annotations", {}).get("alarms", ())]

    for made in (beside, alone):
        rds = {
            alarm["AlarmName"]
            for alarm in made.properties("AWS::CloudWatch::Alarm", "database")
            if alarm["Namespace"] == "AWS/RDS"
        }
        assert {arn.split(":", 6)[6] for arn in shown(made)} == rds
        # It holds back no change of the database's stack.
        assert not list(imports(made.templates["dashboard"]))
    assert not shown(production)


def test_while_it_moves_openqa_uses_the_container(beside: Synthesized) -> None:
    assert "rds" not in webui(beside)
    assert instance(beside)
    assert len(beside.resources("AWS::AutoScaling::AutoScalingGroup", "database")) == 1
    assert len(beside.resources("AWS::EC2::Volume")) == 2


def rules(synthesized: Synthesized) -> set[str]:
    return {
        rule["Description"] for rule in synthesized.properties("AWS::EC2::SecurityGroupIngress", "network")
    }


def test_our_host_reaches_rds_while_it_moves_only(
    beside: Synthesized, moved: Synthesized, production: Synthesized
) -> None:
    assert rules(beside) - rules(production) == {"Moving to RDS: from our host"}
    assert rules(moved) == rules(production)


def test_after_the_move_the_old_volume_is_still_there(moved: Synthesized) -> None:
    assert len(moved.resources("AWS::EC2::Volume", "storage")) == 2
    assert not moved.resources("AWS::AutoScaling::AutoScalingGroup", "database")


def test_each_step_can_be_deployed(
    production: Synthesized, beside: Synthesized, moved: Synthesized, alone: Synthesized
) -> None:
    """CloudFormation refuses to drop an export that a stack imports, and stacks deploy one by one."""
    steps = [production, beside, moved, alone]
    for before, after in [*pairwise(steps), (moved, beside)]:
        for place, part in enumerate(ORDER):
            # When it is deployed, those after it are as they were.
            wanted = {name for later in ORDER[place + 1 :] for name in imports(before.templates[later])}
            dropped = exports(before.templates[part]) - exports(after.templates[part])
            assert not wanted & dropped, (part, wanted & dropped)


def test_no_step_replaces_a_resource_that_holds_state(
    production: Synthesized, beside: Synthesized, moved: Synthesized
) -> None:
    for after in (beside, moved):
        for kind in ("AWS::EC2::Volume", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"):
            assert after.resources(kind, "storage") == production.resources(kind, "storage")
    assert instance(beside) == instance(moved)


def test_a_disposable_environments_database_goes_with_it(tmp_path: Any) -> None:
    made = synthesize(with_database("dev", rds=RDS, engine="rds"), tmp_path)
    assert instance(made)["DeletionPolicy"] == "Delete"
    assert instance(made)["Properties"]["DeletionProtection"] is False
    assert findings(made.report, "violations") == []


def test_validation_finds_nothing(alone: Synthesized, beside: Synthesized) -> None:
    for synthesized in (alone, beside):
        assert findings(synthesized.report, "violations") == []
    used = {
        (each["acknowledgedAt"], each["acknowledgedId"])
        for each in findings(alone.report, "suppressedViolations")
    }
    assert alone.acknowledged() == used
    matches = lint_by_config(
        ManualArgs(
            templates=[str(alone.directory / "openqa-production-database.template.json")],
            regions=[alone.environment.region],
            # W3691 knows minor versions only; AWS keeps the minor version up to date.
            ignore_checks=["W3010", "W6001", "W3691"],
        )
    )
    assert [str(match) for match in matches] == []


def test_other_environments_know_nothing_of_rds(synthesized: Callable[[str], Synthesized]) -> None:
    assert not synthesized("production").resources(INSTANCE)
