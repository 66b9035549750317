"""Tests, needles and job templates, kept in line with git repositories.

``/srv/data/openqa/content`` (``/var/lib/openqa/content`` in the web UI's containers) holds the repositories,
their working trees, and releases: whole sets of tests that never change. ``current`` names the newest. rsync
enters the folder that it names when a worker connects, so a worker gets one release from start to end,
however long that takes. openQA itself reads ``share/tests/DISTRI``, which is swapped atomically with its
successor; it stores the real paths of needles, so those must not change. All of it belongs to a user
who owns nothing else (:data:`userdata.host.users.TESTS`); root acts as that user.
"""
