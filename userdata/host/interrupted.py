"""The jobs that a restore interrupts: which they are, and what openQA shows next to their result.

They are marked in the restored database before openQA sees it. If marked later, a job whose worker reports
its end as soon as openQA is back would look as if nothing had happened.
"""

from __future__ import annotations

# What openQA shows next to the result. A worker that ends its job as passed or failed does not change it.
REASON = "restore: the database was restored while this job ran"

_STATES = ("assigned", "setup", "running", "uploading")
# The rows of openQA's table "jobs".
UNFINISHED = f"state in ({', '.join(map(repr, _STATES))})"
MARK = f"update public.jobs set reason = '{REASON}' where {UNFINISHED}"  # noqa: S608  # constants
