"""Alarms about builds that are not scheduled: messages or times of the timetable are not dealt with."""

from __future__ import annotations

from collections.abc import Mapping

from constructs import Construct
from constructs.alarm import HOUR, MINUTE, add_alarm

from settings import Environment

# Our own consumer keeps up within seconds. Messages that fedora_openqa fails on are retried for a day
# (userdata/messages/fedora.py), and on some it fails on purpose.
_LAG_SECONDS: Mapping[str, int] = {"rules": 30 * MINUTE, "fedora_openqa": 25 * HOUR}
_TIMETABLE_LAG_SECONDS = 30 * MINUTE


class ScheduleAlarms(Construct):
    """One alarm for each way in which an environment schedules builds."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        """Makes the alarms.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
        """
        super().__init__(scope, id)
        if environment.schedule is not None:
            lag = _LAG_SECONDS[environment.schedule.program]
            spoken = f"{lag // HOUR} hours" if lag > HOUR else f"{lag // MINUTE} minutes"
            meaning = (
                f"for {spoken}, not all messages have been processed, or no figure arrives: the broker, its"
                " archive or openQA is down, or refuses, and builds are not scheduled (docs/content.md)"
            )
            _add(self, "ScheduleLagSeconds", environment=environment, meaning=meaning, lag=lag)
        if environment.timetable:
            lag = _TIMETABLE_LAG_SECONDS
            meaning = (
                f"for {lag // MINUTE} minutes, not all times of the timetable have been processed, or no"
                " figure arrives: openQA is down, or loads templates (docs/content.md)"
            )
            _add(self, "TimetableLagSeconds", environment=environment, meaning=meaning, lag=lag)


def _add(scope: Construct, name: str, *, environment: Environment, meaning: str, lag: int) -> None:
    add_alarm(
        scope,
        name,
        environment=environment,
        name=name,
        meaning=meaning,
        statistic="Minimum",
        threshold=lag,
        period=15 * MINUTE,
    )
