"""Alarms of the web UI's host: outdated content, assets that are not backed up, a volume that fills up."""

from __future__ import annotations

from math import ceil

from constructs import Construct
from constructs.alarm import HOUR, MINUTE, add_alarm

from settings import Environment

# At 5 % openQA stops assigning jobs.
FREE_PERCENT = 10
# A round may send or bring back terabytes; otherwise there is one every half hour.
ASSETS_SECONDS = 6 * HOUR


class ContentAlarms(Construct):
    """Three alarms."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        add_alarm(
            self,
            "ContentFailed",
            environment=environment,
            name="ContentFailed",
            meaning="tests, needles or job templates failed to update at least twice, or no update ran: the "
            "previous ones stay (docs/content.md)",
            statistic="Minimum",
            threshold=0,
            period=5 * MINUTE,
            # Two rounds, and the time that they take.
            periods=ceil(2 * environment.content.refresh_minutes / 5) + 1,
        )
        add_alarm(
            self,
            "VolumeFreePercent",
            environment=environment,
            name="VolumeFreePercent",
            meaning=f"less than {FREE_PERCENT} % of openQA's volume is free, or no figure arrives: at 5 % "
            "openQA assigns no more jobs (docs/content.md)",
            statistic="Minimum",
            threshold=FREE_PERCENT,
            below=True,
            period=15 * MINUTE,
        )
        add_alarm(
            self,
            "AssetsFailed",
            environment=environment,
            name="AssetsFailed",
            meaning="for six hours, not all of openQA's fixed assets could be backed up, or no backup ran "
            "(docs/backups.md)",
            statistic="Minimum",
            threshold=0,
            period=15 * MINUTE,
            periods=ASSETS_SECONDS // (15 * MINUTE),
        )
