"""
How many other nodes have what this one wrote.

Pure. Says up to which version enough of them have it; who waits for that is
`service`'s business.
"""

from __future__ import annotations

# As many as there may be owners: a peer cannot fill the memory with names.
PEERS_LIMIT = 8192


class Quorum:
    """Which version of one generation of this node's namespace each peer has confirmed."""

    def __init__(self) -> None:
        self.copies = 0
        """How many peers are to have it."""
        self._confirmed: dict[str, int] = {}

    def confirm(self, peer: str, version: int) -> None:
        """A peer has all up to the version; older news change nothing."""
        if peer in self._confirmed or len(self._confirmed) < PEERS_LIMIT:
            self._confirmed[peer] = max(version, self._confirmed.get(peer, version))

    def forget(self, peer: str) -> None:
        """Count a peer no more."""
        self._confirmed.pop(peer, None)

    def renew(self) -> None:
        """Begin another generation: nobody has anything of it."""
        self._confirmed.clear()

    def has(self, version: int) -> bool:
        """Whether enough peers have it."""
        return sum(confirmed >= version for confirmed in self._confirmed.values()) >= self.copies
