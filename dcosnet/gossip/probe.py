"""
Whether one link is alive: when to ping, and when silence means that it is not.

Every frame is a sign of life. The end that opened the link pings each second;
the other does so only when that ping is overdue. Two pings without an answer,
each for one timeout of RFC 6298's form, and the link is lost; one is enough to
bear out what somebody else has seen.

A peer that was lost before has to prove itself: a path that lets through every
fifth packet opens a link now and then, but not one that answers several pings
in a row in time. They are sent one upon the other's answer, so that a peer that
is well again is believed after so many round trips.
"""

from __future__ import annotations

from collections.abc import Callable

PERIOD = 1.0
LEAST, MOST, FIRST = 0.25, 2.0, 1.0
"""Seconds: bounds of the timeout, and the timeout while no round trip is known."""

TRIES = 2

PROOFS = 4
"""Answers in a row, each within the timeout, until one that was lost is believed to be back."""

REMEMBERED = 8
"""Pings that an answer is waited for; a round trip may be longer than a period."""


class Probe:
    """
    One link's. `stretch` gives the factor that this node's own health puts on timeouts, `doubted` says that the peer
    was lost before.

    All times are seconds of the caller's clock.
    """

    __slots__ = (
        "_began", "_due", "_enough", "_number", "_owed", "_pings", "_sent", "_stretch", "lost", "rtt", "spread",
        "tries",
    )  # fmt: skip

    def __init__(self, now: float, *, pings: bool, stretch: Callable[[], float], doubted: bool = False) -> None:
        self._pings = pings
        self._stretch = stretch
        self._enough = TRIES
        self._owed = PROOFS if doubted else 0
        self._number = 0
        self._sent: dict[int, float] = {}
        self._began = now
        """When the first ping of this round was sent."""
        # Both ends ping at the start, until the round trip is known and the peer is proven.
        self._due = now
        self.rtt: float | None = None
        self.spread = 0.0
        self.tries = 0
        self.lost = False

    @property
    def timeout(self) -> float:
        """Seconds that an answer may take."""
        base = FIRST if self.rtt is None else min(MOST, max(LEAST, self.rtt + 4 * self.spread))
        return base * self._stretch()

    @property
    def due(self) -> float:
        """When `act` is to be called, if nothing is heard."""
        return self._due

    @property
    def proven(self) -> bool:
        """Whether the peer is believed to be there."""
        return not self._owed

    def heard(self, now: float) -> None:
        """A frame has come."""
        self._enough = TRIES
        if self.tries:
            self.tries = 0
            self._due = max(now, self._began + PERIOD)
        if not (self._pings or self._owed or self.rtt is None):
            self._due = now + PERIOD + self.timeout

    def answered(self, number: int, now: float) -> None:
        """A pong has come; of a ping that is not remembered it tells nothing."""
        sent = self._sent.get(number)
        if sent is None:
            return
        # Those before it are answered, or never will be; one that is under way still tells something.
        self._sent = {other: at for other, at in self._sent.items() if at > sent}
        sample = max(0.0, now - sent)
        if self._owed:
            self._owed = self._owed - 1 if sample <= self.timeout else PROOFS
            self._due = now if self._owed else self._due
        if self.rtt is None:
            self.rtt, self.spread = sample, sample / 2
        else:
            self.spread += (abs(self.rtt - sample) - self.spread) / 4
            self.rtt += (sample - self.rtt) / 8

    def hint(self, now: float) -> None:
        """Somebody else has lost that peer: look at once, and believe it sooner."""
        self._enough = 1
        if not self.tries:
            self._due = min(self._due, now)

    def spare(self, now: float, seconds: float) -> None:
        """This process did not run for so long: nobody is late on account of that."""
        self._due += seconds
        self._enough = TRIES
        self._began += seconds
        self._sent = {number: sent + seconds for number, sent in self._sent.items()}
        if self.tries:
            self.tries = 1
            self._due = max(self._due, now + self.timeout)

    def act(self, now: float) -> int | None:
        """What is due: the number of a ping to send, or `lost` becomes true."""
        if self.lost or now < self._due:
            return None
        if self.tries >= self._enough:
            self.lost = True
            return None
        self.tries += 1
        self._number = (self._number + 1) & 0xFFFF
        if self.tries == 1:
            self._began = now
        while len(self._sent) >= REMEMBERED:
            del self._sent[next(iter(self._sent))]
        self._sent[self._number] = now
        self._due = now + self.timeout
        return self._number
