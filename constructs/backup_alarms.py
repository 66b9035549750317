"""Alarms that say when the database's backups cannot be relied on."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from constructs.names import metric_namespace, prefix

from settings import Environment

_HOUR = 3600
_DAY = 24 * _HOUR


@dataclass(frozen=True)
class _Objective:
    """What must hold of a metric.

    Attributes:
        metric: its name; userdata/host/backup publishes it.
        comparison: how it fails.
        threshold: against what.
        period: seconds that make a value.
        periods: how many values in a row must fail; missing ones do.
        statistic: how a period's figures become its value.
        meaning: what the alarm says.
    """

    metric: str
    comparison: str
    threshold: float
    period: int
    periods: int
    statistic: str
    meaning: str


_OBJECTIVES = (
    _Objective(
        metric="BackupAgeSeconds",
        comparison="GreaterThanThreshold",
        threshold=26 * _HOUR,
        period=_HOUR,
        periods=1,
        statistic="Maximum",
        meaning="the newest base backup of the database is older than 26 hours, or nothing is known of it",
    ),
    _Objective(
        metric="WalArchiveLagSeconds",
        comparison="GreaterThanThreshold",
        threshold=300,
        period=300,
        periods=2,
        statistic="Maximum",
        meaning="the database's last changes are not in the backup bucket for more than 5 minutes",
    ),
    _Objective(
        metric="RestoreVerified",
        comparison="LessThanThreshold",
        threshold=1,
        period=_DAY,
        periods=1,
        statistic="Minimum",
        meaning="the daily rehearsal of a restore failed, or did not run",
    ),
)


class BackupAlarms(Construct):
    """One alarm for each objective; none of them acts, they are there to be seen."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        for objective in _OBJECTIVES:
            cloudwatch.CfnAlarm(
                self,
                objective.metric,
                alarm_name=f"{prefix(environment)}-{objective.metric}",
                alarm_description=f"{prefix(environment)}: {objective.meaning}",
                namespace=metric_namespace(environment),
                metric_name=objective.metric,
                statistic=objective.statistic,
                period=objective.period,
                evaluation_periods=objective.periods,
                comparison_operator=objective.comparison,
                threshold=objective.threshold,
                treat_missing_data="breaching",
            )
