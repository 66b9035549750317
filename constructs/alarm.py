"""An environment's alarms, which differ only in what they watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from settings import Environment
from settings.naming import metric_namespace, prefix

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def add_alarm(
    scope: Construct,
    id: str,
    *,
    environment: Environment,
    name: str,
    meaning: str,
    metric: str | None = None,
    statistic: Literal["Average", "Maximum", "Minimum", "Sum"],
    threshold: float,
    below: bool = False,
    period: int,
    periods: int = 1,
    missing: Literal["breaching", "ignore", "notBreaching"] = "breaching",
    namespace: str | None = None,
    dimensions: Mapping[str, str] | None = None,
) -> None:
    """Adds an alarm, which notifies the environment's topic when it rings and when all is well again.

    Args:
        scope: the construct that it belongs to.
        id: its name there.
        environment: the settings.
        name: its name after ``openqa-ENV-``.
        meaning: what it means when it rings.
        metric: the metric that it watches; None: the one with the alarm's name.
        statistic: how a period's figures become its value.
        threshold: it rings above this value.
        below: it rings below the threshold instead.
        period: the seconds that one value covers.
        periods: how many values in a row must be beyond the threshold. Together they may cover a day at most
            if a period is shorter than an hour, otherwise seven.
        missing: what a period without figures counts as. CloudWatch first uses figures from some periods
            farther back instead, so that only short periods show silence soon:
            docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
        namespace: the metric's namespace; None: the environment's own.
        dimensions: the metric's dimensions.
    """
    topics = [environment.alarm_topic] if environment.alarm_topic else None
    cloudwatch.CfnAlarm(
        scope,
        id,
        alarm_name=f"{prefix(environment)}-{name}",
        alarm_description=f"{prefix(environment)}: {meaning}",
        namespace=namespace or metric_namespace(environment),
        metric_name=metric or name,
        dimensions=[
            cloudwatch.CfnAlarm.DimensionProperty(name=key, value=value)
            for key, value in (dimensions or {}).items()
        ]
        or None,
        statistic=statistic,
        period=period,
        evaluation_periods=periods,
        comparison_operator="LessThanThreshold" if below else "GreaterThanThreshold",
        threshold=threshold,
        treat_missing_data=missing,
        alarm_actions=topics,
        ok_actions=topics,
    )
