"""
Whether two nodes know the same, in eight octets, and where they differ.

256 leaves, each the XOR of a 64-bit hash of every (name, generation, version)
whose name falls into it; the root is a hash of the leaves. Not against forgery:
who has a certificate of the cluster may lie in easier ways.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from struct import Struct as Layout

LEAVES = 256
_OCTETS = 8
_LAYOUT = Layout(f">{LEAVES}Q")
_LEAF = Layout(">BQ")


@lru_cache(16_384)
def leaf_of(name: str) -> int:
    """Which leaf a name falls into: the first octet of its BLAKE2b-64."""
    return blake2b(name.encode(), digest_size=_OCTETS).digest()[0]


@lru_cache(16_384)
def _hash(name: str, generation: int, version: int) -> int:
    text = f"{name}\0{generation}\0{version}".encode()
    return int.from_bytes(blake2b(text, digest_size=_OCTETS).digest(), "big")


class Digest:
    """The digest of a mapping from names to (generation, version), kept up to date."""

    def __init__(self) -> None:
        self._leaves = [0] * LEAVES
        self._names: list[dict[str, tuple[int, int]]] = [{} for _ in range(LEAVES)]
        self._packed: bytes | None = None

    def put(self, name: str, known: tuple[int, int] | None) -> None:
        """Take the new value of a name; None for a name that is gone."""
        leaf = leaf_of(name)
        names = self._names[leaf]
        before = names.pop(name, None)
        if before is not None:
            self._leaves[leaf] ^= _hash(name, *before)
        if known is not None:
            names[name] = known
            self._leaves[leaf] ^= _hash(name, *known)
        self._packed = None

    def leaves(self) -> bytes:
        """All leaves, 8 octets each, big endian."""
        if self._packed is None:
            self._packed = _LAYOUT.pack(*self._leaves)
        return self._packed

    def told(self) -> bytes:
        """The leaves as they are sent: of each that is not zero its index, one octet, and its 8 octets; in order."""
        leaves = ((index, leaf) for index, leaf in enumerate(self._leaves) if leaf)
        return b"".join(_LEAF.pack(index, leaf) for index, leaf in leaves)

    def differing(self, told: bytes) -> bytes:
        """The indices of the leaves that differ from these. Raises ValueError for what nobody would send."""
        if len(told) % _LEAF.size:
            raise ValueError(f"{len(told)} octets of leaves; each has {_LEAF.size}")
        theirs = dict(_LEAF.iter_unpack(told))
        if list(theirs) != sorted(theirs) or len(theirs) * _LEAF.size != len(told):
            raise ValueError("leaves that are not in order")
        return bytes(index for index, leaf in enumerate(self._leaves) if leaf != theirs.get(index, 0))

    def within(self, indices: bytes) -> dict[str, tuple[int, int]]:
        """What is known in these leaves."""
        return {name: known for index in set(indices) for name, known in self._names[index].items()}


def root(members: Digest, keys: Digest) -> bytes:
    """Eight octets that are equal where both digests are."""
    return _root(members.leaves(), keys.leaves())


@lru_cache(64)
def _root(members: bytes, keys: bytes) -> bytes:
    return blake2b(members + keys, digest_size=_OCTETS).digest()
