"""The S3 calls of the stand-in."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

PARTS = 10000  # of one upload: docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_IN_FLIGHT = 4
_ABSENT = ("404", "NoSuchKey", "NotFound")
_FORBIDDEN = ("403", "AccessDenied", "Forbidden")


@dataclass(frozen=True)
class Object:
    """An object as S3 lists it; ``time`` in seconds since 1970."""

    name: str  # below the prefix that was asked for
    size: int
    time: float
    tag: str


@dataclass(frozen=True)
class Listing:
    """What is directly below a prefix."""

    objects: tuple[Object, ...]
    folders: tuple[str, ...]


class Bucket:
    """A bucket's objects below a prefix; each call raises OSError where S3 refuses or does not answer.

    Args:
        name: The bucket.
        prefix: Empty, or ends with a slash.
        region: Where it is; None: as boto3 finds out.
        endpoint: S3's URL; None: AWS's.
        path_style: The bucket's name goes into the path instead of the host name.
    """

    def __init__(
        self, name: str, *, prefix: str, region: str | None, endpoint: str | None, path_style: bool
    ) -> None:
        session = botocore.session.get_session()
        session.set_config_variable("metadata_service_timeout", 5)
        session.set_config_variable("metadata_service_num_attempts", 10)
        config = Config(
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            s3={"addressing_style": "path" if path_style else "virtual"},
        )
        self._client: Any = boto3.Session(botocore_session=session).client(
            "s3", region_name=region, endpoint_url=endpoint, config=config
        )
        self.name = name
        self.prefix = prefix
        self.workers = ThreadPoolExecutor(max_workers=16)

    def check(self) -> None:
        """See that the bucket can be listed."""
        self._call(self._client.list_objects_v2, Bucket=self.name, Prefix=self.prefix, MaxKeys=1)

    def find(self, path: str) -> Object | None:
        """Return the object of a path; None if there is none."""
        try:
            found = self._call(self._client.head_object, Bucket=self.name, Key=self.prefix + path)
        except FileNotFoundError:
            return None
        return Object(path, found["ContentLength"], found["LastModified"].timestamp(), found["ETag"])

    def is_folder(self, path: str) -> bool:
        """Tell whether there is an object below a path."""
        found = self._call(
            self._client.list_objects_v2, Bucket=self.name, Prefix=f"{self.prefix}{path}/", MaxKeys=1
        )
        return bool(found.get("KeyCount", len(found.get("Contents", []))))

    def list(self, path: str) -> Listing:
        """Return what is directly below a path."""
        begin = f"{self.prefix}{path}/" if path else self.prefix
        objects: list[Object] = []
        folders: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._call(
                self._client.list_objects_v2, Bucket=self.name, Prefix=begin, Delimiter="/", **more
            )
            objects += [
                Object(o["Key"][len(begin) :], o["Size"], o["LastModified"].timestamp(), o["ETag"])
                for o in page.get("Contents", [])
                if o["Key"] != begin
            ]
            folders += [folder["Prefix"][len(begin) : -1] for folder in page.get("CommonPrefixes", [])]
            if not page.get("IsTruncated"):
                return Listing(tuple(objects), tuple(folders))
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, path: str, tag: str, offset: int, size: int) -> bytes:
        """Return a range of an object, which must still be the one with this tag."""
        answer = self._call(
            self._client.get_object,
            Bucket=self.name,
            Key=self.prefix + path,
            Range=f"bytes={offset}-{offset + size - 1}",
            IfMatch=tag,
        )
        with _as_io_errors():
            body: bytes = answer["Body"].read()
        return body

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._call(self._client.delete_object, Bucket=self.name, Key=self.prefix + path)

    def upload(self, path: str, *, part_size: int) -> Upload:
        """Begin the upload of an object; nothing is there before it is completed."""
        return Upload(self, path, part_size)

    def _call(self, function: Callable[..., T], **arguments: Any) -> T:
        with _as_io_errors():
            return function(**arguments)


class Upload:
    """An object that is being written: it appears whole at :meth:`complete`, or not at all."""

    def __init__(self, bucket: Bucket, path: str, part_size: int) -> None:
        self._bucket = bucket
        self._where = {"Bucket": bucket.name, "Key": bucket.prefix + path}
        self._part_size = part_size
        self._pending = bytearray()
        self._id: str | None = None
        self._parts: list[Future[dict[str, Any]]] = []
        self._slots = threading.Semaphore(_IN_FLIGHT)
        self.size = 0

    def write(self, data: memoryview) -> None:
        """Append data."""
        if self.size + len(data) > PARTS * self._part_size:
            raise OSError(errno.EFBIG, f"more than {PARTS} parts of {self._part_size} bytes")
        for part in self._parts:
            if part.done():
                part.result()
        self._pending += data
        self.size += len(data)
        while len(self._pending) >= self._part_size:
            self._send(bytes(memoryview(self._pending)[: self._part_size]))
            del self._pending[: self._part_size]

    def complete(self) -> None:
        """Finish: the object is there when this returns."""
        call, client = self._bucket._call, self._bucket._client
        if self._id is None:
            call(client.put_object, **self._where, Body=bytes(self._pending))
            return
        if self._pending:
            self._send(bytes(self._pending))
        parts = [part.result() for part in self._parts]
        call(
            client.complete_multipart_upload,
            **self._where,
            UploadId=self._id,
            MultipartUpload={"Parts": parts},
        )

    def abort(self) -> None:
        """Give up: the object will not be there."""
        if self._id is None:
            return
        for part in self._parts:
            part.cancel()
        with contextlib.suppress(OSError):
            self._bucket._call(self._bucket._client.abort_multipart_upload, **self._where, UploadId=self._id)

    def _send(self, data: bytes) -> None:
        if self._id is None:
            created = self._bucket._call(self._bucket._client.create_multipart_upload, **self._where)
            self._id = created["UploadId"]
        self._slots.acquire()
        self._parts.append(self._bucket.workers.submit(self._send_part, len(self._parts) + 1, data))

    def _send_part(self, number: int, data: bytes) -> dict[str, Any]:
        try:
            sent = self._bucket._call(
                self._bucket._client.upload_part,
                **self._where,
                UploadId=self._id,
                PartNumber=number,
                Body=data,
            )
        finally:
            self._slots.release()
        checksums = {key: value for key, value in sent.items() if key.startswith("ChecksumCRC")}
        return {"PartNumber": number, "ETag": sent["ETag"], **checksums}


@contextlib.contextmanager
def _as_io_errors() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        numbers = dict.fromkeys(_ABSENT, errno.ENOENT) | dict.fromkeys(_FORBIDDEN, errno.EACCES)
        raise OSError(numbers.get(code, errno.EIO), str(error)) from error
    except BotoCoreError as error:
        raise OSError(errno.EIO, str(error)) from error
