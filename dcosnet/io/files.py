"""
Files that are read or written as a whole. All of it blocks: run it off the reactor.

A write is there completely or not at all, also after a power cut. A read takes
regular files only, and never more than its limits.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from twisted.internet.threads import deferToThreadPool

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

T = TypeVar("T")

# Two writes within one tick of the kernel's clock leave the same times; a file
# younger than this is read again rather than believed unchanged. Coarse file
# systems count in seconds.
_YOUNG_NS = 2_000_000_000


@attrs.frozen
class Signature:
    """What tells one content of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


@attrs.frozen
class FileRead:
    """
    A file that was read: its bytes, or why it could not be.

    `signature` is None when the same one may come to mean other content.
    """

    data: bytes = b""
    failure: str | None = None
    signature: Signature | None = None


@attrs.frozen
class FolderRead:
    """
    The files of a folder: those read, and the names of those that did not change.

    `failure` says why the folder could not be read. `omitted` are names beyond
    the limit.
    """

    read: Mapping[str, FileRead] = attrs.field(factory=dict)
    same: frozenset[str] = frozenset()
    omitted: tuple[str, ...] = ()
    failure: str | None = None


def off_reactor(reactor: Any, run: Callable[[], T]) -> Deferred[T]:
    """Run something that blocks in the reactor's thread pool."""
    deferred: Deferred[T] = deferToThreadPool(reactor, reactor.getThreadPool(), run)
    return deferred


def read_folder(
    path: Path,
    wanted: Callable[[str], bool],
    known: Mapping[str, Signature | None],
    *,
    busy: frozenset[str] = frozenset(),
    size_limit: int = 1 << 20,
    count_limit: int = 1024,
) -> FolderRead:
    """
    Read the wanted files that are not as their known signatures say.

    Files in `busy` are being written and count as the same. Beyond the limit of
    files, those known before stay.
    """
    try:
        names = [name for name in os.listdir(path) if wanted(name)]  # noqa: PTH208 - names are all we want
    except OSError as error:
        return FolderRead(failure=_folder_failure(error))
    names.sort(key=lambda name: (name not in known, name))
    read: dict[str, FileRead] = {}
    same: set[str] = set()
    for name in names[:count_limit]:
        if name in busy:
            same.add(name)
            continue
        try:
            found = read_file(path / name, known.get(name), size_limit)
        except OSError as error:
            if error.errno == errno.ENOENT and not os.path.lexists(path / name):
                continue  # gone since it was listed
            found = FileRead(failure=f"cannot be read: {error.strerror}; correct its permissions or remove it")
        if found is None:
            same.add(name)
        else:
            read[name] = found
    return FolderRead(read, frozenset(same), tuple(names[count_limit:]))


def _folder_failure(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "the folder is not there; create it, it is looked for"
    return f"the folder cannot be read: {error.strerror}; correct its permissions"


def read_file(path: Path, known: Signature | None, limit: int) -> FileRead | None:
    """
    What is in a file, or None when it is as known.

    What is no regular file, or larger than the limit, is a failure. Raises OSError.
    """
    # O_NONBLOCK: a FIFO of that name would hold the thread for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        signature = _signature(status)
        if signature == known:
            return None
        if not stat.S_ISREG(status.st_mode):
            return FileRead(failure="is not a regular file; remove it", signature=signature)
        data = bytearray()
        while len(data) <= limit and (piece := os.read(descriptor, limit + 1 - len(data))):
            data += piece
        if len(data) > limit:
            return FileRead(failure=f"is larger than {limit >> 10} KiB; split it", signature=signature)
        # Reading does not touch these; a writer that came meanwhile does.
        settled = _signature(os.fstat(descriptor)) == signature and time.time_ns() - status.st_ctime_ns > _YOUNG_NS
        return FileRead(bytes(data), signature=signature if settled else None)
    finally:
        os.close(descriptor)


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """
    Put `data` in the place of what `path` holds, and return once it is on disk.

    Readers see the old or the new content. Raises OSError; then the old content
    is still there. One writer at a time for one path.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - it is a descriptor
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """The rename itself is on disk only once the folder is (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
