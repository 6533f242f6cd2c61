"""
How long to wait before the next try.

Full jitter: anything up to a bound that doubles, so that many nodes that lost
the same master do not come back as one.
"""

from __future__ import annotations

from collections.abc import Callable

BASE = 2.0
"""Seconds: the bound of the first wait, and the pace of asking a standby master."""
LIMIT = 30.0
"""Seconds: no wait is longer."""

_DOUBLINGS = 16  # far beyond any limit; keeps the power small


def wait(failures: int, chance: float, base: float = BASE, limit: float = LIMIT) -> float:
    """Seconds to wait after so many failures in a row (1 or more); `chance` is from 0 up to 1."""
    return chance * min(limit, base * 2.0 ** min(failures - 1, _DOUBLINGS))


class Backoff:
    """Counts failures in a row; `jitter` gives a number from 0 up to 1."""

    def __init__(self, jitter: Callable[[], float], base: float = BASE, limit: float = LIMIT) -> None:
        self._jitter = jitter
        self._base = base
        self._limit = limit
        self.failures = 0

    def failed(self) -> float:
        """Count one failure; the seconds to wait."""
        self.failures += 1
        return wait(self.failures, self._jitter(), self._base, self._limit)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0
