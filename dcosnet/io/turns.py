"""
Next-turn delivery: what is put here runs in order, never re-entrantly.

A cell's readers run through this, so a publisher is never entered from within.
What is long is put here in slices; sockets have their turn between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

BUDGET = 0.01
"""Seconds after which a turn begins nothing more; what it has begun it ends."""


class Turns:
    """A queue of functions that the reactor empties on its next turn, or on several if they are long."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._queue: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def later(self, run: Callable[[], None]) -> None:
        """Run it on the next turn, after what was put here before."""
        self._queue.append(run)
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        end = self._reactor.seconds() + BUDGET
        try:
            # What is added meanwhile waits for the turn after: a loop of two
            # cells then shows as load, not as a reactor that hangs.
            for _ in range(len(self._queue)):
                self._queue.popleft()()
                if self._reactor.seconds() > end:
                    break
        finally:
            # What one that raises or is long leaves behind; the reactor logs the former.
            if self._queue and not self._scheduled:
                self._scheduled = True
                self._reactor.callLater(0, self._turn)
