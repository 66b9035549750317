"""Backups of the database: base backups and the write-ahead log (WAL), in the mounted backup bucket.

The bucket takes new objects only, written from the start to the end, and a writer that dies leaves an object
that looks complete. So every attempt has a key of its own, and a backup or a WAL segment exists only if its
manifest does, which is written last.

What runs in the database's container (:mod:`archive`) needs the standard library alone.
"""
