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
            meaning="background jobs of openQA have failed and nobody has retried or removed them, or no "
            "figure arrives (docs/operating.md)",
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
            meaning="background jobs of openQA pile up: one has waited for an hour, or no figure arrives "
            "(docs/operating.md)",
            statistic="Maximum",
            threshold=HOUR,
            period=15 * MINUTE,
            periods=3,
        )
