"""
The store: the namespaces of all owners, and the one view of them that people read.

Pure, and the same for this node's own writes and for what others tell. Knows
neither disk nor peers; `service` acknowledges, gossip carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import attrs

from dcosnet.errors import PeerError
from dcosnet.kv.namespace import KEYS_LIMIT, NAMESPACE_LIMIT, TOMBSTONES, Namespace, weigh
from dcosnet.model.delta import Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

KEY_LIMIT = 512
VALUE_LIMIT = 1 << 20
OWNER_LIMIT = 253
OWNERS_LIMIT = 8192

LIMITS = ("key", "value", "namespace", "keys")


class LimitError(ValueError):
    """A write that is too large; `limit` is one of LIMITS."""

    def __init__(self, limit: str, sentence: str) -> None:
        super().__init__(limit, sentence)
        self.limit = limit
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class DeltaError(PeerError):
    """
    What a peer told of an owner is not taken.

    `limit` is one of LIMITS, "owners", or "form" where it contradicts itself.
    """

    def __init__(self, owner: str, limit: str, sentence: str) -> None:
        super().__init__(owner, limit, sentence)
        self.owner = owner
        self.limit = limit
        self.sentence = sentence

    def __str__(self) -> str:
        return f"the namespace of {self.owner[:40]!r} was not taken: {self.sentence}"


@attrs.frozen
class News:
    """
    What a delta of another owner brought.

    `changed` are the keys whose live entry is another one now, `durable` those
    of its durable keys that were touched, None for all; `settled`: it had not
    told all before.
    """

    changed: frozenset[str]
    durable: frozenset[str] | None
    settled: bool = False


@attrs.frozen
class Step:
    """
    What a write did: the change of this node's namespace, what stood there before
    (None for nothing), and the keys whose live entry is another one now.
    """

    delta: Delta
    before: Mapping[str, Entry | None]
    changed: frozenset[str]


@attrs.frozen
class Copy:
    """Of another owner's durable entries what changed up to `known`, None for what is gone; or all that there are."""

    known: Known
    settled: bool
    changes: Mapping[str, Entry | None]
    whole: bool


@attrs.frozen
class Found:
    """What others knew of this node, and the keys whose live entry is another one now."""

    said: Mapping[str, Entry]
    changed: frozenset[str]


