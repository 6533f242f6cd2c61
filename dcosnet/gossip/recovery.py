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
"""Seconds to wait for a second peer, and for anyone at all where nobody is known to ask."""


class Recovery:
    """
    The question, and whether it has been answered.

    While there is somebody to ask and none of them is reached, it stays open:
    there is nobody to be told either, and what was promised may be with them.
    """

    def __init__(self, replica: IReplica, now: float) -> None:
        self._replica = replica
        self.active = replica.fresh
        self._until = now + PATIENCE
        self._told: set[str] = set()
        if self.active:
            replica.recover()

    def due(self) -> float | None:
        """When `settle` is to be called."""
        return self._until if self.active else None

    def told(self, peer: str, now: float) -> None:
        """A peer has told all that it knows of this node."""
        if not self._told:
            self._until = now + PATIENCE
        self._told.add(peer)

    def settle(self, now: float, others: int, *, askable: bool) -> bool:
        """
        End it if enough peers, of so many others that are alive, have told; whether it ended now.

        `askable`: somebody is known who may be reached yet.
        """
        if not self.active:
            return False
        enough = len(self._told) >= min(PEERS, max(1, others))
        if not enough and now < self._until:
            return False
        if not self._told and askable:
            self._until = now + PATIENCE
            return False
        self.active = False
        self._replica.recovered()
        return True
