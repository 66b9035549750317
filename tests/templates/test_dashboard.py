"""The dashboard shows what there is, and nothing else."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

from tests.templates.synthesis import ROOT, Json, Synthesized

# Who publishes the environment's own metrics.
PUBLISHERS = [ROOT / "fleet/metrics.py", *(ROOT / "userdata/host").rglob("*.py")]


def body(synthesized: Synthesized) -> list[Json]:
    (dashboard,) = synthesized.properties("AWS::CloudWatch::Dashboard", "dashboard")
    assert dashboard["DashboardName"] == f"openqa-{synthesized.environment.name}"
    widgets: list[Json] = json.loads(dashboard["DashboardBody"])["widgets"]
    return widgets


def graphs(synthesized: Synthesized) -> dict[str, list[list[str]]]:
    return {
        widget["properties"]["title"]: widget["properties"]["metrics"]
        for widget in body(synthesized)
        if widget["type"] == "metric"
    }


def test_every_alarm_is_on_it(environment: Synthesized) -> None:
    names = {alarm["AlarmName"] for alarm in environment.properties("AWS::CloudWatch::Alarm")}
    (widget,) = [widget for widget in body(environment) if widget["type"] == "alarm"]
    shown = [arn.split(":", 6) for arn in widget["properties"]["alarms"]]
    asked = environment.environment
    assert {tuple(arn[:6]) for arn in shown} == {
        ("arn", "aws", "cloudwatch", asked.region, asked.account, "alarm")
    }
    assert sorted(arn[6] for arn in shown) == sorted(names)


def test_every_own_metric_is_published(environment: Synthesized) -> None:
    check_publishers(environment)


def check_publishers(environment: Synthesized) -> None:
    published = "".join(Path(file).read_text() for file in PUBLISHERS)
    for metrics in graphs(environment).values():
        assert metrics
        for namespace, name, *dimensions in metrics:
            assert len(dimensions) in (0, 2)
            if namespace != "AWS/EC2":
                assert namespace == f"openQA/{environment.environment.name}"
                assert f'"{name}"' in published or f"{name}=" in published


def test_the_timetable_is_on_it(almalinux: Synthesized) -> None:
    (metric,) = graphs(almalinux)["Seconds since all times were dealt with"]
    assert metric == ["openQA/almalinux", "TimetableLagSeconds"]
    check_publishers(almalinux)


def test_every_fleet_and_host_is_on_it(environment: Synthesized) -> None:
    found = graphs(environment)
    for title in ("Dollars an hour", "Busy workers", "Idle workers", "Hosts wanted"):
        assert [metric[-1] for metric in found[title]] == [
            fleet.name for fleet in environment.environment.fleets
        ]
    groups = {
        group["AutoScalingGroupName"]
        for part in ("database", "webui")
        for group in environment.properties("AWS::AutoScaling::AutoScalingGroup", part)
    }
    assert {metric[-1] for metric in found["CPU of the hosts with state, %"]} == groups


def test_widgets_lie_beside_each_other(environment: Synthesized) -> None:
    areas = [
        {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        for widget in body(environment)
    ]
    assert all(x < 24 for area in areas for x, _ in area)
    assert not any(one & other for one, other in combinations(areas, 2))
    for widget in body(environment)[1:]:
        assert widget["properties"]["region"] == environment.environment.region
