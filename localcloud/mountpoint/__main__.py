"""``mount-s3 BUCKET DIRECTORY``: mounts in the background and returns when the file system is there."""

from __future__ import annotations

import logging
import os
import sys

from localcloud.mountpoint import kernel
from localcloud.mountpoint.bucket import Bucket
from localcloud.mountpoint.filesystem import FileSystem
from localcloud.mountpoint.options import Options, parse


def main(arguments: list[str]) -> int:
    """Mount and serve; returns the exit code."""
    options = parse(arguments, uid=os.getuid(), gid=os.getgid())
    if options.foreground:
        return _run(options, ready=None)
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.close(reading)
    os.setsid()
    return _run(options, ready=writing)


def _run(options: Options, *, ready: int | None) -> int:
    bucket = Bucket(
        options.bucket,
        prefix=options.prefix,
        region=options.region,
        endpoint=options.endpoint,
        path_style=options.path_style,
    )
    try:
        bucket.check()
        device = kernel.mount(options.directory, allow_other=options.allow_other, read_only=options.read_only)
    except OSError as error:
        print(f"mount-s3: bucket {options.bucket}: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    print(f"bucket {options.bucket} is mounted at {options.directory}", flush=True)
    if ready is not None:
        os.write(ready, b"1")
        os.close(ready)
    kernel.serve(device, FileSystem(bucket, options).answer)
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="mount-s3: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
