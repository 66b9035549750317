"""Reads a bucket's objects, several at once, because most of the time goes into waiting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

from ops.deployment import DeploymentError, asking_aws_to
from userdata.host.backup import manifests
from userdata.host.backup.manifests import M, ManifestError

# A botocore client has no more connections than this.
AT_ONCE = 10
_CHUNK = 1024 * 1024
T = TypeVar("T")
R = TypeVar("R")


class Bucket:
    """A bucket, as the operator reads it.

    Raises:
        DeploymentError: from every method: the bucket cannot be read.
    """

    def __init__(self, s3: Any, name: str) -> None:
        self._s3, self._name = s3, name
        self._over = Event()

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yields a function's result for each item, in order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                yield from pool.map(function, items)
            except BaseException:
                # An operator who interrupts this need not wait for large objects being read.
                self._over.set()
                raise

    def keys(self, prefix: str) -> list[str]:
        """Returns the keys that begin with a prefix, in order."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        with asking_aws_to(f"list the bucket {self._name}"):
            return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def manifest(self, kind: type[M], key: str) -> M | None:
        """Returns a manifest; None: it is incomplete, or gone since it was listed."""
        with asking_aws_to(f"read {key} of {self._name}"):
            try:
                body = self._s3.get_object(Bucket=self._name, Key=key)["Body"]
                return manifests.decode(kind, body.read())
            except (ManifestError, self._s3.exceptions.NoSuchKey):
                return None

    def digest(self, key: str) -> tuple[str, int] | None:
        """Returns an object's SHA-256 and size; None: there is no such object."""
        digest, size = hashlib.sha256(), 0
        with asking_aws_to(f"read {key} of {self._name}"):
            try:
                body = self._s3.get_object(Bucket=self._name, Key=key)["Body"]
            except self._s3.exceptions.NoSuchKey:
                return None
            for chunk in body.iter_chunks(_CHUNK):
                if self._over.is_set():
                    raise DeploymentError(f"{key} of {self._name} was not read to the end")
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size
