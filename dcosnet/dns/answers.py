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

from collections.abc import Iterable, Iterator

import attrs

MAX_POSITIVE = 65536
MAX_NEGATIVE = 4096
_HEADER = 10  # octets of a header without its id


@attrs.frozen
class _Kept:
    names: frozenset[str]
    negative: bool


class Answers:
    """A bounded table of ready answers; when full, the oldest goes."""

    def __init__(self, max_positive: int = MAX_POSITIVE, max_negative: int = MAX_NEGATIVE) -> None:
        self.ready: dict[bytes, Iterator[bytes]] = {}
        self._kept: dict[bytes, _Kept] = {}
        self._by_name: dict[str, set[bytes]] = {}
        self._ages: dict[bool, dict[bytes, None]] = {False: {}, True: {}}
        self._room = {False: max_positive, True: max_negative}

    def __len__(self) -> int:
        return len(self.ready)

    def put(self, key: bytes, bodies: Iterator[bytes], names: frozenset[str], *, negative: bool) -> None:
        """Keep an answer until one of `names` is forgotten, or until there is no room."""
        self._drop(key)
        ages = self._ages[negative]
        if len(ages) >= self._room[negative]:
            self._drop(next(iter(ages)))
        ages[key] = None
        self.ready[key] = bodies
        self._kept[key] = _Kept(names, negative)
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
        self._kept.clear()
        self._by_name.clear()
        for ages in self._ages.values():
            ages.clear()

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        del self.ready[key]
        del self._ages[kept.negative][key]
        for name in kept.names:
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]


def key_of(message: bytes, question_end: int) -> bytes:
    """The key of a plain query; `question_end` is where type and class end."""
    return message[2:12] + message[12 : question_end - 4].lower() + message[question_end - 4 :]
