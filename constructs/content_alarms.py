"""Alarms of the web UI's host: its tests do not follow their repository, or its volume fills up."""

from __future__ import annotations

from constructs import Construct
from constructs.alarm import MINUTE, add_alarm

from settings import Environment

# openQA gives out no jobs at 5 %.
FREE_PERCENT = 10


class ContentAlarms(Construct):
    """Two alarms."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        add_alarm(
            self,
            "ContentFailed",
            environment=environment,
            name="ContentFailed",
            meaning="tests, needles or job templates could not be brought up to date, two times or more, or "
            "nobody tried: what was there before stays (docs/operating.md)",
            statistic="Minimum",
            threshold=0,
            period=5 * MINUTE,
            # Two rounds, and what they take.
            periods=-(-2 * environment.content.refresh_minutes // 5) + 1,
        )
        add_alarm(
            self,
            "VolumeFreePercent",
            environment=environment,
            name="VolumeFreePercent",
            meaning=f"less than {FREE_PERCENT} % of openQA's volume is free, or nothing is known of it: at "
            "5 % openQA gives out no more jobs (docs/operating.md)",
            statistic="Minimum",
            threshold=FREE_PERCENT,
            below=True,
            period=15 * MINUTE,
        )
