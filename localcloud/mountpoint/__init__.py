"""A stand-in for AWS's ``mount-s3``, which nothing but AWS's own server has.

It mounts a bucket over the kernel's FUSE protocol and keeps the rules that Mountpoint documents, so that what
would fail on AWS fails here. Rules: github.com/awslabs/mountpoint-s3, doc/SEMANTICS.md. Where they leave
something open, it refuses. It needs what a host has: Python and boto3.
"""
