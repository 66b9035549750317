"""What the validation rules say: nothing that is not acknowledged, and no acknowledgment for nothing."""

from __future__ import annotations

import json

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs

import settings
from tests.templates.synthesis import Json, Synthesized, synthesize


@pytest.fixture(scope="module", params=settings.names())
def validated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Each environment with all validation that ``cdk synth`` does."""
    return synthesize(settings.load(request.param), tmp_path_factory.mktemp(request.param), validate=True)


def findings(report: Json, kind: str) -> list[Json]:
    return [finding for plugin in report["pluginReports"] for finding in plugin.get(kind, ())]


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


def test_cfn_lint(environment: Synthesized) -> None:
    # W3010: the environment file names the zones. W6001: the operator reads the web UI's stack alone.
    options = ManualArgs(regions=[environment.environment.region], ignore_checks=["W3010", "W6001"])
    for template in environment.templates.values():
        assert [str(match) for match in lint(json.dumps(template), config=options)] == []
