"""
This node's durable keys and its generation on disk, in a directory that one process at a time may hold.

Blocking: `commit` is called in a thread, by one caller at a time. The file
itself is `log`; this opens it, and says what was found.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from dcosnet.errors import DcosnetError
from dcosnet.io.disk import Disk
from dcosnet.kv import records
from dcosnet.kv.log import Log
from dcosnet.kv.records import Contents
from dcosnet.model.delta import Delta
from dcosnet.model.entry import Entry


class JournalError(DcosnetError):
    """The journal cannot be used at all; the node cannot start with it."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {self.remedy}"


class Journal:
    """The log `journal` of a directory, held from `open` to `close`."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.path = directory / "journal"
        self.log = Log(self.path, disk)
        self.fresh = False
        """Whether there was no journal, or not a whole one."""
        self.last: Delta | None = None
        """What a damaged one said, in its own generation."""
        self.torn_bytes = 0
        """How much of a write that was cut short was dropped at the start."""
        self.damaged: Path | None = None
        """Where a journal with damage was moved at the start."""
        self._disk = disk
        self._directory = directory
        self._held = -1

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
            self._disk.make_directory(self._directory)
            self._held = self._hold()
            data = self._disk.read(self.path) or b""
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
        self.fresh = contents.end == 0 or contents.damage is not None
        generation = max(contents.generation + 1, least_generation)
        self.log.assume(owner, generation, contents.entries)
        if contents.damage is None:
            self.torn_bytes = len(data) - contents.end
        else:
            self.last = Delta(owner, contents.generation, 0, contents.version, contents.entries, bare=True)
            self.damaged = self.path.with_name(f"journal.damaged-{generation}")
            try:
                self._disk.unlink(self.damaged)
                self._disk.link(self.path, self.damaged)
            except OSError as error:
                self.close()
                raise JournalError(
                    self.path,
                    f"damaged at byte {contents.damage}, and not to be moved aside: {error.strerror}",
                    "move it away; the keys before the damage can be read from it",
                ) from error
        return Contents(owner, generation, contents.version, contents.entries, contents.end, contents.damage)

    def begin(self, version: int) -> None:
        """Write the file anew with the new generation. Raises OSError; the next commit then tries again."""
        self.commit(version, {})

    def commit(self, version: int, changes: Mapping[str, Entry | None]) -> None:
        """Put changes on disk as one record. Raises OSError, and then they do not count."""
        if self._held < 0:
            raise OSError(errno.EBADF, "the journal is closed", str(self.path))
        self.log.commit(version, changes)

    def close(self) -> None:
        """Let go of the directory. What was acknowledged is on disk already."""
        self.log.rest()
        if self._held >= 0:
            self._disk.close(self._held)
            self._held = -1

    def _hold(self) -> int:
        try:
            return self._disk.lock(self._directory)
        except BlockingIOError as error:
            raise OSError(error.errno, "another process uses it") from error
