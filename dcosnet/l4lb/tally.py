"""What became of the flows to one backend; plain integers, because hot paths add to them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

CONNECT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds, in seconds, of the histogram of connect times; beyond the last is one more."""


class Reason(StrEnum):
    """Why a backend did not take a flow."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    HUNG_UP = "hung_up"
    """It took one that asked, and ended it without a byte of answer."""


_NO_FAILURES: Mapping[Reason, int] = MappingProxyType(dict.fromkeys(Reason, 0))
_NO_CONNECTS = (0,) * (len(CONNECT_BOUNDS) + 1)


class Tally:
    """
    Counts since the backend came behind its listener.

    There may be 100 000 of them, most of which never count anything: what is
    large is made when it is needed.
    """

    __slots__ = (
        "_connects",
        "connect_seconds",
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
        self.failures = _NO_FAILURES
        self.retries = 0
        """Flows that came here because another backend had failed them."""
        self.to_backend = 0
        self.to_client = 0
        """Bytes of connections that have ended, and of all datagrams."""
        self.idle_closed = 0
        """Flows that ended for having been idle."""
        self._connects: list[int] | None = None
        self.connect_seconds = 0.0
        """The sum of `connects`' times."""

    @property
    def connects(self) -> Sequence[int]:
        """Connections taken, by the time that it took."""
        return self._connects or _NO_CONNECTS

    def failed(self, reason: Reason) -> None:
        """It did not take a flow, or did not serve it."""
        self.failures = {**self.failures, reason: self.failures[reason] + 1}

    def took(self, seconds: float) -> None:
        """It took a connection after so long."""
        self.flows += 1
        if self._connects is None:
            self._connects = list(_NO_CONNECTS)
        self._connects[bisect_left(CONNECT_BOUNDS, seconds)] += 1
        self.connect_seconds += seconds

    def add(self, other: Tally) -> None:
        """Add what another counted."""
        self.flows += other.flows
        self.failures = {reason: count + other.failures[reason] for reason, count in self.failures.items()}
        self.retries += other.retries
        self.to_backend += other.to_backend
        self.to_client += other.to_client
        self.idle_closed += other.idle_closed
        self._connects = [ours + theirs for ours, theirs in zip(self.connects, other.connects, strict=True)]
        self.connect_seconds += other.connect_seconds
