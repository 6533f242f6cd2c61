"""
Which UDP flows there are, and which of them have been idle too long.

Pure: time is an argument. The number is bounded; one flow too many evicts the one
that has been idle the longest. Each step costs the same however many there are.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Used(Protocol):
    """What can be idle; hashable by identity."""

    used: float
    """When it was used last; kept by Flows."""


F = TypeVar("F", bound=Used)


class Flows(Generic[F]):
    """Flows in the order of their last use."""

    def __init__(self, idle: float, limit: int) -> None:
        self._idle = idle
        self.limit = limit
        """How many there may be; `shrink` lowers it for those that are here, too."""
        self._order: OrderedDict[F, None] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._order)

    def touch(self, flow: F, now: float) -> None:
        """A flow that is here is in use now."""
        flow.used = now
        self._order.move_to_end(flow)

    def add(self, flow: F, now: float) -> F | None:
        """Take a new flow, in use now; gives the one that had to make room."""
        evicted = None
        if len(self._order) >= self.limit:
            evicted, _ = self._order.popitem(last=False)
            self.evicted += 1
        flow.used = now
        self._order[flow] = None
        return evicted

    def shrink(self) -> list[F]:
        """Forget those beyond the limit, the idlest first; the flows."""
        out = [self._order.popitem(last=False)[0] for _ in range(len(self._order) - self.limit)]
        self.evicted += len(out)
        return out

    def discard(self, flow: F) -> None:
        """Forget a flow, if it is here."""
        self._order.pop(flow, None)

    def expire(self, now: float) -> list[F]:
        """Forget all that have been idle for the whole time; the flows."""
        out: list[F] = []
        while self._order:
            flow = next(iter(self._order))
            if flow.used + self._idle > now:
                break
            del self._order[flow]
            out.append(flow)
        return out

    def drain(self) -> list[F]:
        """Forget all; the flows."""
        out = list(self._order)
        self._order.clear()
        return out

    def due(self) -> float | None:
        """When the next one expires, or None."""
        return next(iter(self._order)).used + self._idle if self._order else None
