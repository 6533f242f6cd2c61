"""
A disk in memory that loses power as a real one does.

What was not synced may be lost, whole, in part or torn, and in any order; a
name that was given or taken and not synced may or may not have been. After a
sync that was refused nothing is known of what it should have put on disk, and
a later one does not help: that is what kernels do.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random

from dcosnet.io.disk import Disk
from dcosnet.testing.fragile_disk import Faults


class PowerCut(BaseException):
    """The disk got no further: whoever was writing is gone. No Exception, so that nobody catches it by chance."""


class _File:
    """Bytes as they are read now, and as they are on disk; `pending` leads from these to those."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.safe = b""
        self.pending: list[tuple[int, bytes | None]] = []
        # Of what stood before a refused sync nobody knows whether it is on disk.
        self.doubtful = 0

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.data, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        if not self.doubtful:
            self.safe, self.pending = bytes(self.data), []

    def refuse_sync(self) -> None:
        self.doubtful = len(self.pending)

    def crash(self, rng: Random) -> None:
        data = bytearray(self.safe)
        for offset, change in self.pending:
            if change is None:
                if rng.random() < 0.5:
                    _apply(data, offset, None)
                continue
            kept = rng.choice((0, len(change), rng.randint(0, len(change))))
            if kept:
                _apply(data, offset, change[:kept])
                if rng.random() < 0.25:  # the size was written, and the blocks were not
                    _apply(data, offset + kept, bytes(len(change) - kept))
        self.data, self.safe, self.pending, self.doubtful = data, bytes(data), [], 0


def _apply(data: bytearray, offset: int, change: bytes | None) -> None:
    """Write at the offset, or cut there if there is nothing to write."""
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if change is None:
        del data[offset:]
    else:
        data[offset : offset + len(change)] = change


class _Directory:
    """Names as they are seen now, and as they are on disk; `pending` leads from these to those."""

    def __init__(self) -> None:
        self.names: dict[str, _File | _Directory] = {}
        self.safe: dict[str, _File | _Directory] = {}
        self.pending: list[tuple[tuple[str, _File | _Directory | None], ...]] = []
        self.locked = False

    def change(self, *changes: tuple[str, _File | _Directory | None]) -> None:
        _rename(self.names, changes)
        self.pending.append(changes)

    def sync(self) -> None:
        self.safe, self.pending = dict(self.names), []

    def crash(self, rng: Random) -> None:
        for changes in self.pending:
            if rng.random() < 0.5:
                _rename(self.safe, changes)
        self.names, self.pending, self.locked = dict(self.safe), [], False
        for node in dict.fromkeys(self.names.values()):
            node.crash(rng)


def _rename(names: dict[str, _File | _Directory], changes: tuple[tuple[str, _File | _Directory | None], ...]) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class MemoryDisk(Faults, Disk):
    """
    An empty disk with one directory, `root`; serves one store, which `crash` and `kill` leave without files.

    With `last` set, the call that changes something with that number in `calls`
    still takes effect, and then raises PowerCut, as does every one after it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.last: int | None = None
        self._parts = len(root.parts)
        self._root = _Directory()
        self._open: dict[int, _File | _Directory] = {}
        self._next = 3

    # What a test does to it

    def crash(self, rng: Random) -> None:
        """Lose power."""
        self.kill()
        self._root.crash(rng)

    def kill(self) -> None:
        """End the process that used it: all that was written is still there."""
        for node in self._open.values():
            if isinstance(node, _Directory):
                node.locked = False
        self._open.clear()
        self.calls.clear()
        self.last = None

    def wipe(self) -> None:
        """Be another disk, an empty one."""
        self.kill()
        self._root = _Directory()

    def put(self, path: Path, data: bytes) -> None:
        """Let these bytes be a file's, on disk; for damage, which no call makes."""
        directory = self._directory(path.parent)
        file = _File()
        file.data, file.safe = bytearray(data), bytes(data)
        directory.names[path.name] = directory.safe[path.name] = file

    # Disk

    def make_directory(self, path: Path) -> bool:
        """As Disk says."""
        self._attempt("make_directory")
        parent = self._directory(path.parent)
        made = path.name not in parent.names
        if made:
            parent.change((path.name, _Directory()))
        self._cut()
        return made

    def lock(self, path: Path) -> int:
        """As Disk says."""
        directory = self._directory(path)
        if directory.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        directory.locked = True
        return self._descriptor(directory)

    def names(self, path: Path) -> list[str]:
        """As Disk says."""
        return sorted(self._directory(path).names)

    def read(self, path: Path) -> bytes | None:
        """As Disk says."""
        node = self._directory(path.parent).names.get(path.name)
        if isinstance(node, _Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return None if node is None else bytes(node.data)

    def create(self, path: Path) -> int:
        """As Disk says."""
        self._attempt("create")
        directory = self._directory(path.parent)
        file = directory.names.get(path.name)
        if isinstance(file, _File):
            file.change(0, None)
        else:
            file = _File()
            directory.change((path.name, file))
        self._cut()
        return self._descriptor(file)

    def open(self, path: Path) -> int:
        """As Disk says."""
        return self._descriptor(self._file(path))

    def close(self, descriptor: int) -> None:
        """As Disk says."""
        node = self._open.pop(descriptor, None)
        if node is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if isinstance(node, _Directory):
            node.locked = False

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """As Disk says, as far as there is room."""
        self._attempt("write")
        data = self.admit(data)
        self._opened(descriptor).change(offset, bytes(data))
        self._cut()
        return len(data)

    def sync(self, descriptor: int) -> None:
        """As Disk says."""
        file = self._opened(descriptor)
        try:
            self._attempt("sync")
        except OSError:
            file.refuse_sync()
            raise
        file.sync()
        self._cut()

    def truncate(self, descriptor: int, size: int) -> None:
        """As Disk says."""
        self._attempt("truncate")
        self._opened(descriptor).change(size, None)
        self._cut()

    def sync_directory(self, path: Path) -> None:
        """As Disk says."""
        self._attempt("sync_directory")
        self._directory(path).sync()
        self._cut()

    def rename(self, source: Path, target: Path) -> None:
        """As Disk says, within a directory."""
        self._attempt("rename")
        self._directory(source.parent).change((target.name, self._file(source)), (source.name, None))
        self._cut()

    def link(self, source: Path, target: Path) -> None:
        """As Disk says, within a directory."""
        self._attempt("link")
        directory = self._directory(target.parent)
        if target.name in directory.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        directory.change((target.name, self._file(source)))
        self._cut()

    def unlink(self, path: Path) -> None:
        """As Disk says."""
        self._attempt("unlink")
        directory = self._directory(path.parent)
        if path.name in directory.names:
            directory.change((path.name, None))
        self._cut()

    def _attempt(self, call: str) -> None:
        if self.last is not None and len(self.calls) > self.last:
            raise PowerCut
        self.attempt(call)

    def _cut(self) -> None:
        if self.last is not None and len(self.calls) > self.last:
            raise PowerCut

    def _directory(self, path: Path) -> _Directory:
        node: _File | _Directory | None = self._root
        for name in path.parts[self._parts :]:
            node = node.names.get(name) if isinstance(node, _Directory) else None
        if not isinstance(node, _Directory):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _file(self, path: Path) -> _File:
        node = self._directory(path.parent).names.get(path.name)
        if not isinstance(node, _File):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _opened(self, descriptor: int) -> _File:
        node = self._open.get(descriptor)
        if not isinstance(node, _File):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return node

    def _descriptor(self, node: _File | _Directory) -> int:
        self._next += 1
        self._open[self._next] = node
        return self._next
