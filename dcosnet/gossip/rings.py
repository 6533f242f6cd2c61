"""
Who is linked with whom: a pure function of the names.

Four rings, each with the names in the order of a hash of its own. Neighbours
are those next to each other on any ring, so each has eight of them at the most,
the graph is connected by construction, and both ends agree without a word.
In a cluster of up to nine all are neighbours.
"""

from __future__ import annotations

from bisect import bisect_left
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
    """Names on rings. Adding and discarding cost little; neighbours are remembered until others stand there."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = set(names)
        self._rings = [sorted((_places(name)[ring], name) for name in self._names) for ring in range(RINGS)]
        self._neighbours: dict[str, frozenset[str]] = {}
        self._strangers: dict[str, frozenset[str]] = {}
        """Of names that are not here."""

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
            at = bisect_left(ring, (place, name))
            self._forget_around(ring, at)
            ring.insert(at, (place, name))
        self._strangers.clear()
        return True

    def discard(self, name: str) -> bool:
        """Take a name from its places; whether it was there."""
        if name not in self._names:
            return False
        self._names.discard(name)
        for ring, place in zip(self._rings, _places(name), strict=True):
            at = bisect_left(ring, (place, name))
            del ring[at]
            self._forget_around(ring, at)
        self._neighbours.pop(name, None)
        self._strangers.clear()
        return True

    def neighbours(self, name: str) -> frozenset[str]:
        """Whom a name is linked with; of one that is not here, whom it would be."""
        known = self._neighbours.get(name) or self._strangers.get(name)
        if known is None:
            known = frozenset(self._find(name))
            (self._neighbours if name in self._names else self._strangers)[name] = known
        return known

    def _forget_around(self, ring: list[tuple[bytes, str]], at: int) -> None:
        """Between two names another one comes or goes: those two have other neighbours now."""
        if len(ring) <= MESH:
            self._neighbours.clear()
            return
        self._neighbours.pop(ring[at - 1][1], None)
        self._neighbours.pop(ring[at % len(ring)][1], None)

    def _find(self, name: str) -> Iterator[str]:
        if len(self._names | {name}) <= MESH:
            yield from self._names - {name}
            return
        for ring, place in zip(self._rings, _places(name), strict=True):
            at = bisect_left(ring, (place, name))
            after = at + 1 if name in self._names else at
            yield ring[at - 1][1]
            yield ring[after % len(ring)][1]
