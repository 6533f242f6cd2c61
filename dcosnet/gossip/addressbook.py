"""
Where the members were last, on disk: a node that starts finds them when all seeds are gone.

Only a hint. What cannot be read is as if it had never been there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.gossip.contact import parse_contact
from dcosnet.io.files import off_reactor, read_file, write_atomically

log = Logger()

EVERY = 10.0
"""Seconds between two writes, at least."""
LIMIT = 1024
"""Endpoints that are kept."""

_BYTES = 1 << 18


class AddressBook:
    """Endpoints in a file, one a line. Read once, before there is anything to write."""

    def __init__(
        self,
        reactor: Any,
        path: Path,
        *,
        off: Callable[[Any, Callable[[], None]], Deferred[None]] = off_reactor,
    ) -> None:
        self.problem: str | None = None
        self._reactor = reactor
        self._path = path
        self._off = off
        self._written: tuple[str, ...] = ()
        self._wanted: tuple[str, ...] = ()
        self._call: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None

    def read(self) -> tuple[str, ...]:
        """The endpoints of the last run. Blocks."""
        try:
            found = read_file(self._path, None, _BYTES)
        except FileNotFoundError:
            return ()
        except OSError as error:
            log.error("{path} could not be read: {reason}", path=str(self._path), reason=error.strerror)
            return ()
        lines = found.data.decode(errors="replace").splitlines() if found is not None else []
        self._written = self._wanted = tuple(line for line in lines if _is_contact(line))[:LIMIT]
        return self._written

    def keep(self, endpoints: Iterable[str]) -> None:
        """Have these on disk before long; an empty list does not take the place of what is there."""
        self._wanted = tuple(dict.fromkeys(endpoints))[:LIMIT] or self._wanted
        if self._wanted != self._written and self._call is None:
            self._call = self._reactor.callLater(EVERY, self._due)

    def close(self) -> Deferred[None]:
        """Write what waits; fires when that is done, or has failed."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self._write()
        return self._writing if self._writing is not None else succeed(None)

    def _due(self) -> None:
        self._call = None
        if self._writing is None:
            self._write()
        else:
            # The disk is slow; what is wanted by then goes with the next one.
            self._call = self._reactor.callLater(EVERY, self._due)

    def _write(self) -> None:
        wanted = self._wanted
        data = "".join(f"{endpoint}\n" for endpoint in wanted).encode()
        self._writing = self._off(self._reactor, lambda: _write(self._path, data))
        self._writing.addCallbacks(lambda _: self._done(wanted), self._failed)

    def _done(self, written: tuple[str, ...]) -> None:
        self._writing = self.problem = None
        self._written = written

    def _failed(self, failure: Failure) -> None:
        self._writing = None
        failure.trap(OSError)
        reason = f"{self._path} could not be written: {failure.getErrorMessage()}"
        if self.problem is None:
            log.error("{reason}; a start without seeds would find nobody", reason=reason)
        self.problem = reason


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, data)


def _is_contact(text: str) -> bool:
    try:
        parse_contact(text)
    except ValueError:
        return False
    return True
