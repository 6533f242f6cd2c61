"""
Who is linked with whom: a pure function of the names.

Four rings, each with the names in the order of a hash of its own. Neighbours
are those next to each other on any ring, so each has eight of them at the most,
the graph is connected by construction, and both ends agree without a word.
In a cluster of up to nine all are neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b

RINGS = 4
MESH = 9


@lru_cache(16_384)
def _places(name: str) -> tuple[bytes, ...]:
    """Where a name stands on each ring."""
    return tuple(blake2b(f"{ring}\0{name}".encode(), digest_size=8).digest() for ring in range(RINGS))


class Rings:
    """Names on rings. Adding and discarding cost little; neighbours are remembered until the names change."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = set(names)
        self._rings = [sorted((_places(name)[ring], name) for name in self._names) for ring in range(RINGS)]
        self._neighbours: dict[str, frozenset[str]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> bool:
        """Put a name in its places; whether it was new."""
        if name in self._names:
            return False
        self._names.add(name)
        for ring, place in zip(self._rings, _places(name), strict=True):
            insort(ring, (place, name))
        self._neighbours.clear()
        return True

    def discard(self, name: str) -> bool:
        """Take a name from its places; whether it was there."""
        if name not in self._names:
            return False
        self._names.discard(name)
        for ring, place in zip(self._rings, _places(name), strict=True):
            del ring[bisect_left(ring, (place, name))]
        self._neighbours.clear()
        return True

    def neighbours(self, name: str) -> frozenset[str]:
        """Whom a name is linked with; of one that is not here, whom it would be."""
        known = self._neighbours.get(name)
        if known is None:
            known = self._neighbours[name] = frozenset(self._find(name))
        return known

    def _find(self, name: str) -> Iterator[str]:
        if len(self._names | {name}) <= MESH:
            yield from self._names - {name}
            return
        for ring, place in zip(self._rings, _places(name), strict=True):
            at = bisect_left(ring, (place, name))
            after = at + 1 if name in self._names else at
            yield ring[at - 1][1]
            yield ring[after % len(ring)][1]
