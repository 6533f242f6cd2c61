"""
What one node says: its keys, and the steps that change them.

A node is the only writer of its namespace, so that two states of it never
conflict: of two, the one with the greater (generation, version) is newer.
"""

from __future__ import annotations

from dcosnet.model.delta import Delta
from dcosnet.model.entry import Entry


class Namespace:
    """The entries of one owner as far as they are known; `size` counts bytes of keys and values."""

    __slots__ = ("alone", "entries", "generation", "owner", "size", "version")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.alone = (owner,)
        self.generation = 0
        self.version = 0
        self.entries: dict[str, Entry] = {}
        self.size = 0

    def take(self, delta: Delta) -> tuple[str, ...]:
        """
        Bring this namespace to the delta's version; gives the keys that were touched.

        What is known already, or does not join on to it, is left alone. That
        the delta begins before what is known does no harm: it tells each of its
        keys as it is at `version`. So nothing older is ever taken, and a key
        that was deleted cannot come back.
        """
        if not self.wants(delta):
            return ()
        touched = dict.fromkeys(delta.changes)
        if delta.since == 0:
            touched |= dict.fromkeys(self.entries)
            self.entries = {}
            self.size = 0
        for key, entry in delta.changes.items():
            self._put(key, entry)
        self.generation, self.version = delta.generation, delta.version
        return tuple(touched)

    def wants(self, delta: Delta) -> bool:
        """Whether the delta is news, and joins on to what is known."""
        if delta.generation == self.generation:
            return delta.since <= self.version < delta.version
        return delta.generation > self.generation and delta.since == 0

    def _put(self, key: str, entry: Entry | None) -> None:
        before = self.entries.pop(key, None) if entry is None else self.entries.get(key)
        if before is not None:
            self.size -= weigh(key, before.value)
        if entry is not None:
            self.entries[key] = entry
            self.size += weigh(key, entry.value)


def weigh(key: str, value: bytes) -> int:
    """What an entry counts against its namespace, in bytes."""
    return len(key.encode()) + len(value)
