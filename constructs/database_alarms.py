"""Alarms of the database's host: unreliable backups, a volume that fills up, a certificate that expires."""

from __future__ import annotations

from constructs import Construct
from constructs.alarm import HOUR, MINUTE, add_alarm

from settings import Environment

# Half a day's log should still fit while the backup bucket cannot be reached.
FREE_PERCENT = 15
# It is renewed 60 days before it expires (userdata/host/certificates.py).
CERTIFICATE_DAYS = 30


class DatabaseAlarms(Construct):
    """One alarm for each thing that must hold."""

    def __init__(self, scope: Construct, id: str, *, environment: Environment) -> None:
        super().__init__(scope, id)
        add_alarm(
            self,
            "BackupAgeSeconds",
            environment=environment,
            name="BackupAgeSeconds",
            meaning="the database's newest base backup is older than 26 hours, or no figure arrives "
            "(docs/backups.md)",
            statistic="Maximum",
            threshold=26 * HOUR,
            period=15 * MINUTE,
        )
        add_alarm(
            self,
            "WalArchiveLagSeconds",
            environment=environment,
            name="WalArchiveLagSeconds",
            meaning="the database's latest changes have not reached the backup bucket for 5 minutes "
            "(docs/backups.md)",
            statistic="Maximum",
            threshold=5 * MINUTE,
            period=5 * MINUTE,
            periods=2,
        )
        add_alarm(
            self,
            "RestoreVerified",
            environment=environment,
            name="RestoreVerified",
            meaning="no restore rehearsal has succeeded for 26 hours: it failed, or did not run "
            "(docs/backups.md)",
            statistic="Maximum",
            threshold=1,
            below=True,
            period=HOUR,
            periods=26,
        )
        add_alarm(
            self,
            "DatabaseVolumeFreePercent",
            environment=environment,
            name="DatabaseVolumeFreePercent",
            meaning=f"less than {FREE_PERCENT} % of the database's volume is free, or no figure arrives: a "
            "full volume stops openQA (docs/backups.md)",
            statistic="Minimum",
            threshold=FREE_PERCENT,
            below=True,
            period=15 * MINUTE,
        )
        add_alarm(
            self,
            "DatabaseCertificateDays",
            environment=environment,
            name="DatabaseCertificateDays",
            meaning=f"the database's certificate expires in less than {CERTIFICATE_DAYS} days, or no figure "
            "arrives: openQA trusts no other (docs/operating.md)",
            statistic="Minimum",
            threshold=CERTIFICATE_DAYS,
            below=True,
            period=HOUR,
            periods=2,
        )
