"""
The store: the namespaces of all owners, and the one view of them that people read.

Pure, and the same for this node's own writes and for what others tell. Knows
neither disk nor peers; `service` acknowledges, gossip carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from dcosnet.kv.namespace import Delta, Namespace, weigh
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

KEY_LIMIT = 512
VALUE_LIMIT = 1 << 20
NAMESPACE_LIMIT = 64 << 20
KEYS_LIMIT = 65_536


class LimitError(ValueError):
    """A write that is too large; `limit` is one of key, value, namespace, keys."""

    def __init__(self, limit: str, sentence: str) -> None:
        super().__init__(limit, sentence)
        self.limit = limit
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


@attrs.frozen
class Step:
    """
    What a write did: the change of this node's namespace, what stood there before
    (None for nothing), and the keys whose live entry is another one now.
    """

    delta: Delta
    before: Mapping[str, Entry | None]
    changed: frozenset[str]


class Store:
    """
    All entries that this node knows.

    The live entry of a key is, of its owners' entries, the one written last; a
    lease takes part only while its owner can be reached. Content depends on
    nothing but which (generation, version) of each owner is known, and on who
    can be reached: not on the order in which it was heard.
    """

    def __init__(self, owner: str) -> None:
        self.own = Namespace(owner)
        self._namespaces = {owner: self.own}
        # Who has an entry for a key, live or not. Nearly all keys have one owner,
        # and those share one tuple.
        self._owners: dict[str, tuple[str, ...]] = {}
        self._unreachable: set[str] = set()
        self._live: dict[str, Entry] = {}
        self.live: Mapping[str, Entry] = MappingProxyType(self._live)
        self.counts = dict.fromkeys(Lifetime, 0)
        """How many live entries there are of each lifetime."""

    def write(self, changes: Mapping[str, bytes | None], lifetime: Lifetime, stamp: Stamp) -> Step | None:
        """
        Change this node's own keys as one step; None when they are so already.

        Raises LimitError, and then nothing is written.
        """
        own = self.own
        version = own.version + 1
        puts: dict[str, Entry | None] = {}
        for key, value in changes.items():
            before = own.entries.get(key)
            if value is None:
                if before is not None:
                    puts[key] = None
            elif before is None or before.value != value or before.lifetime is not lifetime:
                created = stamp if before is None else before.created
                puts[key] = Entry(key, own.owner, value, lifetime, version, created, stamp)
        self._check(puts)
        return self._step(puts) if puts else None

    def restore(self, before: Mapping[str, Entry | None]) -> Step | None:
        """
        Put back what stood in this node's namespace, as a new step.

        The stamps are the old ones, so that nobody takes what is back for news.
        No limit applies: it was within them when it was written.
        """
        version = self.own.version + 1
        puts = {
            key: entry if entry is None else attrs.evolve(entry, version=version)
            for key, entry in before.items()
            if entry is not None or key in self.own.entries
        }
        return self._step(puts) if puts else None

    def take(self, delta: Delta) -> frozenset[str]:
        """
        Bring an owner's namespace forward; gives the keys whose live entry changed.

        Taking the same again, or older, changes nothing; of what does not join
        on to the known version nothing is taken.
        """
        namespace = self._namespaces.get(delta.owner)
        if namespace is None:
            namespace = self._namespaces[delta.owner] = Namespace(delta.owner)
        return self._refresh(self._note(namespace, namespace.take(delta)))

    def reach(self, owner: str, reachable: bool) -> frozenset[str]:
        """Show or hide an owner's leases; gives the keys whose live entry changed."""
        if reachable is (owner not in self._unreachable):
            return frozenset()
        (self._unreachable.discard if reachable else self._unreachable.add)(owner)
        namespace = self._namespaces.get(owner)
        entries = namespace.entries.values() if namespace is not None else ()
        return self._refresh(entry.key for entry in entries if entry.lifetime is Lifetime.LEASE)

    def _step(self, puts: Mapping[str, Entry | None]) -> Step:
        own = self.own
        before = {key: own.entries.get(key) for key in puts}
        delta = Delta(own.owner, own.generation, own.version, own.version + 1, puts)
        return Step(delta, before, self.take(delta))

    def _check(self, puts: Mapping[str, Entry | None]) -> None:
        own = self.own
        size, count = own.size, len(own.entries)
        for key, entry in puts.items():
            before = own.entries.get(key)
            if before is not None:
                size, count = size - weigh(key, before.value), count - 1
            if entry is not None:
                check_entry(key, entry.value)
                size, count = size + weigh(key, entry.value), count + 1
        # What frees room is always allowed, also where `restore` went over a limit.
        if size > max(NAMESPACE_LIMIT, own.size):
            raise LimitError(
                "namespace", f"keys and values of one node may have {NAMESPACE_LIMIT} bytes together, not {size}"
            )
        if count > max(KEYS_LIMIT, len(own.entries)):
            raise LimitError("keys", f"one node may have {KEYS_LIMIT} keys, not {count}")

    def _note(self, namespace: Namespace, touched: Iterable[str]) -> Iterable[str]:
        owner = namespace.owner
        for key in touched:
            owners = self._owners.get(key, ())
            if (key in namespace.entries) is (owner in owners):
                continue
            if key in namespace.entries:
                self._owners[key] = (*owners, owner) if owners else namespace.alone
            elif len(owners) > 1:
                self._owners[key] = tuple(name for name in owners if name != owner)
            else:
                del self._owners[key]
        return touched

    def _refresh(self, keys: Iterable[str]) -> frozenset[str]:
        changed = []
        for key in keys:
            before, after = self._live.get(key), self._pick(key)
            if before == after:
                continue
            changed.append(key)
            if before is not None:
                self.counts[before.lifetime] -= 1
            if after is None:
                del self._live[key]
            else:
                self.counts[after.lifetime] += 1
                self._live[key] = after
        return frozenset(changed)

    def _pick(self, key: str) -> Entry | None:
        entries = [self._namespaces[owner].entries[key] for owner in self._owners.get(key, ())]
        live = [one for one in entries if one.lifetime is Lifetime.DURABLE or one.owner not in self._unreachable]
        return max(live, key=_last_written, default=None) if len(live) != 1 else live[0]


def check_entry(key: str, value: bytes) -> None:
    """Raise LimitError for a key or a value that is too long, or a key that is no text."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise LimitError("key", f"the key {key!r} cannot be written as UTF-8") from None
    if length > KEY_LIMIT:
        raise LimitError("key", f"the key {key[:40]!r}... has {length} bytes; {KEY_LIMIT} are allowed")
    if len(value) > VALUE_LIMIT:
        raise LimitError("value", f"the value of {key!r} has {len(value)} bytes; {VALUE_LIMIT} are allowed")


def _last_written(entry: Entry) -> tuple[Stamp, str]:
    # A restored entry has the stamp of its first writing; the owner breaks the
    # tie that a badly behaved clock could make.
    return entry.written, entry.owner
