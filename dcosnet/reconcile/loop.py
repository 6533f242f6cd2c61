"""
When to look at a data plane again.

Pure: time and chance are arguments. There are three reasons for a round: what is
wanted changed (at once, also while waiting after a failure), a round failed
(after a wait that doubles), or a while has passed (to repair what others broke).
"""

from __future__ import annotations

PERIOD = 30.0
"""As dcos-net: seconds between rounds when nothing happens."""
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0


class Loop:
    """
    One round at a time; `wanted`, `begin`, then `succeeded` or `failed`.

    `settled` says that a round which began after the last `wanted` has tried all of it.
    """

    def __init__(self) -> None:
        self._dirty = True
        self._running = False
        self._failures = 0
        self._next = 0.0
        self._settled = False

    @property
    def settled(self) -> bool:
        """Whether all that is wanted has been tried; what failed is tried again."""
        return self._settled and not self._dirty

    @property
    def failures(self) -> int:
        """How many rounds failed in a row."""
        return self._failures

    def wanted(self) -> None:
        """What is wanted changed, or may not be there any more."""
        self._dirty = True

    def due(self) -> float | None:
        """When the next round should begin, or None while one runs."""
        if self._running:
            return None
        return 0.0 if self._dirty else self._next

    def begin(self) -> None:
        """A round begins with what is wanted now."""
        assert not self._running, "one round at a time"
        self._running, self._dirty = True, False

    def succeeded(self, now: float) -> None:
        """All that was wanted is there."""
        self._end()
        self._settled = True
        self._failures = 0
        self._next = now + PERIOD

    def failed(self, now: float, chance: float, *, tried: bool) -> None:
        """
        Something could not be done; `chance` in [0, 1) spreads the next try over half of the wait.

        `tried` is whether all else was; a round that broke did not get so far.
        """
        self._end()
        self._settled = tried
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._next = now + wait * (0.5 + chance / 2)

    def _end(self) -> None:
        assert self._running, "no round runs"
        self._running = False
