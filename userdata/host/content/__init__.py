"""Tests, needles and job templates, kept as a git repository has them.

``/srv/data/openqa/content`` (``/var/lib/openqa/content`` in the web UI's containers) holds the repositories,
their working trees, and releases: whole sets of tests that never change. ``current`` names the newest. rsync
enters the folder that it names when a worker connects, so a worker gets one release from start to end,
however long that takes. openQA itself reads ``share/tests/DISTRI``, which changes places with its successor
in one step; it keeps needles by their real paths, so those must stay. All of it is a user's
who owns nothing else (:data:`userdata.host.users.TESTS`); root acts as that one.
"""
