"""Backups of the database: base backups and the write-ahead log (WAL), in the mounted backup bucket.

The bucket only takes new objects, written from start to end, and a writer that dies leaves an object that
looks complete. So every attempt has a key of its own, and a backup or a WAL segment exists only if its
manifest does, which is written last.

The part that runs in the database's container (:mod:`archive`) only needs the standard library.
"""
