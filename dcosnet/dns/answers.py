"""
Answers kept ready: from the bytes of a question to the bytes of its answer.

A key is a whole query without its id, the name in lower case; a value is an
endless iterator over whole replies without their id, so that the rotations of a
record set take turns at the cost of one `next`. Nothing is decoded on the way.

Only what `chain` has once made in full comes here. What an answer depends on is
indexed, so a change of a zone forgets exactly the answers that it makes wrong.
Negative answers have room of their own: names that somebody makes up at random
push out each other, never the names that are in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import attrs

from dcosnet.dns.wire import folded

MAX_POSITIVE = 65536
MAX_NEGATIVE = 4096
MAX_OCTETS = 32 << 20  # of keys and bodies, for positive and for negative answers each
MAX_VARIANTS = 64  # per name: flags, types and EDNS sizes can be made up as well as names
_HEADER = 10  # octets of a header without its id


@attrs.frozen
class _Kept:
    names: frozenset[str]
    about: str
    octets: int


class _Shelf:
    """Answers in the order of their age, and how much there may be of them."""

    def __init__(self, room: int) -> None:
        self.kept: dict[bytes, _Kept] = {}
        self.room = room
        self.octets = 0

    def is_full(self, octets: int) -> bool:
        """Whether one more of so many octets has no place."""
        return bool(self.kept) and (len(self.kept) >= self.room or self.octets + octets > MAX_OCTETS)


class Answers:
    """A bounded table of ready answers; when full, the oldest goes."""

    def __init__(self, max_positive: int = MAX_POSITIVE, max_negative: int = MAX_NEGATIVE) -> None:
        self.ready: dict[bytes, Iterator[bytes]] = {}
        self._by_name: dict[str, set[bytes]] = {}
        self._variants: Counter[str] = Counter()
        self._positive, self._negative = _Shelf(max_positive), _Shelf(max_negative)

    def __len__(self) -> int:
        return len(self.ready)

    def put(
        self, key: bytes, bodies: Iterator[bytes], names: frozenset[str], *, about: str, octets: int, negative: bool
    ) -> None:
        """
        Keep an answer until one of `names` is forgotten, or until there is no room.

        `about` is the name that was asked for: of one name no more than
        MAX_VARIANTS are kept, and the rest is not taken.
        """
        self._drop(key)
        if self._variants[about] >= MAX_VARIANTS:
            return
        shelf = self._negative if negative else self._positive
        while shelf.is_full(octets):
            self._drop(next(iter(shelf.kept)))
        shelf.kept[key] = _Kept(names, about, octets)
        shelf.octets += octets
        self.ready[key] = bodies
        self._variants[about] += 1
        for name in names:
            self._by_name.setdefault(name, set()).add(key)

    def other_case(self, message: bytes) -> bytes | None:
        """
        The reply without its id to a query whose name has capital letters, or None.

        The asker's own letters are echoed; names in the answer point to them.
        """
        end = message.find(0, 12)
        if end < 0:
            return None
        bodies = self.ready.get(message[2:12] + message[12:end].lower() + message[end:])
        if bodies is None:
            return None
        body = next(bodies)
        return body[:_HEADER] + message[12:end] + body[end - 2 :]

    def forget(self, names: Iterable[str]) -> None:
        """Drop every answer that depends on one of these."""
        for name in names:
            for key in tuple(self._by_name.get(name, ())):
                self._drop(key)

    def clear(self) -> None:
        """Drop all."""
        self.ready.clear()
        self._by_name.clear()
        self._variants.clear()
        for shelf in (self._positive, self._negative):
            shelf.kept.clear()
            shelf.octets = 0

    def _drop(self, key: bytes) -> None:
        if self.ready.pop(key, None) is None:
            return
        shelf = self._positive if key in self._positive.kept else self._negative
        kept = shelf.kept.pop(key)
        shelf.octets -= kept.octets
        self._variants[kept.about] -= 1
        if not self._variants[kept.about]:
            del self._variants[kept.about]
        for name in kept.names:
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]


def key_of(message: bytes, question_end: int) -> bytes:
    """The key of a plain query; `question_end` is where type and class end."""
    return message[2:12] + folded(message[12:question_end]) + message[question_end:]
