"""The bucket of disk images: packed as sparse files, never overwritten, never deleted."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from userdata.host.aws import call, refusal
from userdata.host.backup import names
from userdata.host.disk_images import manifest as manifests
from userdata.host.disk_images.manifest import Image, Manifest, ManifestError
from userdata.host.errors import HostError

MANIFEST = "manifest.json"
# S3 takes at most ten thousand parts: 312 GiB.
_TRANSFER = TransferConfig(multipart_chunksize=32 * 1024**2)


class Store:
    """An architecture's part of the bucket.

    Args:
        s3: an S3 client.
        bucket: the bucket's name.
        prefix: what the part's keys begin with, such as ``x86_64/``.
    """

    def __init__(self, s3: Any, *, bucket: str, prefix: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix

    def read(self) -> tuple[Manifest | None, str | None]:
        """Returns the manifest and its tag for :meth:`write`; None if there is none yet.

        Raises:
            HostError: it cannot be read.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._prefix + MANIFEST)
            return manifests.decode(answer["Body"].read()), answer["ETag"]
        except self._s3.exceptions.NoSuchKey:
            return None, None
        except (BotoCoreError, ClientError, ManifestError) as error:
            raise HostError(f"{self._name(MANIFEST)}: {error}") from error

    def write(self, manifest: Manifest, *, tag: str | None) -> None:
        """Replaces the manifest in one step.

        Args:
            manifest: the new one.
            tag: the tag of the manifest that it replaces.

        Raises:
            HostError: another builder has written one in the meantime, or S3 refused.
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            call(
                self._name(MANIFEST),
                self._s3.put_object,
                Bucket=self._bucket,
                Key=self._prefix + MANIFEST,
                Body=manifests.encode(manifest),
                **condition,
            )
        except HostError as error:
            if refusal(error) == "PreconditionFailed":
                raise HostError(f"{self._name(MANIFEST)}: another builder has written it") from error
            raise

    def stored(self, image: Image) -> datetime | None:
        """Returns since when the bucket has had an image; None: it no longer does.

        Raises:
            HostError: S3 does not answer.
        """
        key = self._prefix + image.key
        try:
            answer = call(self._name(image.key), self._s3.head_object, Bucket=self._bucket, Key=key)
        except HostError as error:
            if refusal(error) in ("404", "NoSuchKey"):
                return None
            raise
        since: datetime = answer["LastModified"]
        return since

    def put(self, path: Path) -> Image:
        """Stores an image; it counts as soon as a manifest names it.

        Raises:
            HostError: it cannot be read, or S3 did not accept it.
        """
        try:
            about = path.stat()
            digest = sha256(path)
        except OSError as error:
            raise HostError(f"{path}: cannot be read: {error.strerror}") from error
        key = _new_key(path.name)
        pack = ["tar", "--create", "--sparse", "--use-compress-program=gzip -1", "--file=-"]
        with _tar([*pack, f"--directory={path.parent}", path.name], stdout=subprocess.PIPE) as pipe:
            call(
                self._name(key),
                self._s3.upload_fileobj,
                Fileobj=pipe,
                Bucket=self._bucket,
                Key=self._prefix + key,
                Config=_TRANSFER,
            )
        modified = int(about.st_mtime)
        return Image(name=path.name, key=key, bytes=about.st_size, sha256=digest, modified=modified)

    def renew(self, image: Image) -> Image:
        """Copies an image within the bucket, so that it does not expire.

        Raises:
            HostError: S3 refused.
        """
        key = _new_key(image.name)
        call(
            self._name(key),
            self._s3.copy,
            CopySource={"Bucket": self._bucket, "Key": self._prefix + image.key},
            Bucket=self._bucket,
            Key=self._prefix + key,
            Config=_TRANSFER,
        )
        return replace(image, key=key)

    def fetch(self, image: Image, folder: Path) -> Path:
        """Unpacks an image into a folder, holes included, and compares it with what was built.

        Returns:
            Its path.

        Raises:
            HostError: it is missing, or differs from what the manifest says.
        """
        path = folder / image.name
        unpack = ["tar", "--extract", "--gzip", "--file=-", "--no-same-owner", f"--directory={folder}"]
        with _tar([*unpack, image.name], stdin=subprocess.PIPE) as pipe:
            call(
                self._name(image.key),
                self._s3.download_fileobj,
                Bucket=self._bucket,
                Key=self._prefix + image.key,
                Fileobj=pipe,
                Config=_TRANSFER,
            )
        if not path.is_file() or path.is_symlink():
            raise HostError(f"{self._name(image.key)}: does not hold {image.name}")
        if sha256(path) != image.sha256:
            raise HostError(f"{self._name(image.key)}: its content differs from what the manifest says")
        return path

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _new_key(name: str) -> str:
    return f"images/{names.attempt()}/{name}.tar.gz"


@contextmanager
def _tar(command: list[str], **pipes: int) -> Iterator[IO[bytes]]:
    """Runs tar with a pipe from it or to it; its failure is an error, whatever was read or written."""
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stderr=messages, **pipes) as process,  # type: ignore[call-overload]
    ):
        # tar's own message is better.
        with suppress(BrokenPipeError), process.stdin or process.stdout as pipe:
            yield pipe
        if process.wait():
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise HostError(f"tar: exit code {process.returncode}: {lines[0]}")
