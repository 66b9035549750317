"""The dashboard."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from constructs.dashboard import Dashboard

from settings import Environment
from stacks.environment_stack import EnvironmentStack


class DashboardStack(EnvironmentStack):
    """A dashboard of all other stacks; a stack of its own, so that none of them changes with the fleets."""

    def __init__(self, scope: Construct, *, environment: Environment) -> None:
        """Makes the stack, after all others: it shows the alarms that it finds in the app."""
        super().__init__(scope, "dashboard", environment=environment, description="the dashboard")
        found = [part for part in scope.node.find_all() if isinstance(part, cloudwatch.CfnAlarm)]
        Dashboard(
            self,
            "Dashboard",
            environment=environment,
            alarms=[alarm.alarm_name for alarm in found if alarm.alarm_name],
        )
