"""Alarms of the web UI's host: its tests do not follow their repository, or its volume fills up."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from constructs.names import metric_namespace, prefix

from settings import Environment

_MINUTE = 60
# openQA gives out no jobs at 5 %.
FREE_PERCENT = 10


class ContentAlarms(Construct):
    """Two alarms; none of them acts, they are there to be seen."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        minutes = environment.content.refresh_minutes
        self._alarm(
            environment,
            "ContentFailed",
            "tests, needles or job templates could not be brought up to date, two times or more, or nobody "
            "tried: what was there before stays (docs/operating.md)",
            statistic="Minimum",
            # Two rounds, and what they take.
            period=(2 * minutes + 5) * _MINUTE,
            comparison="GreaterThanThreshold",
            threshold=0,
        )
        self._alarm(
            environment,
            "VolumeFreePercent",
            f"less than {FREE_PERCENT} % of openQA's volume is free, or nothing is known of it: at 5 % "
            "openQA gives out no more jobs (docs/operating.md)",
            statistic="Minimum",
            period=15 * _MINUTE,
            comparison="LessThanThreshold",
            threshold=FREE_PERCENT,
        )

    def _alarm(
        self,
        environment: Environment,
        metric: str,
        meaning: str,
        *,
        statistic: str,
        period: int,
        comparison: str,
        threshold: float,
    ) -> None:
        cloudwatch.CfnAlarm(
            self,
            metric,
            alarm_name=f"{prefix(environment)}-{metric}",
            alarm_description=f"{prefix(environment)}: {meaning}",
            namespace=metric_namespace(environment),
            metric_name=metric,
            statistic=statistic,
            period=period,
            evaluation_periods=1,
            comparison_operator=comparison,
            threshold=threshold,
            treat_missing_data="breaching",
        )
