"""What is known in some leaves of the digests, as frames say it."""

from __future__ import annotations

from collections.abc import Iterator

from dcosnet.gossip.digest import Digest
from dcosnet.gossip.messages import Frontier

WEIGHT = 32_768
"""Octets, about, after which a frame takes no further leaf."""

_NUMBERS = 24
"""Octets that generation, version and the heads of an entry may take."""


def frontiers(
    members: Digest, member_leaves: bytes, keys: Digest, key_leaves: bytes, *, answer: bool
) -> Iterator[Frontier]:
    """
    All that is known here in these leaves, in as many frames as it takes; at least one.

    Each frame has whole leaves: what it leaves out of a leaf is unknown here.
    """
    some_members, some_keys, size = bytearray(), bytearray(), 0
    for digest, leaves, some in ((members, member_leaves, some_members), (keys, key_leaves, some_keys)):
        for leaf in leaves:
            weight = sum(len(name.encode()) + _NUMBERS for name in digest.within(bytes((leaf,))))
            if size and size + weight > WEIGHT:
                yield _frame(members, some_members, keys, some_keys, answer=answer)
                some_members.clear()
                some_keys.clear()
                size = 0
            size += weight
            some.append(leaf)
    yield _frame(members, some_members, keys, some_keys, answer=answer)


def _frame(members: Digest, some_members: bytearray, keys: Digest, some_keys: bytearray, *, answer: bool) -> Frontier:
    return Frontier(
        bytes(some_members),
        tuple((name, *pair) for name, pair in members.within(bytes(some_members)).items()),
        bytes(some_keys),
        tuple((name, *pair) for name, pair in keys.within(bytes(some_keys)).items()),
        answer,
    )
