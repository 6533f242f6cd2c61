"""
One file of an owner's durable entries: records appended, and written anew when they have grown.

Blocking, and used by one caller at a time. What `commit` returned from is on
disk; what it raised for does not count, and is taken back from the file as far
as the disk lets it. The bytes are `records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dcosnet.io.disk import Disk
from dcosnet.kv import records
from dcosnet.model.entry import Entry

# The log is rewritten when it has grown to several times what it says: small
# stores are not rewritten all the time, large ones do not fill the disk.
_COMPACT_FLOOR = 1 << 20
_COMPACT_FACTOR = 4


class Log:
    """
    What an owner has on this disk, in a file of its own.

    After a failed call the file is not trusted any more (a kernel may drop the
    pages that it could not write, and the next fsync then succeeds): the next
    commit writes a new one.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self.size = 0
        """Bytes in the file that are acknowledged."""
        self.rewrites = 0
        self.rewrites_refused = 0
        self._disk = disk
        self._descriptor = -1
        self._trusted = self._housed = False
        self._compact_at = 0
        self._owner = ""
        self._generation = 0
        self._settled = False
        self._entries: dict[str, Entry] = {}

    def assume(self, owner: str, generation: int, entries: Mapping[str, Entry]) -> None:
        """Let the next commit write a file with these entries, and what it is given."""
        self.rest()
        self._trusted = self._settled = False
        self._owner, self._generation, self._entries = owner, generation, dict(entries)

    @property
    def generation(self) -> int:
        """Of what it holds."""
        return self._generation

    def commit(self, version: int, changes: Mapping[str, Entry | None], settled: bool = False) -> None:
        """
        Put changes on disk as one record. Raises OSError, and then they do not count.

        `settled` is of copies: whether their owner had told all by then.
        """
        self._settled = self._settled or settled
        if not self._trusted:
            self._entries = self._rewrite(version, _merge(dict(self._entries), changes))
            return
        self._append(records.changes(version, changes, self._settled))
        _merge(self._entries, changes)
        if self.size > self._compact_at:
            self._compact(version)

    def rest(self) -> None:
        """Keep no file open until the next commit."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._disk.close(descriptor)

    def _append(self, record: bytes) -> None:
        try:
            if self._descriptor < 0:
                self._descriptor = self._disk.open(self.path)
            self._write(self._descriptor, record, self.size)
            self._disk.sync(self._descriptor)
        except OSError:
            self._trusted = False
            with suppress(OSError):  # the first error is told; the next commit writes a new file
                self._disk.truncate(self._descriptor, self.size)
                self._disk.sync(self._descriptor)
            self.rest()
            raise
        self.size += len(record)

    def _rewrite(self, version: int, entries: dict[str, Entry]) -> dict[str, Entry]:
        """Let a new file with these entries take the name; gives them."""
        fresh = self.path.with_name(f"{self.path.name}.new")
        descriptor = self._disk.create(fresh)
        size = 0
        try:
            for record in records.snapshot(self._owner, self._generation, version, entries.values(), self._settled):
                self._write(descriptor, record, size)
                size += len(record)
            self._disk.sync(descriptor)
            # From here on it is not known which file has the name; the old one
            # takes no more records.
            self._trusted = False
            self.rest()
            self._disk.rename(fresh, self.path)
            self._disk.sync_directory(self.path.parent)
            if not self._housed:  # who made the directory may have lost power before he synced it
                self._disk.sync_directory(self.path.parent.parent)
                self._housed = True
        except OSError:
            self._disk.close(descriptor)
            with suppress(OSError):  # the first error is told; the name is used again
                self._disk.unlink(fresh)
            raise
        self._descriptor = descriptor
        self._trusted = True
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


def _merge(entries: dict[str, Entry], changes: Mapping[str, Entry | None]) -> dict[str, Entry]:
    for key, entry in changes.items():
        if entry is None:
            entries.pop(key, None)
        else:
            entries[key] = entry
    return entries