class Store:
    """
    All entries that this node knows.

    The live entry of a key is, of its owners' entries, the one written last.
    One that was written too far ahead of this host's time loses against all
    others until its time comes. Once an owner has settled, content depends on
    nothing but which (generation, version) of it is known, and on who is dead:
    not on the order in which it was heard. `told` hears of each owner of whom
    another version is known. `tombstones` is how many deletions of an owner are
    remembered at least.
    """

    def __init__(self, owner: str, told: Callable[[str], None] = lambda _: None, tombstones: int = TOMBSTONES) -> None:
        self.own = Namespace(owner, tombstones)
        self._tombstones = tombstones
        self._told = told
        self._namespaces = {owner: self.own}
        # Who has an entry for a key, live or not. Nearly all keys have one owner,
        # and those share one tuple.
        self._owners: dict[str, tuple[str, ...]] = {}
        self._known: dict[str, Known] = {}
        self.known: Mapping[str, Known] = MappingProxyType(self._known)
        """Of each owner that is not hidden."""
        # While this node recovers: what others know of it, and which keys were written here.
        self._past: Namespace | None = None
        self._lost: Mapping[str, Entry | None] = {}
        self._meanwhile: set[str] = set()
        self._ahead: dict[tuple[str, str], int] = {}
        self._live: dict[str, Entry] = {}
        self.live: Mapping[str, Entry] = MappingProxyType(self._live)
        self.counts = dict.fromkeys(Lifetime, 0)
        """How many live entries there are of each lifetime."""

    # What this node says

    def begin(self, generation: int, version: int, entries: Mapping[str, Entry]) -> frozenset[str]:
        """Begin a generation of this node with what was on its disk; gives the keys whose live entry changed."""
        return self._own(Delta(self.own.owner, generation, 0, version, entries))

    def settle(self) -> None:
        """As IKeyValue says."""
        own = self.own
        if not own.settled:
            self._own(Delta(own.owner, own.generation, own.version, own.version + 1, {}, settled=True))

    def write(self, changes: Mapping[str, bytes | None], lifetime: Lifetime, stamp: Stamp) -> Step | None:
        """
        Change this node's own keys as one step; None when they are so already.

        Raises LimitError, and then nothing is written.
        """
        own = self.own
        if self._past is not None:
            self._meanwhile.update(changes)
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

    def recover(self, lost: Delta | None) -> None:
        """
        Hide what this node says, and take what others know of it; `lost` is what a damaged journal said.
        """
        owner = self.own.owner
        self._past = Namespace(owner)
        self._past.dead = True  # leases of before are nobody's
        if lost is not None:
            self._lost = lost.changes
            self._past.take(lost)
        if self._known.pop(owner, None) is not None:
            self._told(owner)

    def recovered(self) -> Found:
        """
        Say again what others knew, but of the keys that were written meanwhile; in a generation greater than theirs.
        """
        past, own = self._past, self.own
        assert past is not None, "it does not recover"
        said = {**past.former, **past.entries}
        puts: dict[str, Entry | None] = dict.fromkeys(self._lost.keys() - said.keys() - self._meanwhile)
        for key, entry in said.items():
            if key not in self._meanwhile and own.entries.get(key) in (None, self._lost.get(key)):
                puts[key] = attrs.evolve(entry, version=own.version + 1)
        self._past, self._lost, self._meanwhile = None, {}, set()
        own.generation = max(own.generation, past.generation + 1)
        changed = self._step(puts).changed if puts else frozenset()
        self._publish(own)
        return Found(said, changed)

    # What others say

    def take(self, delta: Delta, horizon: int) -> News | None:
        """
        Bring another owner's namespace forward; None if nothing was new.

        What was written after `horizon`, in milliseconds, is too far ahead.
        Taking the same again, or older, changes nothing; of what does not join
        on to the known version nothing is taken. Raises DeltaError.
        """
        owner = delta.owner
        if owner == self.own.owner:
            return self._take_past(delta)
        namespace = self._namespaces.get(owner)
        if namespace is None:
            _check_owner(owner, len(self._namespaces))
            namespace = Namespace(owner, self._tombstones)
        if not namespace.wants(delta):
            return None
        _check_delta(namespace, delta)
        self._namespaces[owner] = namespace
        durable, settled = _touched_durable(namespace, delta), namespace.settled
        touched = namespace.take(delta)
        for key in touched:
            entry = namespace.get(key)
            if entry is not None and entry.written.milliseconds > horizon:
                self._ahead[owner, key] = entry.written.milliseconds
            elif self._ahead:
                self._ahead.pop((owner, key), None)
        changed = self._refresh(self._note(namespace, touched))
        self._publish(namespace)
        return News(changed, durable, namespace.settled and not settled)

    def copy(self, owner: str, keys: Iterable[str] | None) -> Copy | None:
        """What of these durable keys, or of all, is to be on this disk; None if the owner is forgotten."""
        namespace = self._namespaces.get(owner)
        if namespace is None:
            return None
        durable = namespace.durable() if keys is None else {key: _durable(namespace.entries.get(key)) for key in keys}
        known = Known(namespace.generation, namespace.version)
        return Copy(known, namespace.settled, durable, keys is None)

    def owners(self, key: str) -> frozenset[str]:
        """As IKeyValue says."""
        return frozenset(self._owners.get(key, ()))

    @property
    def ahead(self) -> int:
        """How many entries lose because they were written too far ahead."""
        return len(self._ahead)

    def review(self, horizon: int) -> tuple[frozenset[str], Sequence[Stamp]]:
        """Let what has come in range take part; gives the keys whose live entry changed, and its stamps."""
        due = [named for named, written in self._ahead.items() if written <= horizon]
        stamps = []
        for owner, key in due:
            del self._ahead[owner, key]
            entry = self._namespaces[owner].get(key)
            assert entry is not None, "what is gone is not ahead"
            stamps.append(entry.written)
        return self._refresh(key for _, key in due), stamps

    def missing(self, owner: str, known: Known, limit: int) -> Delta | None:
        """As IReplica says."""
        if owner not in self._known:
            return None
        past = self._past if owner == self.own.owner else None
        return (past or self._namespaces[owner]).missing(known, limit)

    def judge(self, owner: str, dead: bool) -> frozenset[str]:
        """Drop the leases of an owner that died; gives the keys whose live entry changed."""
        namespace = self._namespaces.get(owner)
        if namespace is None and dead and len(self._namespaces) < OWNERS_LIMIT:
            # What is heard of it after its death has no leases either.
            namespace = self._namespaces[owner] = Namespace(owner, self._tombstones)
        if namespace is None or namespace is self.own or namespace.dead is dead:
            return frozenset()
        changed: frozenset[str] = frozenset()
        if dead:
            changed = self._drop(namespace, namespace.die())
        else:
            namespace.dead = False
        self._publish(namespace)
        return changed

    def passing(self, owner: str) -> bool:
        """Whether leases of an owner's former generation are shown."""
        namespace = self._namespaces.get(owner)
        return namespace is not None and namespace.passing

    def expire(self, owner: str) -> frozenset[str]:
        """Drop the leases of an owner's former generation; gives the keys whose live entry changed."""
        namespace = self._namespaces.get(owner)
        return frozenset() if namespace is None else self._drop(namespace, namespace.expire())

    def forget(self, owner: str) -> bool:
        """As IReplica says; of this node nothing is forgotten."""
        namespace = self._namespaces.get(owner)
        if namespace is None:
            return True
        if namespace is self.own or any(map(_is_durable, (*namespace.entries.values(), *namespace.former.values()))):
            return False
        self._drop(namespace, namespace.die())
        del self._namespaces[owner]
        if self._known.pop(owner, None) is not None:
            self._told(owner)
        return True

    # How it is done

    def _own(self, delta: Delta) -> frozenset[str]:
        changed = self._refresh(self._note(self.own, self.own.take(delta)))
        self._publish(self.own)
        return changed

    def _step(self, puts: Mapping[str, Entry | None]) -> Step:
        own = self.own
        before = {key: own.entries.get(key) for key in puts}
        delta = Delta(own.owner, own.generation, own.version, own.version + 1, puts)
        return Step(delta, before, self._own(delta))

    def _take_past(self, delta: Delta) -> News | None:
        if self._past is None or not self._past.wants(delta):
            return None
        _check_delta(self._past, delta)
        self._past.take(delta)
        self._publish(self._past)
        return News(frozenset(), frozenset())

    def _publish(self, namespace: Namespace) -> None:
        owner, known = namespace.owner, namespace.known
        if namespace is self.own and self._past is not None:
            return
        if known.generation and self._known.get(owner) != known:
            self._known[owner] = known
            self._told(owner)

    def _drop(self, namespace: Namespace, keys: Iterable[str]) -> frozenset[str]:
        for key in keys:
            self._ahead.pop((namespace.owner, key), None)
        return self._refresh(self._note(namespace, keys))

    def _check(self, puts: Mapping[str, Entry | None]) -> None:
        for key, entry in puts.items():
            if entry is not None:
                check_entry(key, entry.value)
        _check_size(self.own, puts)

    def _note(self, namespace: Namespace, touched: Iterable[str]) -> Iterable[str]:
        owner = namespace.owner
        for key in touched:
            owners = self._owners.get(key, ())
            said = namespace.get(key) is not None
            if said is (owner in owners):
                continue
            if said:
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
        said = [self._namespaces[owner].get(key) for owner in self._owners.get(key, ())]
        entries = [entry for entry in said if entry is not None]
        return max(entries, key=self._rank, default=None) if len(entries) != 1 else entries[0]

    def _rank(self, entry: Entry) -> tuple[bool, Stamp, str]:
        # A restored entry has the stamp of its first writing; the owner breaks the
        # tie that a badly behaved clock could make.
        return (entry.owner, entry.key) not in self._ahead, entry.written, entry.owner


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


