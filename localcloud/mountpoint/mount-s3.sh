#!/bin/sh
# The program as local hosts have it: /usr/bin/mount-s3.
PYTHONPATH=/usr/lib/mount-s3 exec python3 -m localcloud.mountpoint "$@"
