"""
A bounded pool of pipes for splice(2), which moves bytes between sockets without copying them to us.

Linux lets a user without privileges have so many pages of pipes
(fs.pipe-user-pages-soft); a pipe beyond them stays small, which is slower and
otherwise the same.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

SIZE = 1 << 20
"""Bytes of a pipe, where the host allows it (fs.pipe-max-size)."""
_KEPT = 16

Pipe = tuple[int, int]
"""Where to read and where to write."""


class Pipes:
    """At most `limit` pipes at a time, each used by one direction of one connection."""

    def __init__(self, limit: int, size: int = SIZE) -> None:
        self._limit = limit
        self._size = size
        self._idle: list[Pipe] = []
        self.taken = 0
        """How many are in use."""

    def take(self) -> Pipe | None:
        """An empty pipe; None when all are in use, or when this process has no descriptors left."""
        if self._idle:
            self.taken += 1
            return self._idle.pop()
        if self.taken >= self._limit:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with suppress(OSError):  # over this user's share: it stays as it is
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, self._size)
        self.taken += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take it back; it must be empty."""
        if len(self._idle) < _KEPT:
            self.taken -= 1
            self._idle.append(pipe)
        else:
            self.drop(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Close it, with whatever is in it."""
        self.taken -= 1
        for descriptor in pipe:
            os.close(descriptor)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            for descriptor in self._idle.pop():
                os.close(descriptor)
