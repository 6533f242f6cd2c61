"""
A hybrid logical clock: times that grow even where the host's clock does not.

Pure: the caller passes the host's time. Stamps order writes of different nodes;
the writes of one node are ordered by their version and need no clock.
"""

from __future__ import annotations

from dcosnet.model.stamp import Stamp

# A peer whose clock runs ahead by more than this would drag every clock of the
# cluster with it, for good: there is no way back from a stamp once it was given.
LEAP_MS = 10_000

# The counter travels in 16 bits.
COUNTER_LIMIT = 1 << 16


class Clock:
    """
    Gives the stamps of one node.

    Each stamp is greater than all given before, and than all observed before
    that were at most 10 s ahead of this host's time.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.leaps = 0
        """How many observed stamps were too far ahead to be followed."""
        self._milliseconds = 0
        self._counter = -1

    def now(self, physical_ms: int) -> Stamp:
        """The next stamp: of the host's time, or just after the last one where that time did not move on."""
        if physical_ms > self._milliseconds:
            self._milliseconds, self._counter = physical_ms, 0
        elif self._counter + 1 < COUNTER_LIMIT:
            self._counter += 1
        else:
            self._milliseconds, self._counter = self._milliseconds + 1, 0
        return Stamp(self._milliseconds, self._counter, self.node)

    def observe(self, stamp: Stamp, physical_ms: int) -> None:
        """Let stamps to come be greater than this one, unless it is more than 10 s ahead."""
        if stamp.milliseconds > physical_ms + LEAP_MS:
            self.leaps += 1
            return
        last, heard = (self._milliseconds, self._counter), (stamp.milliseconds, stamp.counter)
        self._milliseconds, self._counter = max(last, heard)
