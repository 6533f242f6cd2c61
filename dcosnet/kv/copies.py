"""
Other nodes' durable entries on this disk: a log for each owner, in one directory.

Blocking: `commit` is called in a thread, by one caller at a time. What is lost
here can be fetched again, so nothing stops for it: a damaged file is dropped.
The directory is below the journal's, whose holder holds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from dcosnet.io.disk import Disk
from dcosnet.kv import records
from dcosnet.kv.log import Log
from dcosnet.kv.store import Copy
from dcosnet.model.delta import Delta

_SUFFIX = ".journal"


class Copies:
    """The logs of all other owners that have durable entries, or had."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self.directory = directory
        self._disk = disk
        self._logs: dict[str, Log] = {}

    def __len__(self) -> int:
        return len(self._logs)

    def __contains__(self, owner: str) -> bool:
        return owner in self._logs

    @property
    def size(self) -> int:
        """Bytes in their files, as far as they were written since the start."""
        return sum(log.size for log in tuple(self._logs.values()))

    def load(self, node: str) -> Iterator[Delta | str]:
        """
        What is there of other nodes than this, each as a bare delta; the path of a file that is damaged or no other's.

        Call `drop` for what is of no use. Raises OSError.
        """
        self._disk.make_directory(self.directory)
        for name in self._disk.names(self.directory):
            path = self.directory / name
            owner = unquote(name.removesuffix(_SUFFIX))
            if not name.endswith(_SUFFIX):
                self._disk.unlink(path)  # a file that was being written anew
                continue
            contents = records.read(self._disk.read(path) or b"")
            if contents.end == 0 or contents.damage is not None or contents.owner != owner or owner == node:
                self._disk.unlink(path)
                yield str(path)
                continue
            log = self._logs[owner] = self._log(owner)
            log.assume(owner, contents.generation, contents.entries)
            yield Delta(owner, contents.generation, 0, contents.version, contents.entries, contents.settled, bare=True)

    def commit(self, copies: Mapping[str, Copy | None]) -> Mapping[str, OSError]:
        """Put all of these on disk; gives those that the disk refused, which are to be given again as a whole."""
        refused = {}
        for owner, copy in copies.items():
            try:
                if copy is None:
                    self.drop(owner)
                else:
                    self._write(owner, copy)
            except OSError as error:
                refused[owner] = error
        return refused

    def drop(self, owner: str) -> None:
        """Let there be nothing of an owner."""
        log = self._logs.get(owner)
        if log is not None:
            log.rest()
            self._disk.unlink(log.path)
            del self._logs[owner]

    def _write(self, owner: str, copy: Copy) -> None:
        log = self._logs.get(owner)
        if log is None:
            self._disk.make_directory(self.directory)
            log = self._log(owner)
        if copy.whole or log.generation != copy.known.generation:
            log.assume(owner, copy.known.generation, {})
        log.commit(copy.known.version, copy.changes, copy.settled)
        # There may be more owners than a process may have files.
        log.rest()
        self._logs[owner] = log

    def _log(self, owner: str) -> Log:
        return Log(self.directory / (quote(owner, safe="") + _SUFFIX), self._disk)
