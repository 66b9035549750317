"""Which figures ring an alarm, and which do not, as the operator's pages say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

import pytest

import settings
from settings import Database, Rds
from tests.templates.synthesis import Json, Synthesized, synthesize

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Average": mean,
    "Maximum": max,
    "Minimum": min,
    "Sum": sum,
}
MINUTE, HOUR, DAY = 60, 3600, 86400


def rings(alarm: Json, figures: Sequence[float]) -> bool:
    """Whether an alarm rings if each of its periods has these figures."""
    value = STATISTICS[alarm["Statistic"]](figures)
    match alarm["ComparisonOperator"]:
        case "GreaterThanThreshold":
            return bool(value > alarm["Threshold"])
        case "LessThanThreshold":
            return bool(value < alarm["Threshold"])
    raise AssertionError(alarm["ComparisonOperator"])


def alarms(made: Synthesized) -> dict[str, Json]:
    return {alarm["MetricName"]: alarm for alarm in made.properties("AWS::CloudWatch::Alarm")}


@pytest.mark.parametrize(
    ("metric", "bad", "good", "seconds"),
    [
        # A fleet whose launches pause is told at once; what else the controller cannot do may pass.
        ("BreakersOpen", [0, 1], [0, 0], MINUTE),
        ("FleetsWithoutCapacity", [0, 1], [0, 0], HOUR),
        ("JobsUnserved", [1, 1], [0, 5], HOUR),
        ("Rounds", [0], [1], 5 * MINUTE),
        ("Blind", [1, 1], [1, 0], 10 * MINUTE),
        ("Refused", [1, 1], [1, 0], 10 * MINUTE),
        # Of several rounds of a period, one that succeeded is enough.
        ("AssetsFailed", [1, 1], [1, 0], 6 * HOUR),
        ("ContentFailed", [1, 1], [1, 0], None),
        ("VolumeFreePercent", [11, 9], [11, 11], None),
        ("RootFreePercent", [9, 9], [9, 11], HOUR),
        ("BackupAgeSeconds", [25 * HOUR, 27 * HOUR], [25 * HOUR] * 2, None),
        ("WalArchiveLagSeconds", [0, 5 * MINUTE + 1], [0, 5 * MINUTE], 10 * MINUTE),
        ("RestoreVerified", [0, 0], [0, 1], 26 * HOUR),
        ("DatabaseVolumeFreePercent", [16, 14], [16, 16], None),
        ("ImagesFailed", [1], [0], None),
        ("ImagesAgeSeconds", [9 * DAY], [7 * DAY], None),
    ],
)
def test_what_rings(
    synthesized: Callable[[str], Synthesized],
    metric: str,
    bad: Sequence[float],
    good: Sequence[float],
    seconds: int | None,
) -> None:
    alarm = alarms(synthesized("fedora"))[metric]
    assert (rings(alarm, bad), rings(alarm, good)) == (True, False)
    assert seconds in (None, alarm["Period"] * alarm["EvaluationPeriods"])


def test_a_controller_that_is_away_rings_once(environment: Synthesized) -> None:
    found = {
        alarm["MetricName"]
        for alarm in environment.properties("AWS::CloudWatch::Alarm")
        if "-controller-" in alarm["AlarmName"] and alarm["TreatMissingData"] == "breaching"
    }
    assert found == {"Rounds"}


@pytest.fixture(scope="module")
def rds(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """An environment whose database of 200 GiB is run by AWS."""
    database = Database(engine="rds", rds=Rds(instance_class="db.m7g.large", volume_gib=200))
    asked = settings.load("production").model_copy(update={"database": database})
    return synthesize(asked, tmp_path_factory.mktemp("rds"), check=False)


@pytest.mark.parametrize(
    ("metric", "bad", "good"),
    [("FreeStorageSpace", 19 * 1024**3, 21 * 1024**3), ("CPUUtilization", 95, 85)],
)
def test_rds_rings_before_it_is_full_or_too_slow(
    rds: Synthesized, metric: str, bad: float, good: float
) -> None:
    alarm = alarms(rds)[metric]
    assert (rings(alarm, [bad]), rings(alarm, [good])) == (True, False)
    assert alarm["Period"] * alarm["EvaluationPeriods"] == 15 * MINUTE
