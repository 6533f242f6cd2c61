"""
Whether a backend is to be tried last, after it failed a connection.

Pure. What is suspect still gets flows when nothing else is there: a balancer
that is wrong about every backend must not be worse than none.
"""

from __future__ import annotations

# Long enough that a dead backend costs a retry now and then rather than on each
# connection; short enough that one that restarts is back before people look.
SUSPICION = 10.0


class Health:
    """What one backend did lately; times in seconds of one monotonic clock."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0.0

    def failed(self, now: float) -> None:
        """It refused, or did not answer in time."""
        self.until = now + SUSPICION

    def worked(self) -> None:
        """It took a connection."""
        self.until = 0.0

    def suspect(self, now: float) -> bool:
        """Whether others go first."""
        return now < self.until
