"""
Which UDP clients have which flow, and which of them have been idle too long.

Pure: time is an argument. The table is bounded; one flow too many evicts the one
that has been idle the longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
F = TypeVar("F")


class Flows(Generic[K, F]):
    """Flows by key, in the order of their last use."""

    def __init__(self, idle: float, limit: int) -> None:
        self._idle = idle
        self._limit = limit
        self._flows: OrderedDict[K, F] = OrderedDict()
        self._used: dict[K, float] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._flows)

    def get(self, key: K, now: float) -> F | None:
        """The flow of a key, which is in use now."""
        flow = self._flows.get(key)
        if flow is not None:
            self._flows.move_to_end(key)
            self._used[key] = now
        return flow

    def put(self, key: K, flow: F, now: float) -> F | None:
        """Take a new flow, in use now; gives the one that had to make room."""
        evicted = None
        if key not in self._flows and len(self._flows) >= self._limit:
            oldest, evicted = self._flows.popitem(last=False)
            del self._used[oldest]
            self.evicted += 1
        self._flows[key] = flow
        self._flows.move_to_end(key)
        self._used[key] = now
        return evicted

    def pop(self, key: K) -> F | None:
        """Forget a key; its flow."""
        self._used.pop(key, None)
        return self._flows.pop(key, None)

    def expire(self, now: float) -> list[F]:
        """Forget all that have been idle for the whole time; the flows."""
        out = []
        while self._flows:
            key = next(iter(self._flows))
            if self._used[key] + self._idle > now:
                break
            del self._used[key]
            out.append(self._flows.pop(key))
        return out

    def drain(self, which: Callable[[K], bool] = lambda _key: True) -> list[F]:
        """Forget all whose key is meant; the flows."""
        keys = [key for key in self._flows if which(key)]
        for key in keys:
            del self._used[key]
        return [self._flows.pop(key) for key in keys]

    def due(self) -> float | None:
        """When the next one expires, or None."""
        return self._used[next(iter(self._flows))] + self._idle if self._flows else None
