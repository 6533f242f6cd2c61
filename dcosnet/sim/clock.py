"""
Time that passes from event to event.

A heap instead of `task.Clock`, which sorts its calls at each change: a
simulated minute of a thousand nodes has millions of them.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

BEGINNING = 1000.0
"""What the clock shows at first; a monotonic clock need not begin at 0."""


class Clock:
    """Calls functions in the order of (time, when they were asked for); `now` in seconds."""

    __slots__ = ("_calls", "_order", "now")

    def __init__(self) -> None:
        self.now = BEGINNING
        self._calls: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call at this time, or next if it is past. There is no way back: what may become void looks for itself."""
        heappush(self._calls, (max(when, self.now), self._order, call, arguments))
        self._order += 1

    def run(self, until: float) -> None:
        """Let time pass, up to and with this."""
        calls = self._calls
        while calls and calls[0][0] <= until:
            self.now, _, call, arguments = heappop(calls)
            call(*arguments)
        self.now = max(self.now, until)

    @property
    def events(self) -> int:
        """How many calls were asked for so far."""
        return self._order
