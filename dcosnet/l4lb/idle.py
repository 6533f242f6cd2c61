"""
A look at every connection now and then: who is idle, and who has come to stay.

It compares how many bytes have moved with what it saw the last time, so that a
connection in use never has to read the clock. It also has backends probed
(keepalive), which short connections do not pay for in this way, and returns the
memory of a crowd that has left.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from dcosnet.io import heap

if TYPE_CHECKING:
    from dcosnet.l4lb.connection import Connection

log = Logger()

PERIOD = 15.0
"""Seconds between two looks, or less for a short timeout."""
_LOOKS = 4  # at least so many within the timeout, so it is exceeded by a quarter at most
_BATCH = 256  # connections before others get their turn
_CROWD = 1000  # connections whose memory is worth returning


class Idle:
    """Looks at connections from `start` on; ends those that moved nothing for `timeout` seconds, if there is one."""

    def __init__(self, clock: IReactorTime, connections: Collection[Connection], timeout: float | None) -> None:
        self._clock = clock
        self._connections = connections
        self._period = PERIOD if timeout is None else min(PERIOD, timeout / _LOOKS)
        self._looks = None if timeout is None else ceil(timeout / self._period)
        self._next: IDelayedCall | None = None
        self._left: list[Connection] = []
        """Those that this look has not come to yet."""
        self._closed = 0
        self._most = 0
        """Connections at a look, since memory was returned."""

    def start(self) -> None:
        """Look at them from now on."""
        if self._next is None:
            self._next = self._clock.callLater(self._period, self._begin)

    def close(self) -> None:
        """Look no longer."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._left.clear()

    def _begin(self) -> None:
        self._left = list(self._connections)
        self._closed = 0
        self._go_on()

    def _go_on(self) -> None:
        some, self._left = self._left[-_BATCH:], self._left[:-_BATCH]
        for connection in some:
            if not connection.over:
                self._look(connection)
        if self._left:
            self._next = self._clock.callLater(0, self._go_on)
            return
        if self._closed:
            log.debug("{count} connections were idle and ended", count=self._closed)
        self._most = max(self._most, len(self._connections))
        if self._most >= _CROWD and len(self._connections) < self._most // 2:
            self._most = len(self._connections)
            heap.give_back()
        self._next = self._clock.callLater(self._period, self._begin)

    def _look(self, connection: Connection) -> None:
        server, target = connection.server, connection.target
        if server is None or target is None:
            return  # no backend yet, which has its own timeout
        moved = connection.moved
        if connection.seen < 0:
            connection.probe()
        if moved != connection.seen:
            connection.seen, connection.quiet = moved, 0
            return
        connection.quiet += 1
        if self._looks is not None and connection.quiet >= self._looks:
            self._closed += 1
            target.tally.idle_closed += 1
            connection.abort()
