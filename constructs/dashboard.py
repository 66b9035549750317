"""The environment at a glance: a CloudWatch dashboard of its alarms, queue, fleets and state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from constructs.alarm import HOUR, MINUTE

from settings import Environment
from settings.naming import Role, arn, metric_namespace, prefix, stateful_group

# In units of a dashboard's grid, which has 24 columns:
# docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
_WIDTH = 8
_HEIGHT = 6
_ALARMS_HEIGHT = 3

Widget = Mapping[str, Any]
# A metric in a dashboard's form: namespace, name, then the names and values of its dimensions.
Metric = Sequence[str]


class Dashboard(Construct):
    """The dashboard ``openqa-ENV``."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment, alarms: Sequence[str]) -> None:
        """Makes the dashboard.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            alarms: the names of the environment's alarms.
        """
        super().__init__(scope, id)
        cloudwatch.CfnDashboard(
            self,
            "Dashboard",
            dashboard_name=prefix(environment),
            dashboard_body=json.dumps({"widgets": widgets(environment, alarms)}),
        )


def widgets(environment: Environment, alarms: Sequence[str]) -> list[Widget]:
    """Returns the dashboard's widgets: the alarms in a row of their own, then graphs, three in a row.

    Args:
        environment: the settings.
        alarms: the names of the alarms.
    """
    arns = [_alarm_arn(environment, name) for name in alarms]
    return [
        {
            "type": "alarm",
            **{"x": 0, "y": 0, "width": 3 * _WIDTH, "height": _ALARMS_HEIGHT},
            "properties": {"title": "Alarms", "alarms": arns},
        },
        *(
            {
                "type": "metric",
                "x": number % 3 * _WIDTH,
                "y": _ALARMS_HEIGHT + number // 3 * _HEIGHT,
                **{"width": _WIDTH, "height": _HEIGHT},
                "properties": {"region": environment.region, "view": "timeSeries", **graph},
            }
            for number, graph in enumerate(_graphs(environment))
        ),
    ]


def _graphs(environment: Environment) -> list[Mapping[str, Any]]:
    own = metric_namespace(environment)
    container = environment.database.engine == "container"
    roles: Sequence[Role] = ("database", "webui") if container else ("webui",)

    def each_fleet(metric: str) -> list[Metric]:
        return [(own, metric, "Fleet", fleet.name) for fleet in environment.fleets]

    graphs = [
        _graph("Jobs that wait", [(own, "JobsWaiting"), (own, "JobsBlocked")]),
        _graph("The longest wait, in seconds", [(own, "OldestWait")]),
        _graph("Dollars an hour", each_fleet("CostPerHour"), stacked=True),
        _graph("Busy workers", each_fleet("SlotsBusy"), stacked=True),
        _graph("Idle workers", each_fleet("SlotsIdle"), stacked=True),
        _graph("Hosts wanted", each_fleet("HostsWanted"), stacked=True),
        _graph(
            "The controller's acts, and rounds in which something did not answer",
            [(own, "Acts"), (own, "ActsFailed"), (own, "RoundsBlind")],
            statistic="Sum",
        ),
        _graph(
            "CPU of the hosts with state, %",
            [
                ("AWS/EC2", "CPUUtilization", "AutoScalingGroupName", stateful_group(environment, role))
                for role in roles
            ],
        ),
        _graph(
            "Free of the volumes, %",
            [(own, "VolumeFreePercent"), *([(own, "DatabaseVolumeFreePercent")] if container else [])],
            statistic="Minimum",
            period=5 * MINUTE,
        ),
        _graph(
            "Free of the root disks, %",
            [(own, "RootFreePercent"), *([(own, "DatabaseRootFreePercent")] if container else [])],
            statistic="Minimum",
            period=5 * MINUTE,
        ),
        _graph("Background jobs that failed", [(own, "MinionFailed")], period=5 * MINUTE),
        _graph("Seconds that a background job waits", [(own, "MinionWaitSeconds")], period=5 * MINUTE),
    ]
    if container:
        graphs += [
            _graph("Seconds since the base backup", [(own, "BackupAgeSeconds")], period=HOUR),
            _graph(
                "Seconds that the log's copy lags behind", [(own, "WalArchiveLagSeconds")], period=5 * MINUTE
            ),
        ]
    if environment.database.rds:
        # Taken from the alarms, because no other stack knows RDS's name.
        graphs += [
            _graph_of_alarm(environment, "CPU of RDS, %", "database-CPUUtilization"),
            _graph_of_alarm(environment, "Free of RDS, bytes", "database-FreeStorageSpace"),
        ]
    for there, what, metric in (
        (environment.schedule, "messages", "ScheduleLagSeconds"),
        (environment.timetable, "times", "TimetableLagSeconds"),
    ):
        if there:
            graphs.append(
                _graph(f"Seconds since all {what} were dealt with", [(own, metric)], period=5 * MINUTE)
            )
    if environment.builders:
        images = [
            (own, "ImagesAgeSeconds", "Architecture", builder.architecture)
            for builder in environment.builders
        ]
        graphs.append(_graph("Seconds since disk images were current", images, period=HOUR))
    return graphs


def _graph(
    title: str,
    metrics: Sequence[Metric],
    *,
    statistic: str = "Maximum",
    period: int = MINUTE,
    stacked: bool = False,
) -> Mapping[str, Any]:
    return {
        "title": title,
        "metrics": [list(metric) for metric in metrics],
        "stat": statistic,
        "period": period,
        "stacked": stacked,
        "yAxis": {"left": {"min": 0}},
    }


def _graph_of_alarm(environment: Environment, title: str, alarm: str) -> Mapping[str, Any]:
    """What an alarm watches, and its threshold."""
    watched = _alarm_arn(environment, f"{prefix(environment)}-{alarm}")
    return {"title": title, "annotations": {"alarms": [watched]}, "yAxis": {"left": {"min": 0}}}


def _alarm_arn(environment: Environment, name: str) -> str:
    return arn(environment, "cloudwatch", f"alarm:{name}")