def _check_size(namespace: Namespace, puts: Mapping[str, Entry | None], whole: bool = False) -> None:
    size, count = (0, 0) if whole else (namespace.size, len(namespace.entries))
    for key, entry in puts.items():
        before = None if whole else namespace.entries.get(key)
        if before is not None:
            size, count = size - weigh(key, before.value), count - 1
        if entry is not None:
            size, count = size + weigh(key, entry.value), count + 1
    # What frees room is always allowed, also where `restore` went over a limit.
    if size > max(NAMESPACE_LIMIT, namespace.size):
        raise LimitError(
            "namespace", f"keys and values of one node may have {NAMESPACE_LIMIT} bytes together, not {size}"
        )
    if count > max(KEYS_LIMIT, len(namespace.entries)):
        raise LimitError("keys", f"one node may have {KEYS_LIMIT} keys, not {count}")


def _check_owner(owner: str, owners: int) -> None:
    if not 0 < len(owner.encode(errors="replace")) <= OWNER_LIMIT:
        raise DeltaError(owner, "owners", f"a name has 1 to {OWNER_LIMIT} bytes")
    if owners >= OWNERS_LIMIT:
        raise DeltaError(owner, "owners", f"{OWNERS_LIMIT} owners are known already")


def _check_delta(namespace: Namespace, delta: Delta) -> None:
    if not 0 <= delta.since <= delta.version:
        raise DeltaError(delta.owner, "form", f"it leads from {delta.since} to {delta.version}")
    try:
        for key, entry in delta.changes.items():
            check_entry(key, b"" if entry is None else entry.value)
            # The order of versions is what `missing` relies on.
            if entry is not None and not (
                entry.key == key and entry.owner == delta.owner and delta.since < entry.version <= delta.version
            ):
                raise DeltaError(
                    delta.owner, "form", f"{key[:40]!r} is not an entry of it between {delta.since} and {delta.version}"
                )
        _check_size(namespace, delta.changes, delta.since == 0)
    except LimitError as error:
        raise DeltaError(delta.owner, error.limit, error.sentence) from None


def _touched_durable(namespace: Namespace, delta: Delta) -> frozenset[str] | None:
    entries, changes = namespace.entries, delta.changes
    if delta.since == 0:
        durable = any(map(_is_durable, changes.values())) or any(map(_is_durable, entries.values()))
        return None if durable else frozenset()
    return frozenset(key for key, entry in changes.items() if _is_durable(entry) or _is_durable(entries.get(key)))


def _durable(entry: Entry | None) -> Entry | None:
    return entry if _is_durable(entry) else None


def _is_durable(entry: Entry | None) -> bool:
    return entry is not None and entry.lifetime is Lifetime.DURABLE
