"""What became of the flows to one backend; plain integers, because hot paths add to them."""

from __future__ import annotations

from bisect import bisect_left
from enum import StrEnum

CONNECT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds, in seconds, of the histogram of connect times; beyond the last is one more."""


class Reason(StrEnum):
    """Why a backend did not take a flow."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"


class Tally:
    """Counts since the backend came behind its listener."""

    __slots__ = (
        "connect_seconds",
        "connects",
        "failures",
        "flows",
        "idle_closed",
        "retries",
        "to_backend",
        "to_client",
    )

    def __init__(self) -> None:
        self.flows = 0
        """Connections, and UDP flows, that it took."""
        self.failures = dict.fromkeys(Reason, 0)
        self.retries = 0
        """Flows that came here because another backend had failed them."""
        self.to_backend = 0
        self.to_client = 0
        """Bytes of connections that have ended, and of all datagrams."""
        self.idle_closed = 0
        """Flows that ended for having been idle."""
        self.connects = [0] * (len(CONNECT_BOUNDS) + 1)
        """Connections taken, by the time that it took."""
        self.connect_seconds = 0.0
        """The sum of these times."""

    def took(self, seconds: float) -> None:
        """It took a connection after so long."""
        self.flows += 1
        self.connects[bisect_left(CONNECT_BOUNDS, seconds)] += 1
        self.connect_seconds += seconds

    def add(self, other: Tally) -> None:
        """Add what another counted."""
        self.flows += other.flows
        for reason, count in other.failures.items():
            self.failures[reason] += count
        self.retries += other.retries
        self.to_backend += other.to_backend
        self.to_client += other.to_client
        self.idle_closed += other.idle_closed
        self.connects = [ours + theirs for ours, theirs in zip(self.connects, other.connects, strict=True)]
        self.connect_seconds += other.connect_seconds
