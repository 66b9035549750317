"""The alarm about messages by which builds are scheduled: some of them are not heard, or not dealt with."""

from __future__ import annotations

from collections.abc import Mapping

from constructs import Construct
from constructs.alarm import HOUR, MINUTE, add_alarm

from settings import Environment

# Our consumer keeps up within seconds. What fedora_openqa fails with is tried for a day
# (userdata/messages/fedora.py), and some messages it fails with on purpose.
_LAG_SECONDS: Mapping[str, int] = {"rules": 30 * MINUTE, "fedora_openqa": 25 * HOUR}


class ScheduleAlarm(Construct):
    """One alarm."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment, program: str) -> None:
        """Makes the alarm.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            program: what schedules: ``rules`` or ``fedora_openqa``.
        """
        super().__init__(scope, id)
        lag = _LAG_SECONDS[program]
        spoken = f"{lag // HOUR} hours" if lag > HOUR else f"{lag // MINUTE} minutes"
        add_alarm(
            self,
            "ScheduleLagSeconds",
            environment=environment,
            name="ScheduleLagSeconds",
            meaning=f"for {spoken} not all messages were dealt with, or nothing is known of it: the broker,"
            " its archive or openQA is away, or refuses, and builds are not scheduled (docs/operating.md)",
            metric="ScheduleLagSeconds",
            statistic="Minimum",
            threshold=lag,
            period=15 * MINUTE,
        )
