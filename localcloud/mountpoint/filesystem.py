"""Mountpoint's rules: what a bucket looks like as a file system, and what is refused."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from localcloud.mountpoint import kernel
from localcloud.mountpoint.bucket import Bucket, Object
from localcloud.mountpoint.files import Reader, Writer
from localcloud.mountpoint.kernel import Attributes, Op, Request
from localcloud.mountpoint.options import Options

_LOG = logging.getLogger(__name__)

# SETATTR's bits: what is to be changed.
_OWNER_MODE_SIZE, _TIMES, _SET_NOW, _MODIFIED = 0b1111, 0b110000, 0b100000000, 0b100000


@dataclass(eq=False)
class _Node:
    """An inode.

    Attributes:
        path: Below the prefix; the root's is empty.
        known: The object; None for a directory and a file that is not there yet.
        writer: Who writes it.
        made: A directory that is nowhere but here, as no object is in it yet.
    """

    number: int
    path: str
    directory: bool
    time: float
    known: Object | None = None
    writer: Writer | None = None
    made: bool = False
    lookups: int = 0
    readers: int = 0


@dataclass
class _Tables:
    nodes: dict[int, _Node] = field(default_factory=dict)
    paths: dict[str, _Node] = field(default_factory=dict)
    files: dict[int, tuple[_Node, Reader | Writer]] = field(default_factory=dict)
    listings: dict[int, list[tuple[str, _Node]]] = field(default_factory=dict)


class FileSystem:
    """Answers the kernel's requests."""

    def __init__(self, bucket: Bucket, options: Options) -> None:
        self._bucket = bucket
        self._options = options
        self._lock = threading.RLock()
        self._all = _Tables()
        self._numbers = itertools.count(kernel.ROOT)
        self._handles = itertools.count(1)
        self._node("", directory=True).lookups = 1
        self._answers: Mapping[int, Callable[[Request], bytes]] = {
            Op.LOOKUP: self._lookup,
            Op.FORGET: self._forget,
            Op.BATCH_FORGET: self._forget_many,
            Op.GETATTR: self._getattr,
            Op.SETATTR: self._setattr,
            Op.MKDIR: self._mkdir,
            Op.RMDIR: self._rmdir,
            Op.UNLINK: self._unlink,
            Op.OPEN: self._open,
            Op.CREATE: self._create,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.FLUSH: self._flush,
            Op.FSYNC: self._fsync,
            Op.RELEASE: self._release,
            Op.OPENDIR: self._opendir,
            Op.READDIRPLUS: self._readdir,
            Op.RELEASEDIR: self._releasedir,
            Op.STATFS: lambda request: kernel.file_system(),
            Op.DESTROY: lambda request: b"",
        }

    def answer(self, request: Request) -> bytes:
        """Answer a request.

        Raises:
            OSError: It is refused, with this errno.
        """
        if request.op in (Op.LINK, Op.SYMLINK):
            raise OSError(errno.EPERM, "no links")
        if request.op == Op.FSYNCDIR:
            # The kernel would take "not there" as done.
            raise OSError(errno.EOPNOTSUPP, "directories are not synchronised")
        known = self._answers.get(request.op)
        if known is None:
            # Rename, extended attributes, locks, allocation, …
            raise OSError(errno.ENOSYS, "not supported")
        return known(request)

    # -- inodes

    def _node(self, path: str, *, directory: bool, known: Object | None = None) -> _Node:
        """The inode of a path, made or brought up to date."""
        with self._lock:
            node = self._all.paths.get(path)
            if node is None or node.directory != directory:
                at = known.time if known else time.time()
                node = _Node(next(self._numbers), path, directory, at)
                self._all.nodes[node.number] = self._all.paths[path] = node
            if known is not None:
                node.known, node.time = known, known.time
            return node

    def _at(self, number: int) -> _Node:
        with self._lock:
            node = self._all.nodes.get(number)
        if node is None:
            raise OSError(errno.ESTALE, f"no inode {number}")
        return node

    def _local(self, path: str) -> _Node | None:
        """The inode of what S3 does not know yet."""
        with self._lock:
            node = self._all.paths.get(path)
            return node if node is not None and (node.writer is not None or node.made) else None

    def _find(self, path: str) -> _Node:
        node = self._local(path)
        if node is not None:
            return node
        # A directory hides a file of its name.
        if self._bucket.is_folder(path):
            return self._node(path, directory=True)
        known = self._bucket.find(path)
        # It may have been created meanwhile.
        node = self._local(path)
        if node is not None:
            return node
        if known is None:
            raise OSError(errno.ENOENT, path)
        return self._node(path, directory=False, known=known)

    def _child(self, request: Request, offset: int = 0) -> str:
        parent = self._at(request.node)
        name = request.name(offset)
        return f"{parent.path}/{name}" if parent.path else name

    def _attributes(self, node: _Node) -> Attributes:
        options = self._options
        writer = node.writer
        size = writer.size if writer else node.known.size if node.known else 0
        return Attributes(
            node=node.number,
            size=0 if node.directory else size,
            time=node.time,
            mode=(stat.S_IFDIR | options.dir_mode) if node.directory else (stat.S_IFREG | options.file_mode),
            links=2 if node.directory else 1,
            uid=options.uid,
            gid=options.gid,
        )

    def _valid(self, node: _Node) -> float:
        return 0 if node.writer or node.made else self._options.metadata_ttl

    def _entry(self, node: _Node) -> bytes:
        with self._lock:
            node.lookups += 1
            self._all.nodes[node.number] = node
        return kernel.entry(self._attributes(node), valid=self._valid(node))

    def _lookup(self, request: Request) -> bytes:
        return self._entry(self._find(self._child(request)))

    def _forget(self, request: Request) -> bytes:
        self._drop(request.node, request.fields("<Q")[0])
        return b""

    def _forget_many(self, request: Request) -> bytes:
        count = request.fields("<I")[0]
        for number in range(count):
            self._drop(*request.fields(f"<{8 + 16 * number}x2Q"))
        return b""

    def _drop(self, number: int, lookups: int) -> None:
        with self._lock:
            node = self._all.nodes.get(number)
            if node is None:
                return
            node.lookups -= lookups
            if node.lookups <= 0 and not node.writer and not node.made and number != kernel.ROOT:
                del self._all.nodes[number]
                if self._all.paths.get(node.path) is node:
                    del self._all.paths[node.path]

    def _getattr(self, request: Request) -> bytes:
        node = self._at(request.node)
        if not node.directory and node.writer is None:
            known = self._bucket.find(node.path)
            if known is None:
                raise OSError(errno.ENOENT, node.path)
            with self._lock:
                node.known, node.time = known, known.time
        return kernel.attributes_of(self._attributes(node), valid=self._valid(node))

    def _setattr(self, request: Request) -> bytes:
        node = self._at(request.node)
        fields = request.fields("<IIQQQQQQIII")
        valid, modified, nanoseconds = fields[0], fields[6], fields[9]
        if valid & _OWNER_MODE_SIZE or (valid & _TIMES and node.writer is None):
            raise OSError(errno.EPERM, f"{node.path}: owner, mode, size and times cannot be changed")
        if valid & _SET_NOW:
            node.time = time.time()
        elif valid & _MODIFIED:
            node.time = modified + nanoseconds / 1_000_000_000
        return kernel.attributes_of(self._attributes(node), valid=0)

    # -- directories

    def _mkdir(self, request: Request) -> bytes:
        path = self._child(request, 8)
        with self._lock:
            node = self._node(path, directory=True)
            node.made = True
        return self._entry(node)

    def _rmdir(self, request: Request) -> bytes:
        node = self._find(self._child(request))
        if not node.directory:
            raise OSError(errno.ENOTDIR, node.path)
        if not node.made:
            raise OSError(errno.EPERM, f"{node.path}: holds objects")
        with self._lock:
            if any(self._local(path) for path in self._all.paths if path.startswith(f"{node.path}/")):
                raise OSError(errno.ENOTEMPTY, node.path)
        if self._bucket.is_folder(node.path):
            raise OSError(errno.ENOTEMPTY, node.path)
        with self._lock:
            node.made = False
            self._all.paths.pop(node.path, None)
        return b""

    def _opendir(self, request: Request) -> bytes:
        node = self._at(request.node)
        listing = self._bucket.list(node.path)
        begin = f"{node.path}/" if node.path else ""
        with self._lock:
            found = {
                known.name: self._node(
                    begin + known.name,
                    directory=False,
                    known=Object(begin + known.name, known.size, known.time, known.tag),
                )
                for known in listing.objects
                if known.name not in ("", ".", "..") and not self._local(begin + known.name)
            }
            found |= {
                name: self._node(begin + name, directory=True)
                for name in listing.folders
                if name not in ("", ".", "..")
            }
            for path in self._all.paths:
                name = path.removeprefix(begin)
                if path.startswith(begin) and name and "/" not in name and (local := self._local(path)):
                    found[name] = local
            handle = next(self._handles)
            self._all.listings[handle] = [(".", node), ("..", node), *sorted(found.items())]
        return kernel.opened(handle)

    def _readdir(self, request: Request) -> bytes:
        handle, offset, room = request.fields("<QQI")
        answer = b""
        for position, (name, node) in enumerate(self._all.listings[handle][offset:], start=offset + 1):
            attributes = self._attributes(node)
            dots = name in (".", "..")
            head = kernel.no_entry() if dots else kernel.entry(attributes, valid=self._valid(node))
            piece = kernel.directory_entry(name, position, attributes, head)
            if len(answer) + len(piece) > room:
                break
            answer += piece
            if not dots:
                with self._lock:
                    node.lookups += 1
                    self._all.nodes[node.number] = node
                    self._all.paths.setdefault(node.path, node)
        return answer

    def _releasedir(self, request: Request) -> bytes:
        del self._all.listings[request.fields("<Q")[0]]
        return b""

    def _unlink(self, request: Request) -> bytes:
        node = self._find(self._child(request))
        if node.directory:
            raise OSError(errno.EISDIR, node.path)
        if node.writer is not None or not self._options.allow_delete:
            raise OSError(errno.EPERM, f"{node.path}: cannot be deleted")
        self._bucket.delete(node.path)
        with self._lock:
            self._all.paths.pop(node.path, None)
        return b""

    # -- files

    def _open(self, request: Request) -> bytes:
        node = self._at(request.node)
        flags = request.fields("<I")[0]
        reads = flags & os.O_ACCMODE != os.O_WRONLY and not flags & os.O_TRUNC
        if node.writer is not None:
            raise OSError(errno.EPERM, f"{node.path}: is being written")
        if reads:
            known = self._bucket.find(node.path)
            if known is None:
                raise OSError(errno.ENOENT, node.path)
            with self._lock:
                node.known, node.time = known, known.time
                node.readers += 1
            return self._opened(node, Reader(self._bucket, known, flags), 0)
        if not (self._options.allow_overwrite and flags & os.O_TRUNC):
            raise OSError(errno.EPERM, f"{node.path}: there already, and only new files are written")
        with self._lock:
            if node.readers:
                raise OSError(errno.EPERM, f"{node.path}: is being read")
            return self._opened_for_writing(node, request.pid)

    def _create(self, request: Request) -> bytes:
        path = self._child(request, 16)
        with self._lock:
            if self._local(path):
                raise OSError(errno.EEXIST, path)
            node = self._node(path, directory=False)
            node.time = time.time()
            answer = self._opened_for_writing(node, request.pid)
        return self._entry(node) + answer

    def _opened_for_writing(self, node: _Node, thread: int) -> bytes:
        node.known = None
        node.writer = Writer(self._bucket, node.path, part_size=self._options.write_part_size, thread=thread)
        # Past the page cache, which would answer reads of what was written.
        return self._opened(node, node.writer, kernel.DIRECT_IO)

    def _opened(self, node: _Node, file: Reader | Writer, flags: int) -> bytes:
        with self._lock:
            handle = next(self._handles)
            self._all.files[handle] = (node, file)
        return kernel.opened(handle, flags)

    def _file(self, request: Request) -> tuple[_Node, Reader | Writer]:
        with self._lock:
            return self._all.files[request.fields("<Q")[0]]

    def _read(self, request: Request) -> bytes:
        node, file = self._file(request)
        _, offset, size = request.fields("<QQI")
        if not isinstance(file, Reader):
            raise OSError(errno.EBADF, f"{node.path}: open for writing, cannot be read")
        return file.read(offset, size)

    def _write(self, request: Request) -> bytes:
        node, file = self._file(request)
        _, offset, size = request.fields("<QQI")
        if not isinstance(file, Writer):
            raise OSError(errno.EBADF, f"{node.path}: open for reading, cannot be written")
        file.write(offset, request.body[40 : 40 + size])
        return kernel.written(size)

    def _flush(self, request: Request) -> bytes:
        node, file = self._file(request)
        if isinstance(file, Writer) and file.close(request.pid):
            self._uploaded(node, file)
        return b""

    def _fsync(self, request: Request) -> bytes:
        node, file = self._file(request)
        if isinstance(file, Writer):
            file.complete()
            self._uploaded(node, file)
        elif file.undecided:
            raise OSError(errno.EBADF, f"{node.path}: nothing was written to it")
        return b""

    def _release(self, request: Request) -> bytes:
        node, file = self._file(request)
        if isinstance(file, Writer):
            try:
                file.complete()
            except OSError as error:
                _LOG.error("%s: closed without its upload: %s", node.path, error)
            self._uploaded(node, file)
        with self._lock:
            del self._all.files[request.fields("<Q")[0]]
            if isinstance(file, Reader):
                node.readers -= 1
        return b""

    def _uploaded(self, node: _Node, file: Writer) -> None:
        """The file's upload has ended: from now on it is what S3 has, if anything."""
        known = self._bucket.find(node.path) if file.completed and node.writer is file else None
        with self._lock:
            if node.writer is not file:
                return
            node.writer = None
            if known is not None:
                node.known, node.time = known, known.time
                parent = node.path
                while parent:
                    parent = parent.rpartition("/")[0]
                    if folder := self._all.paths.get(parent):
                        folder.made = False
            elif self._all.paths.get(node.path) is node:
                del self._all.paths[node.path]
