"""
The calls by which what must last goes to disk, so that a test can be a disk that refuses or loses power.

Blocking, and nothing is on disk before it is synced: a file's bytes by `sync`,
its name by `sync_directory`.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Disk:
    """The disk of this host. All calls raise OSError."""

    def make_directory(self, path: Path) -> bool:
        """Make a directory that only we may read, in one that is there; whether it was not there."""
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return True
        return False

    def lock(self, path: Path) -> int:
        """Hold a directory until its descriptor is closed; BlockingIOError while somebody else does."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def names(self, path: Path) -> list[str]:
        """What is in a directory, in order."""
        return sorted(file.name for file in path.iterdir())

    def read(self, path: Path) -> bytes | None:
        """All of a file; None if there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None

    def create(self, path: Path) -> int:
        """Open a file that is empty from now on and that only we may read."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open(self, path: Path) -> int:
        """Open a file as it is."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Let go of a file or a directory."""
        os.close(descriptor)

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the data; gives how many bytes."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Return when everything written to a file is on disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file."""
        os.ftruncate(descriptor, size)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Let the source take the target's name."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which nothing has."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """Take a name away; no error if nothing has it."""
        path.unlink(missing_ok=True)
