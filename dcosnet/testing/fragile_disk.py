"""A real disk that can be told to refuse."""

from __future__ import annotations

import errno
from pathlib import Path

from dcosnet.io.disk import Disk


class Faults:
    """
    Refuses the calls named in `refuse` with the error number given there.

    `piece` bounds what one write takes, `room` what there is left to take;
    `calls` names the calls that change something, in the order they were asked for.
    """

    def __init__(self) -> None:
        self.refuse: dict[str, int] = {}
        self.piece = 1 << 30
        self.room: int | None = None
        self.calls: list[str] = []

    def attempt(self, call: str) -> None:
        """Note the call, and refuse it if told so."""
        self.calls.append(call)
        if call in self.refuse:
            raise OSError(self.refuse[call], "told to refuse")

    def admit(self, data: memoryview) -> memoryview:
        """As much of the data as one write takes."""
        data = data[: self.piece]
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: self.room]
            self.room -= len(data)
        return data


class FragileDisk(Faults, Disk):
    """The disk of this host, with faults."""

    def make_directory(self, path: Path) -> bool:
        """As Disk says."""
        self.attempt("make_directory")
        return super().make_directory(path)

    def create(self, path: Path) -> int:
        """As Disk says."""
        self.attempt("create")
        return super().create(path)

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """As Disk says, as far as there is room."""
        self.attempt("write")
        return super().write(descriptor, self.admit(data), offset)

    def sync(self, descriptor: int) -> None:
        """As Disk says."""
        self.attempt("sync")
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """As Disk says."""
        self.attempt("truncate")
        super().truncate(descriptor, size)

    def sync_directory(self, path: Path) -> None:
        """As Disk says."""
        self.attempt("sync_directory")
        super().sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        """As Disk says."""
        self.attempt("rename")
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """As Disk says."""
        self.attempt("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        """As Disk says."""
        self.attempt("unlink")
        super().unlink(path)
