"""A real disk that can be told to refuse."""

from __future__ import annotations

import errno
from pathlib import Path

from dcosnet.kv.journal import Disk


class FragileDisk(Disk):
    """
    Refuses the calls named in `refuse` with the error number given there.

    `piece` bounds what one write takes, `room` what there is left to take;
    `calls` names the calls that it was asked for, in order.
    """

    def __init__(self) -> None:
        self.refuse: dict[str, int] = {}
        self.piece = 1 << 30
        self.room: int | None = None
        self.calls: list[str] = []

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the data, as far as there is room."""
        self._try("write")
        data = data[: self.piece]
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: self.room]
            self.room -= len(data)
        return super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Put on disk what was written."""
        self._try("sync")
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""
        self._try("truncate")
        super().truncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        """Let the source take the target's name."""
        self._try("rename")
        super().rename(source, target)

    def _try(self, call: str) -> None:
        self.calls.append(call)
        if call in self.refuse:
            raise OSError(self.refuse[call], "told to refuse")
