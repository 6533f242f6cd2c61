"""
How well this node itself is, so that it does not take its own trouble for others'.

After Lifeguard's local health (arXiv 1707.00788): a score that stretches this
node's timeouts. It grows with each refutation and each pause, and heals with time.
"""

from __future__ import annotations

WORST = 8
HEALS_AFTER = 5.0
"""Seconds for one step back."""

PAUSE = 0.25
"""Seconds that a call may be late before this process counts as one that did not run."""

BEAT, REST = 0.1, 0.5
"""
Seconds between two calls at the most, so that lateness is seen: while an answer is awaited, and else.

A pause in which nobody could have been late does no harm, and most of a node's wakes at rest would be beats.
"""


class Health:
    """The score, and the watch over this process's own pauses."""

    def __init__(self, now: float) -> None:
        self.score = 0
        self.quiet_until = now
        """No verdict is given before."""
        self._healed_at = now
        self._seen = now
        self._beat = now + BEAT

    @property
    def due(self) -> float:
        """When `notice` is to be called at the latest."""
        return self._beat

    def stretch(self) -> float:
        """The factor for this node's timeouts."""
        return 1.0 + self.score

    def worsen(self, now: float) -> None:
        """Something says that it is this node which is slow."""
        self.score = min(WORST, self.score + 1)
        self._healed_at = now

    def watch(self, now: float) -> None:
        """From now on an answer is awaited."""
        self._beat = min(self._beat, now + BEAT)

    def notice(self, now: float, *, awaits: bool) -> float:
        """
        Take the time; gives for how many seconds this process did not run, 0 for none that count.

        `awaits`: whether there are answers that are still to come.
        """
        late = now - self._beat
        if now >= self._seen:
            self._seen, self._beat = now, now + (BEAT if awaits else REST)
        if self.score and now - self._healed_at >= HEALS_AFTER:
            self.score -= 1
            self._healed_at = now
        return late if late > PAUSE else 0.0
