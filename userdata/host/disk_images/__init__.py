"""The tests' disk images: made on a builder host, passed through a bucket to the web UI's ``hdd/fixed``.

An image's object has a key that was never used before, and counts only once the manifest names it, which is
written last and atomically. So a builder that dies, at whatever point, has changed nothing.
"""
