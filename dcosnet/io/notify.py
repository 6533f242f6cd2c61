"""
What systemd is told (sd_notify(3)): that we are ready, that we live, and sockets to keep.

Datagrams to the socket that NOTIFY_SOCKET names. They are sent in order and
never waited for: what does not fit into its queue now is sent a little later.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

_AGAIN = 0.02
"""Seconds until a full queue is tried again."""


class Notifier:
    """Tells the service manager; does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str], clock: IReactorTime) -> None:
        self._clock = clock
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._timer: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def tell(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        """Send assignments such as "READY=1", with duplicates of descriptors; these may be closed at once."""
        if not self:
            return
        self._waiting.append(("\n".join(lines).encode(), tuple(map(os.dup, descriptors))))
        self._flush()

    def close(self) -> None:
        """Send what is waiting as far as it is taken, and forget the rest."""
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            _close(self._waiting.popleft()[1])
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _flush(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                self._send(data, descriptors)
            except (BlockingIOError, InterruptedError):
                if self._timer is None:
                    self._timer = self._clock.callLater(_AGAIN, self._again)
                return
            except OSError as error:
                log.warn("the service manager was not told: {why}", why=str(error))  # noqa: G010 - Twisted's name
            self._waiting.popleft()
            _close(descriptors)

    def _again(self) -> None:
        self._timer = None
        self._flush()

    def _send(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([data], rights, 0, self._address)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
