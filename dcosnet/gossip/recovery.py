"""
When a node that lost its disk knows enough of itself to write again.

A node that finds no journal may be new, or may have forgotten what it promised.
It asks before it speaks: until peers have told what they know of its former
self, its own namespace is not shown to anyone.
"""

from __future__ import annotations

from dcosnet.interfaces import IReplica

PEERS = 2
PATIENCE = 10.0
"""Seconds to wait for a second peer, or for anyone at all."""


class Recovery:
    """The question, and whether it has been answered."""

    def __init__(self, replica: IReplica, now: float) -> None:
        self._replica = replica
        self.active = replica.fresh
        self._asked = not replica.fresh
        """Whether some peer has answered since the start."""
        self._until = now + PATIENCE
        self._told: set[str] = set()
        if self.active:
            replica.recover()

    def due(self) -> float | None:
        """When `settle` is to be called."""
        return self._until if self.active else None

    def joined(self, now: float) -> None:
        """A link stands: if nobody was there to be asked so far, this peer is."""
        if not self._asked and not self.active:
            self.active = True
            self._until = now + PATIENCE
            self._replica.recover()

    def told(self, peer: str, now: float) -> None:
        """A peer has told all that it knows of this node."""
        if self.active and not self._told:
            self._until = now + PATIENCE
        self._told.add(peer)

    def settle(self, now: float, others: int) -> bool:
        """End it if enough peers, of so many others that are alive, have told; whether it ended now."""
        if not self.active or (len(self._told) < min(PEERS, max(1, others)) and now < self._until):
            return False
        self.active = False
        self._asked = bool(self._told)
        self._replica.recovered()
        return True
