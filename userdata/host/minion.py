"""openQA's background jobs, which Minion keeps: how many failed, and for how long the oldest waits.

Nobody but a person tries again what failed; until then it stays in Minion's table.
"""

from __future__ import annotations

from userdata.host import figures
from userdata.host.host import Host
from userdata.host.openqa_database import rows

# Whoever edits a needle is told at once. A job with parents waits for them, which are counted themselves.
_QUERY = """
select
  count(*) filter (where state = 'failed' and task not in ('save_needle', 'delete_needles')),
  coalesce(extract(epoch from now() - min(delayed) filter (
    where state = 'inactive' and delayed <= now() and parents = '{}' and (expires is null or expires > now())
  )), 0)
from minion_jobs
"""


def tell(host: Host) -> None:
    """Tells CloudWatch how many background jobs failed, and how long the oldest waits that could run.

    Raises:
        HostError: the database does not answer, or CloudWatch did not take the figures.
    """
    ((failed, waits),) = rows(_QUERY)
    figures.put(host, MinionFailed=float(failed), MinionWaitSeconds=float(waits))
