"""The jobs that a restore interrupts: which they are, and what openQA shows of them beside their result.

They are marked in the restored database before openQA sees it. Marked later, one whose worker reports its end
as soon as openQA is back would stay as if nothing had happened.
"""

from __future__ import annotations

# What openQA shows beside the result. A worker that ends its job as passed or failed leaves it as it is.
REASON = "restore: the database was restored while this job ran"

_STATES = ("assigned", "setup", "running", "uploading")
# The rows of openQA's table "jobs".
UNFINISHED = f"state in ({', '.join(map(repr, _STATES))})"
MARK = f"update public.jobs set reason = '{REASON}' where {UNFINISHED}"  # noqa: S608  # constants
