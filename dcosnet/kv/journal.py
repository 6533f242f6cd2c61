"""
The log on disk of this node's durable keys, and of its generation.

Blocking: `commit` is called in a thread, by one caller at a time. What a commit
returned from is on disk; what it raised for is not acknowledged, and is taken
back from the file as far as the disk lets it. The bytes are `records`.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dcosnet.errors import DcosnetError
from dcosnet.kv import records
from dcosnet.kv.records import Contents
from dcosnet.model.entry import Entry

# The log is rewritten when it has grown to several times what it says: small
# stores are not rewritten all the time, large ones do not fill the disk.
_COMPACT_FLOOR = 1 << 20
_COMPACT_FACTOR = 4


class JournalError(DcosnetError):
    """The journal cannot be used at all; the node cannot start with it."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.remedy}"


class Disk:
    """The calls that a disk may refuse, so that a test can be one that does."""

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the data; gives how many bytes."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Return when everything written, or renamed in a directory, is on disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        """Let the source take the target's name."""
        source.replace(target)


class Journal:
    """
    One file, `journal`, in a directory that one process at a time may hold.

    After a failed call the file is not trusted any more (a kernel may drop the
    pages that it could not write, and the next fsync then succeeds): the next
    commit writes a new one.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.path = directory / "journal"
        self.size = 0
        """Bytes in the file that are acknowledged."""
        self.rewrites = 0
        self.rewrites_refused = 0
        self.torn_bytes = 0
        """How much of a write that was cut short was dropped at the start."""
        self.damaged: Path | None = None
        """Where a journal with damage was moved at the start."""
        self._disk = disk
        self._directory = directory
        self._directory_descriptor = -1
        self._descriptor = -1
        self._compact_at = 0
        self._owner = ""
        self._generation = 0
        self._entries: dict[str, Entry] = {}

    def open(self, owner: str, least_generation: int) -> Contents:
        """
        Take the directory, read what is there, and begin a new generation.

        The generation is greater than the last, and at least the given one. A
        write that was cut short is dropped: it was never acknowledged. A
        journal with damage elsewhere is moved aside as a whole, and what stands
        before the damage is kept. Raises JournalError when the directory cannot
        be used or the keys in it are another node's.
        """
        try:
            self._lock()
            data = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            self.close()
            raise JournalError(
                self.path, f"{error.strerror}", "give this process a state_dir of its own that it may write"
            ) from error
        contents = records.read(data)
        if contents.entries and contents.owner != owner:
            self.close()
            raise JournalError(
                self.path,
                f"its keys are those of node {contents.owner!r}, and this is {owner!r}",
                "set node.name back, or move the file away to start without them",
            )
        self._owner = owner
        self._generation = max(contents.generation + 1, least_generation)
        self._entries = dict(contents.entries)
        if contents.damage is None:
            self.torn_bytes = len(data) - contents.end
        else:
            self.damaged = self.path.with_name(f"journal.damaged-{self._generation}")
            try:
                self.damaged.unlink(missing_ok=True)
                os.link(self.path, self.damaged)
            except OSError as error:
                self.close()
                raise JournalError(
                    self.path,
                    f"damaged at byte {contents.damage}, and not to be moved aside: {error.strerror}",
                    "move it away; the keys before the damage can be read from it",
                ) from error
        return Contents(owner, self._generation, contents.version, contents.entries, contents.end, contents.damage)

    def begin(self, version: int) -> None:
        """Write the file anew with the new generation. Raises OSError; the next commit then tries again."""
        self._rewrite(version, self._entries)

    def commit(self, version: int, changes: Mapping[str, Entry | None]) -> None:
        """Put changes on disk as one record. Raises OSError, and then they do not count."""
        if self._directory_descriptor < 0:
            raise OSError(errno.EBADF, "the journal is closed", str(self.path))
        if self._descriptor < 0:
            self._entries = self._rewrite(version, _merge(dict(self._entries), changes))
            return
        self._append(records.changes(version, changes))
        _merge(self._entries, changes)
        if self.size > self._compact_at:
            self._compact(version)

    def close(self) -> None:
        """Let go of the directory. What was acknowledged is on disk already."""
        self._drop()
        if self._directory_descriptor >= 0:
            os.close(self._directory_descriptor)
            self._directory_descriptor = -1

    def _lock(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory_descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._directory_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(error.errno, "another process uses it") from error

    def _append(self, record: bytes) -> None:
        try:
            self._write(self._descriptor, record, self.size)
            self._disk.sync(self._descriptor)
        except OSError:
            with suppress(OSError):  # the first error is told; the next commit writes a new file
                self._disk.truncate(self._descriptor, self.size)
                self._disk.sync(self._descriptor)
            self._drop()
            raise
        self.size += len(record)

    def _rewrite(self, version: int, entries: dict[str, Entry]) -> dict[str, Entry]:
        """Let a new file with these entries take the name; gives them."""
        fresh = self.path.with_name("journal.new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        size = 0
        try:
            for record in records.snapshot(self._owner, self._generation, version, entries.values()):
                self._write(descriptor, record, size)
                size += len(record)
            self._disk.sync(descriptor)
            # From here on it is not known which file has the name; the old one
            # takes no more records.
            self._drop()
            self._disk.rename(fresh, self.path)
            self._disk.sync(self._directory_descriptor)
        except OSError:
            os.close(descriptor)
            with suppress(OSError):  # the first error is told; the name is used again
                fresh.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self.size = size
        self.rewrites += 1
        self._compact_at = max(_COMPACT_FLOOR, size * _COMPACT_FACTOR)
        return entries

    def _compact(self, version: int) -> None:
        try:
            self._rewrite(version, self._entries)
        except OSError:
            # Whichever file has the name now, all that was acknowledged is in
            # it. Not every commit from now on shall try again.
            self.rewrites_refused += 1
            self._compact_at *= 2

    def _write(self, descriptor: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = self._disk.write(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def _drop(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _merge(entries: dict[str, Entry], changes: Mapping[str, Entry | None]) -> dict[str, Entry]:
    for key, entry in changes.items():
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return entries
