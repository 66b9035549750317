"""An environment's alarms, which differ in what they watch alone."""

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
    """Adds an alarm, which tells the environment's topic when it rings and when all is well again.

    Args:
        scope: the construct that it belongs to.
        id: its name there.
        environment: the settings.
        name: its name behind ``openqa-ENV-``.
        meaning: what it says.
        metric: what it watches; None: what it is named after.
        statistic: how a period's figures become its value.
        threshold: it rings above this value.
        below: it rings below instead.
        period: seconds that make a value.
        periods: how many values in a row must be so. CloudWatch looks at a day at most, if a period has less
            than an hour; at seven otherwise.
        missing: what a period without figures counts as. CloudWatch first takes figures of some periods
            farther back instead, so that only short periods tell of silence soon:
            docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
        namespace: the metric's; None: the environment's own.
        dimensions: the metric's.
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
