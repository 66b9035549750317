"""Disk images of the tests: made on a builder host, shown in the web UI's ``hdd/fixed``, through a bucket.

An image's object has a key that nobody ever used, and counts only once the manifest names it, which is
written last and in one step. So a builder that dies, wherever it is, has changed nothing.
"""
