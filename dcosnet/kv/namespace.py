"""
What one node says: its keys, and the deltas that change them.

A node is the only writer of its namespace, so that two states of it never
conflict: of two, the one with the greater (generation, version) is newer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter

from dcosnet.model.delta import Delta, Known
from dcosnet.model.entry import Entry, Lifetime

NAMESPACE_LIMIT = 64 << 20
KEYS_LIMIT = 65_536

# Deletions that are remembered, if there are not more entries than that: who
# missed more than there are entries is told all of them more cheaply.
TOMBSTONES = 1024

_News = tuple[int, str, Entry | None]
"""A version, and what was said of a key with it."""


class Namespace:
    """
    The entries of one owner as far as they are known; `size` counts bytes of keys and values.

    `former` are those that the owner's generation before this one said, and
    this one has not named; they are void once it has `settled`. Where
    `passing`, there are leases among them. `bare`: leases are missing, because
    the owner was `dead` when they were told, or all that is known was on disk.
    `floor`: deletions up to that version may be forgotten.
    """

    __slots__ = (
        "_least_tombstones",
        "alone",
        "bare",
        "dead",
        "entries",
        "floor",
        "former",
        "generation",
        "owner",
        "passing",
        "settled",
        "size",
        "tombstones",
        "version",
    )

    def __init__(self, owner: str, tombstones: int = TOMBSTONES) -> None:
        self.owner = owner
        self._least_tombstones = tombstones
        self.alone = (owner,)
        self.generation = self.version = self.floor = self.size = 0
        self.settled = self.bare = self.dead = self.passing = False
        # Both in order of version, so that what is newer than some version is
        # at the end. The ordered dict also loses its first in constant time.
        self.entries: dict[str, Entry] = {}
        self.tombstones: OrderedDict[str, int] = OrderedDict()
        self.former: dict[str, Entry] = {}

    @property
    def known(self) -> Known:
        """How much is known, as others are told: nothing of its generation where it has to be fetched again."""
        return Known(self.generation, 0 if self.bare and not self.dead else self.version)

    def get(self, key: str) -> Entry | None:
        """What the owner says of a key."""
        entry = self.entries.get(key)
        return self.former.get(key) if entry is None else entry

    def wants(self, delta: Delta) -> bool:
        """
        Whether the delta is news, and joins on to what is known.

        A bare one would leave a hole where leases are known.
        """
        if delta.bare and not self.bare and self.generation:
            return False
        if delta.generation != self.generation:
            return delta.generation > self.generation and delta.since == 0
        if self.bare and not self.dead and not delta.bare and delta.since == 0:
            return delta.version >= self.version
        return delta.since <= self.version < delta.version

    def take(self, delta: Delta) -> Iterable[str]:
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
        if delta.generation != self.generation:
            touched |= dict.fromkeys(self.former)
            self._succeed()
        if delta.since == 0:
            touched |= dict.fromkeys(self.entries)
            self.entries, self.size = {}, 0
            self._forget(delta.version)
            self.bare = delta.bare or self.dead
        for key, entry in sorted(delta.changes.items(), key=lambda item: _version(item[1], delta)):
            self.former.pop(key, None)
            self._put(key, None if self.dead and _leased(entry) else entry, delta.version)
        self.generation, self.version = delta.generation, delta.version
        if delta.settled:
            touched |= dict.fromkeys(self.former)
            self.settled, self.passing, self.former = True, False, {}
        while len(self.tombstones) > max(self._least_tombstones, len(self.entries)):
            self.floor = self.tombstones.popitem(last=False)[1]
        return touched

    def missing(self, known: Known, limit: int) -> Delta | None:
        """
        What leads from `known` towards here, in about `limit` octets; None if nothing does.

        Costs as much as there is to tell. It is not cut where the other end may
        hold entries that it would lose until the rest has come: behind the
        floor, or without the leases.
        """
        if known >= (self.generation, self.version):
            return None
        same = known.generation == self.generation
        since = known.version if same and known.version >= self.floor else 0
        news = sorted(self._since(since), key=itemgetter(0))
        end = len(news) if same and not since else _cut(news, limit)
        version = self.version if end == len(news) else news[end - 1][0]
        settled = self.settled and end == len(news)
        changes = {key: entry for _, key, entry in news[:end]}
        return Delta(self.owner, self.generation, since, version, changes, settled, self.bare)

    def _since(self, since: int) -> Iterator[_News]:
        """What was said after a version, newest first of each kind; of what is bare no leases."""
        for entry in reversed(self.entries.values()):
            if entry.version <= since:
                break
            if not self.bare or not _leased(entry):
                yield entry.version, entry.key, entry
            elif since:
                yield entry.version, entry.key, None
        # Before an owner has settled, that a key was deleted is more than that it is not there.
        if since or not self.settled:
            for key, version in reversed(self.tombstones.items()):
                if version <= since:
                    break
                yield version, key, None

    def die(self) -> Iterable[str]:
        """Drop the leases; gives their keys."""
        self.dead = True
        self.bare = self.generation > 0
        dropped = [entry.key for entry in self.entries.values() if _leased(entry)]
        for key in dropped:
            self._remove(key)
        # A key that was durable and then a lease is gone now, and no tombstone says so.
        self._forget(self.version)
        return [*dropped, *self.expire()]

    def expire(self) -> Iterable[str]:
        """Drop the former leases; gives their keys."""
        self.passing = False
        dropped = [entry.key for entry in self.former.values() if _leased(entry)]
        for key in dropped:
            del self.former[key]
        return dropped

    def durable(self) -> Mapping[str, Entry]:
        """The durable entries."""
        return {key: entry for key, entry in self.entries.items() if entry.lifetime is Lifetime.DURABLE}

    def _succeed(self) -> None:
        """What was said so far becomes what the former generation said."""
        former = {**self.former, **self.entries}
        if len(former) > KEYS_LIMIT or sum(weigh(key, entry.value) for key, entry in former.items()) > NAMESPACE_LIMIT:
            former = self.entries
        self.former, self.settled = former, False
        self.passing = any(map(_leased, former.values()))

    def _forget(self, version: int) -> None:
        self.tombstones.clear()
        self.floor = version

    def _put(self, key: str, entry: Entry | None, version: int) -> None:
        # Taken out first, so that it is put at the end.
        self._remove(key)
        self.tombstones.pop(key, None)
        if entry is None:
            self.tombstones[key] = version
        else:
            self.entries[key] = entry
            self.size += weigh(key, entry.value)

    def _remove(self, key: str) -> None:
        before = self.entries.pop(key, None)
        if before is not None:
            self.size -= weigh(key, before.value)


def _leased(entry: Entry | None) -> bool:
    return entry is not None and entry.lifetime is Lifetime.LEASE


def _version(entry: Entry | None, delta: Delta) -> int:
    return delta.version if entry is None else entry.version


def _cut(news: Sequence[_News], limit: int) -> int:
    """How many of them are about so many octets; never within one version, and at least one version."""
    size = 0
    for end, (version, key, entry) in enumerate(news):
        if size >= limit and version > news[end - 1][0]:
            return end
        size += weigh(key, b"" if entry is None else entry.value)
    return len(news)


def weigh(key: str, value: bytes) -> int:
    """What an entry counts against its namespace, in bytes."""
    return len(key.encode()) + len(value)
