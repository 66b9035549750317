"""Open files: one that is read, one that is written."""

from __future__ import annotations

import errno
import logging
import os
import threading
from concurrent.futures import Future
from pathlib import Path

from localcloud.mountpoint.bucket import Bucket, Object, Upload

_LOG = logging.getLogger(__name__)
_CHUNK = 8 * 1024 * 1024


def process(thread: int) -> int:
    """Return the process that a thread belongs to."""
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return thread
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Tgid:")))


class Reader:
    """A file open for reading, always of one version of the object."""

    def __init__(self, bucket: Bucket, found: Object, flags: int) -> None:
        self._bucket = bucket
        self._object = found
        self._chunks: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()
        # Mountpoint decides by the first read or write whether such a file is for reading or writing, and
        # does not say which of both an fsync before either is.
        self.undecided = flags & os.O_ACCMODE == os.O_RDWR

    def read(self, offset: int, size: int) -> bytes:
        """Return what is there."""
        self.undecided = False
        end = min(offset + size, self._object.size)
        pieces = []
        while offset < end:
            number = offset // _CHUNK
            chunk = self._chunk(number)
            begin = offset - number * _CHUNK
            piece = chunk[begin : begin + end - offset]
            if not piece:
                raise OSError(errno.EIO, f"{self._object.name}: S3 sent less than it has")
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _chunk(self, number: int) -> bytes:
        with self._lock:
            sequential = number in self._chunks or number - 1 in self._chunks or number == 0
            last = (self._object.size - 1) // _CHUNK
            for wanted in (number, number + 1) if sequential else (number,):
                if wanted <= last and wanted not in self._chunks:
                    self._chunks[wanted] = self._bucket.workers.submit(self._fetch, wanted)
            for old in [known for known in self._chunks if known not in range(number - 1, number + 2)]:
                del self._chunks[old]
            chunk = self._chunks[number]
        try:
            return chunk.result()
        except OSError:
            with self._lock:
                self._chunks.pop(number, None)
            raise

    def _fetch(self, number: int) -> bytes:
        size = min(_CHUNK, self._object.size - number * _CHUNK)
        try:
            return self._bucket.read(self._object.name, self._object.tag, number * _CHUNK, size)
        except OSError as error:
            raise OSError(errno.EIO, str(error)) from error


class Writer:
    """A new file open for writing: from its beginning, in order, until it is closed or synchronised.

    Attributes:
        size: What was written so far, in bytes.
        completed: The object is there.
        failure: The errno of what went wrong; it is repeated for whoever asks again.
    """

    def __init__(self, bucket: Bucket, path: str, *, part_size: int, thread: int) -> None:
        self._path = path
        self._upload: Upload = bucket.upload(path, part_size=part_size)
        self._opener = process(thread)
        self._lock = threading.Lock()
        self.completed = False
        self.failure = 0

    @property
    def size(self) -> int:
        """What was written so far, in bytes."""
        return self._upload.size

    def write(self, offset: int, data: memoryview) -> None:
        """Append data, whose offset must be the file's end."""
        with self._lock:
            self._check()
            if self.completed:
                raise OSError(errno.EIO, f"{self._path}: written after its upload was completed")
            if offset != self.size:
                self._fail(errno.EINVAL)
                _LOG.error(
                    "%s: out of order write at %d instead of %d is not supported, upload aborted",
                    self._path,
                    offset,
                    self.size,
                )
                self._check()
            try:
                self._upload.write(data)
            except OSError as error:
                self._fail(_io(error))
                raise OSError(self.failure, str(error)) from error

    def complete(self) -> None:
        """See that the object is there."""
        with self._lock:
            self._check()
            if self.completed:
                return
            try:
                self._upload.complete()
            except OSError as error:
                self._fail(_io(error))
                _LOG.error("%s: upload failed: %s", self._path, error)
                raise OSError(self.failure, str(error)) from error
            self.completed = True

    def close(self, thread: int) -> bool:
        """One of the file's descriptors is closed; return whether that completed it.

        A file is left open that is empty, or that another process closes: shells and dd go on with another
        descriptor of it.
        """
        with self._lock:
            self._check()
            if not self.completed and (self.size == 0 or process(thread) != self._opener):
                return False
        self.complete()
        return True

    def _check(self) -> None:
        if self.failure:
            raise OSError(self.failure, f"{self._path}: {os.strerror(self.failure)}")

    def _fail(self, number: int) -> None:
        self.failure = number
        self._upload.abort()


def _io(error: OSError) -> int:
    return errno.EFBIG if error.errno == errno.EFBIG else errno.EIO
