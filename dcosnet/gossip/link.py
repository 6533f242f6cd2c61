"""One connection to a peer, as the core keeps it: what it has said, and how it fares."""

from __future__ import annotations

from dcosnet.gossip.messages import Hello
from dcosnet.gossip.probe import Probe
from dcosnet.gossip.wire import Reader

SYNC_FIRST, SYNC_MOST = 2.0, 60.0
"""Seconds between two comparisons over one link; doubles while they find nothing that lasts."""


class Link:
    """
    A connection, from its opening on; `hello` is None until the peer has said who it is.

    `certified` is the name that its certificate proves, None where there is none.
    """

    __slots__ = (
        "blind", "certified", "dialled", "endpoint", "full_since", "hello", "mismatches", "number", "opened_at",
        "probe", "reader", "skew", "sync_at", "sync_wait", "synced", "unwanted_since",
    )  # fmt: skip

    def __init__(self, number: int, certified: str | None, endpoint: str, now: float, *, dialled: bool) -> None:
        self.number = number
        self.certified = certified
        self.endpoint = endpoint
        self.dialled = dialled
        self.opened_at = now
        self.reader = Reader()
        self.hello: Hello | None = None
        self.probe: Probe | None = None
        self.skew = 0.0
        """Seconds that the peer's clock is ahead of ours."""
        self.full_since: float | None = None
        """Since when its transport takes nothing more."""
        self.blind = 0
        """Octets that were written since then all the same."""
        self.mismatches = 0
        self.sync_wait = SYNC_FIRST
        self.sync_at = now
        self.synced = False
        """Whether all that differed when it was opened has been told."""
        self.unwanted_since: float | None = None

    @property
    def name(self) -> str | None:
        """Who is there; None until that is known."""
        return None if self.hello is None else self.hello.name

    def differs(self, now: float, *, differing: bool, idle: bool) -> bool:
        """Hear whether the peer's digest differs; whether it is time to find out where."""
        if not differing:
            self.mismatches = 0
            self.sync_wait = SYNC_FIRST
            return False
        if idle:
            self.mismatches += 1
        if self.mismatches < 2 or now < self.sync_at:
            return False
        self.mismatches = 0
        self.sync_at = now + self.sync_wait
        self.sync_wait = min(SYNC_MOST, self.sync_wait * 2)
        return True
