"""
When to look at a data plane again.

Pure: time and chance are arguments. There are three reasons for a round: what is
wanted changed (at once, also while waiting after a failure), a round failed
(after a wait that doubles), or a while has passed (to repair what others broke).

A round is about the keys that changed and those that are owed since they failed;
the first one, and one in each period, is about all there is.
"""

from __future__ import annotations

from typing import Any

from dcosnet.model.cell import Changed

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
        self._dirty: set[Any] | None = None
        """Keys for the next round; None for all."""
        self._owed: frozenset[Any] = frozenset()
        """Keys that the last round could not get done."""
        self._running = False
        self._failures = 0
        self._next = 0.0
        self._whole = 0.0
        """When all is looked at again."""
        self._settled = False

    @property
    def settled(self) -> bool:
        """Whether all that is wanted has been tried; what failed is tried again."""
        return self._settled and self._clean

    @property
    def failures(self) -> int:
        """How many rounds failed in a row."""
        return self._failures

    @property
    def _clean(self) -> bool:
        return self._dirty is not None and not self._dirty

    def wanted(self, keys: Changed = None) -> None:
        """These keys, or all, changed or may not be there any more."""
        if keys is None:
            self._dirty = None
        elif self._dirty is not None:
            self._dirty |= keys

    def due(self) -> float | None:
        """When the next round should begin, or None while one runs."""
        if self._running:
            return None
        return self._next if self._clean else 0.0

    def begin(self, now: float) -> Changed:
        """A round begins with what is wanted now; the keys that it is about, None for all."""
        assert not self._running, "one round at a time"
        dirty, self._running, self._dirty = self._dirty, True, set()
        if dirty is None or now >= self._whole:
            self._whole = now + PERIOD
            return None
        return self._owed | dirty

    def succeeded(self, now: float) -> None:
        """All that was wanted is there."""
        self._end()
        self._settled = True
        self._failures = 0
        self._owed = frozenset()
        self._next = min(now + PERIOD, max(now, self._whole))

    def failed(self, now: float, chance: float, *, tried: bool, owed: Changed = None) -> None:
        """
        Something could not be done; `chance` in [0, 1) spreads the next try over half of the wait.

        `tried` is whether all else was; a round that broke did not get so far.
        `owed` is what could not be had, None where that is not known: then the
        next round is about all.
        """
        self._end()
        self._settled = tried
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._next = now + wait * (0.5 + chance / 2)
        if owed is None:
            self._whole = now
        else:
            self._owed = owed
            self._next = min(self._next, max(now, self._whole))

    def _end(self) -> None:
        assert self._running, "no round runs"
        self._running = False
