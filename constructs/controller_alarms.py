"""Alarms of the fleets' controller: hosts do not come up, jobs have no fleet, or it can do nothing."""

from __future__ import annotations

from constructs import Construct
from constructs.alarm import MINUTE, add_alarm

from settings import Environment


class ControllerAlarms(Construct):
    """Six alarms."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        add_alarm(
            self,
            "Breaker",
            environment=environment,
            name="controller-breaker",
            meaning="a fleet's hosts fail to come up: its launches pause, longer each time (docs/fleet.md)",
            metric="BreakersOpen",
            statistic="Maximum",
            threshold=0,
            period=MINUTE,
            missing="notBreaching",
        )
        add_alarm(
            self,
            "Capacity",
            environment=environment,
            name="controller-capacity",
            meaning="for an hour, AWS has had no capacity for a fleet whose jobs wait (docs/fleet.md)",
            metric="FleetsWithoutCapacity",
            statistic="Maximum",
            threshold=0,
            # AWS is asked again after ten minutes, and until it answers nothing counts as missing.
            period=15 * MINUTE,
            periods=4,
            missing="notBreaching",
        )
        add_alarm(
            self,
            "Unserved",
            environment=environment,
            name="controller-unserved",
            meaning="jobs that no fleet can run have waited for an hour (docs/fleet.md)",
            metric="JobsUnserved",
            statistic="Minimum",
            threshold=0,
            period=5 * MINUTE,
            periods=12,
            missing="notBreaching",
        )
        add_alarm(
            self,
            "Silent",
            environment=environment,
            name="controller-silent",
            meaning="no fleet controller has run for five minutes: fleets keep their size (docs/fleet.md)",
            metric="Rounds",
            statistic="Sum",
            threshold=1,
            below=True,
            period=MINUTE,
            periods=5,
        )
        add_alarm(
            self,
            "Blind",
            environment=environment,
            name="controller-blind",
            meaning="the fleet controller has changed nothing for ten minutes: openQA or AWS does not "
            "answer, or answers nonsense (docs/fleet.md)",
            metric="Blind",
            statistic="Minimum",
            threshold=0,
            # While openQA does not answer, figures come every minute and a half, so every period has some.
            period=5 * MINUTE,
            periods=2,
            missing="notBreaching",
        )
        add_alarm(
            self,
            "Refused",
            environment=environment,
            name="controller-refused",
            meaning="AWS has refused every change by the fleet controller for ten minutes: fleets keep their "
            "size (docs/fleet.md)",
            metric="Refused",
            statistic="Minimum",
            threshold=0,
            period=5 * MINUTE,
            periods=2,
            missing="notBreaching",
        )
