"""
When a backend rests because it failed or was slow, and how it returns.

Pure: time is an argument, in seconds of one monotonic clock. How many of a VIP's
backends may rest at a time is the schedule's business.
"""

from __future__ import annotations

from math import inf

from dcosnet.l4lb.tally import Reason

ROW = 5
"""Troubles in a row after which a backend rests."""
SUSPICION = 1.0
"""How long one that failed once is tried last: a dead backend costs one retry a second until it rests."""
REST = 30.0
"""The first rest; each further one is as much longer."""
LONGEST_REST = 300.0
FORGIVENESS = 60.0
"""Without trouble for so long, one rest is forgotten."""
RAMP = 10.0
"""How long the share grows of what is new or returns."""
FIRST_SHARE = 0.1
SLOW = 0.1
"""A connect faster than this is never slow, whatever the others do: 100 ms is far beyond a network's own whims."""
SLOWER = 10.0
"""How many times the usual, and a millisecond, a connect has to take to be slow."""


class Standing:
    """
    What is held against one backend, and its share while that grows.

    Most backends have none: it is made at the first trouble.
    """

    __slots__ = ("_last", "_rests", "_row", "_unserved", "_waiting", "hung_up", "since", "suspected", "until", "why")

    def __init__(self) -> None:
        self.until = -inf
        """When its last rest ends or ended."""
        self.since = -inf
        """Since when its share grows; infinite while that has to begin."""
        self.suspected = -inf
        """Until when others are tried first."""
        self.why = ""
        """The last trouble, for people."""
        self.hung_up = False
        """Whether that was a connection which it took and then left without an answer."""
        self._row = 0
        self._unserved = 0
        self._rests = 0
        self._last = -inf

    # --- what happens ---

    def failed(self, now: float, reason: Reason) -> None:
        """It did not take a flow, or hung up on one (Reason.HUNG_UP). Not to be called while it rests."""
        self.hung_up = reason is Reason.HUNG_UP
        if self.hung_up:
            self._unserved += 1
            count = self._unserved
        else:
            self._row += 1
            count = self._row
        self.suspected = now + SUSPICION
        self._trouble(now, f"{count} in a row: {_TEXT[reason]}" if count > 1 else _TEXT[reason])

    def slow(self, now: float, seconds: float, usual: float) -> None:
        """It took a flow, but late. Not to be called while it rests."""
        self.hung_up = False
        self._row += 1
        self._trouble(now, f"slow: {_ms(seconds)} against {_ms(usual)}")

    def worked(self) -> bool:
        """It took a flow in good time; whether that ends a row of troubles."""
        ends = self._row > 0
        self._row = 0
        if not self.hung_up:
            self.suspected = -inf
        return ends

    def served(self) -> bool:
        """It answered on a connection; whether that ends a row of troubles."""
        ends = self._unserved > 0
        self._unserved = 0
        return ends

    def rest(self, now: float) -> float:
        """Begin to rest; for how long."""
        self._rests += 1
        seconds = min(self._rests * REST, LONGEST_REST)
        self.until = self.since = self._last = now + seconds
        self.suspected = -inf
        self._row = self._unserved = 0
        return seconds

    def grow(self, now: float) -> None:
        """Begin with a small share."""
        self.since = now
        self.until = min(self.until, now)

    def _trouble(self, now: float, why: str) -> None:
        self.why = why
        self._rests = self.rests(now)
        self._last = now

    # --- how it stands ---

    @property
    def due(self) -> bool:
        """Whether it has deserved a rest; one trouble is enough soon after the last one."""
        row = max(self._row, self._unserved)
        return row >= ROW or (row > 0 and self._rests > 0 and self._last - self.until < RAMP)

    def rests(self, now: float) -> int:
        """How many rests are held against it."""
        return self._rests and max(0, self._rests - int(max(0.0, now - self._last) / FORGIVENESS))

    def rank(self, now: float) -> int:
        """In which turn it is tried: 0 in use, 1 after one trouble, 2 when it rests or should."""
        if now < self.until:
            return 2
        if now < self.suspected:
            return 2 if self.due else 1
        return 0

    def share(self, now: float) -> float:
        """The part of its weight that counts, from FIRST_SHARE to 1."""
        return max(FIRST_SHARE, min(1.0, FIRST_SHARE + (1.0 - FIRST_SHARE) * (now - self.since) / RAMP))

    @property
    def grown(self) -> float:
        """When its share is whole."""
        return self.since + RAMP

    def settled(self, now: float) -> bool:
        """Whether nothing is left to be held against it."""
        return not (self._row or self._unserved or self.rests(now)) and now >= max(
            self.suspected, self.until, self.grown
        )

    def changes(self, now: float) -> float:
        """When its rank or share is another one than now; the share in steps."""
        if now < self.until:
            return self.until
        step = min(self.grown, now + RAMP / 20) if now < self.grown else inf
        return min(step, self.suspected) if now < self.suspected else step


_TEXT = {
    Reason.REFUSED: "refused",
    Reason.TIMEOUT: "no answer in time",
    Reason.UNREACHABLE: "unreachable",
    Reason.HUNG_UP: "took a connection and hung up without an answer",
}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:.0f} ms"
