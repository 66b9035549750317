"""openQA's background jobs, run by Minion: how many failed, and how long the oldest has waited.

A failed job is never retried automatically; it stays in Minion's table until somebody does.
"""

from __future__ import annotations

from userdata.host import figures
from userdata.host.host import Host
from userdata.host.openqa_database import rows

# Whoever edits a needle sees a failure at once. A job with parents waits for them, and they are counted.
_QUERY = """
select
  count(*) filter (where state = 'failed' and task not in ('save_needle', 'delete_needles')),
  coalesce(extract(epoch from now() - min(delayed) filter (
    where state = 'inactive' and delayed <= now() and parents = '{}' and (expires is null or expires > now())
  )), 0)
from minion_jobs
"""


def tell(host: Host) -> None:
    """Tells CloudWatch how many background jobs failed, and how long the oldest one ready to run has waited.

    Raises:
        HostError: the database does not answer, or CloudWatch did not accept the figures.
    """
    ((failed, waits),) = rows(_QUERY)
    figures.put(host, MinionFailed=float(failed), MinionWaitSeconds=float(waits))
