"""
What systemd is told (sd_notify(3)): that we are ready, that we live, and sockets to keep.

Datagrams to the socket that NOTIFY_SOCKET names. They are sent in order and
never waited for: what does not fit into its queue now is sent a little later.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

HELD_MAX = 1024
"""Descriptors that may wait for a service manager that does not read."""
_AGAIN = 0.02
"""Seconds until a full queue is tried again."""
_ASK = 1.0
"""Seconds between two questions to the parts."""
_LONG = 60.0
"""Seconds after which READY is said even so; systemd gives up after 90."""


class Notifier:
    """Tells the service manager; does nothing where there is none."""

    def __init__(self, environment: Mapping[str, str], clock: IReactorTime) -> None:
        self._clock = clock
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._held = 0
        """Descriptors that wait."""
        self._refused = False
        """Whether the last thing told came to nothing, which is in the log."""
        self._timer: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def tell(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        """
        Send assignments such as "READY=1", with descriptors; these may be closed at once.

        Those that have to wait are duplicated; where that cannot be, or too many
        wait, they are not sent, and the log says so: who opens sockets needs descriptors more.
        """
        if not self:
            return
        data = "\n".join(lines).encode()
        self._flush()
        if not self._waiting and self._sent(data, descriptors):
            return
        try:
            self._waiting.append((data, self._hold(descriptors)))
        except OSError as error:
            self._warn(error)
        self._await()

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
            if not self._sent(data, descriptors):
                self._await()
                return
            self._waiting.popleft()
            self._held -= len(descriptors)
            _close(descriptors)

    def _hold(self, descriptors: Sequence[int]) -> tuple[int, ...]:
        """Duplicates of all, or OSError and of none."""
        if descriptors and self._held + len(descriptors) > HELD_MAX:
            raise OSError(errno.EAGAIN, f"it does not read, and {self._held} descriptors wait for it")
        made: list[int] = []
        try:
            made.extend(map(os.dup, descriptors))
        except OSError:
            _close(tuple(made))
            raise
        self._held += len(made)
        return tuple(made)

    def _warn(self, error: OSError) -> None:
        """Once until something arrives: there may be thousands."""
        if not self._refused:
            log.warn("the service manager was not told: {why}", why=str(error))  # noqa: G010 - Twisted's name
        self._refused = True

    def _await(self) -> None:
        """Try what waits a little later."""
        if self._waiting and self._timer is None:
            self._timer = self._clock.callLater(_AGAIN, self._again)

    def _sent(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Whether nothing is left to do with a message: it was taken, or never will be."""
        try:
            self._send(data, descriptors)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._warn(error)
        else:
            self._refused = False
        return True

    def _again(self) -> None:
        self._timer = None
        self._flush()

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._socket.sendmsg([data], rights, 0, self._address)


class Announcer(Service):
    """
    Says READY once all parts are, what it waits for until then, and that the process lives.

    Where a part takes long, as while a cluster is away, READY is said all the
    same after a minute: a restart would not bring it nearer.
    """

    def __init__(
        self,
        notifier: Notifier,
        environment: Mapping[str, str],
        readiness: Callable[[], Mapping[str, str | None]],
        clock: IReactorTime,
    ) -> None:
        self.setName("announcer")
        self._notifier = notifier
        self._readiness = readiness
        self._clock = clock
        self._pause = _ASK
        with suppress(KeyError, ValueError):
            self._pause = min(_ASK, int(environment["WATCHDOG_USEC"]) / 1e6 / 2)
        self._since = 0.0
        self._ready = False
        self._status = ""
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Ask the parts from the next turn on."""
        super().startService()
        if self._notifier:
            self._since = self._clock.seconds()
            self._timer = self._clock.callLater(0, self._look)

    def stopService(self) -> None:
        """Say that the process ends."""
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._notifier.tell("STOPPING=1")
        self._notifier.close()

    def _look(self) -> None:
        waiting = [f"{name}: {reason}" for name, reason in self._readiness().items() if reason is not None]
        lines = ["WATCHDOG=1"]
        if not self._ready and (not waiting or self._clock.seconds() - self._since >= _LONG):
            self._ready = True
            lines.append("READY=1")
        status = " ".join("; ".join(waiting).split()) or "all parts are ready"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        self._notifier.tell(*lines)
        self._timer = self._clock.callLater(self._pause, self._look)


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
