"""The fleets' controller, which runs on the web UI's host: what it may do, and the alarms about it."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from constructs.host_role import HostRole
from constructs.names import fleet_group, prefix

from fleet import facts
from settings import Environment

_MINUTE = 60


class FleetController(Construct):
    """Permissions and alarms. The service itself is part of the host: userdata/roles/webui/units."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment, role: HostRole) -> None:
        """Gives the web UI host's role what the controller needs, and makes the alarms.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            role: the web UI host's.
        """
        super().__init__(scope, id)
        self._environment = environment
        role.allow_control_fleets(
            groups=[fleet_group(environment, fleet.name) for fleet in environment.fleets],
            parameters=facts.parameters(environment.name),
            namespace=facts.namespace(environment.name),
        )
        self._alarm(
            "Breaker",
            "hosts of a fleet do not come up; its launches pause, longer each time (docs/fleet.md)",
            metric="BreakersOpen",
            statistic="Maximum",
            minutes=1,
            above=0,
            missing="notBreaching",
        )
        self._alarm(
            "Silent",
            "no fleet controller has been at work for five minutes: fleets keep their size (docs/fleet.md)",
            metric="Rounds",
            statistic="Sum",
            minutes=5,
            below=1,
            missing="breaching",
        )
        self._alarm(
            "Blind",
            "the fleet controller has changed nothing for ten minutes: openQA or AWS does not answer, or not "
            "as it should (docs/fleet.md)",
            metric="Blind",
            statistic="Minimum",
            minutes=10,
            above=0,
            missing="notBreaching",
        )

    def _alarm(
        self,
        id: str,
        description: str,
        *,
        metric: str,
        statistic: str,
        minutes: int,
        missing: str,
        above: int | None = None,
        below: int | None = None,
    ) -> None:
        cloudwatch.CfnAlarm(
            self,
            id,
            alarm_name=f"{prefix(self._environment)}-controller-{id.lower()}",
            alarm_description=f"{self._environment.name}: {description}",
            namespace=facts.namespace(self._environment.name),
            metric_name=metric,
            statistic=statistic,
            period=_MINUTE,
            evaluation_periods=minutes,
            comparison_operator="GreaterThanThreshold" if below is None else "LessThanThreshold",
            threshold=above if below is None else below,
            treat_missing_data=missing,
        )
