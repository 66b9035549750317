"""Alarms about openQA's background jobs, which Minion runs: some failed, or they pile up."""

from __future__ import annotations

from constructs import Construct
from constructs.alarm import HOUR, MINUTE, add_alarm

from settings import Environment


class MinionAlarms(Construct):
    """Two alarms."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        add_alarm(
            self,
            "MinionFailed",
            environment=environment,
            name="MinionFailed",
            meaning="background jobs of openQA failed and were neither tried again nor removed, or nothing "
            "is known of them (docs/operating.md)",
            statistic="Maximum",
            threshold=0,
            period=15 * MINUTE,
            periods=3,
        )
        add_alarm(
            self,
            "MinionWaitSeconds",
            environment=environment,
            name="MinionWaitSeconds",
            meaning="background jobs of openQA pile up: one has waited for an hour, or nothing is known of "
            "them (docs/operating.md)",
            statistic="Maximum",
            threshold=HOUR,
            period=15 * MINUTE,
            periods=3,
        )
