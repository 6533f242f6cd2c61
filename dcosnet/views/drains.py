"""
What this node writes of drains.

A drain is one durable key, and each node that says something of it has an entry
of its own there; the one written last counts. So what another node began is
ended by a newer entry that says so. That must stay while the other's is there,
which is as long as that node is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zope.interface import implementer

from dcosnet.errors import PeerError
from dcosnet.interfaces import IDrains, IKeyValue
from dcosnet.model.drain import Drain, Drainable, Progress, key_of
from dcosnet.model.entry import Lifetime
from dcosnet.model.snapshot import Owned
from dcosnet.views.values import decode_drain, encode_drain, encode_progress

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

KEEP_END = 86400.0
"""
Seconds for which the end of a drain stays after the last one that it ends has gone.

Who hears of both hears of them in either order. Without it a node would drain
anew for as long as it has heard of the one and not of the other.
"""


@implementer(IDrains)
class Drains:
    """`held` gives the decoded drains of all nodes, `wall` seconds since the epoch."""

    def __init__(
        self, node: str, store: IKeyValue, held: Callable[[], Mapping[str, Owned[Drain]]], wall: Callable[[], float]
    ) -> None:
        self._node = node
        self._store = store
        self._held = held
        self._wall = wall
        self._alone: dict[str, float] = {}
        """Of the ends that this node has said, since when it has seen nothing that they end."""

    def begin(self, what: Drainable, user: str, note: str) -> Deferred[None]:
        now = self._now(what)
        since = now.since if now is not None and now.on else self._wall()
        return self._write(Drain(what, user, since, note))

    def end(self, what: Drainable) -> Deferred[None] | None:
        key, now = key_of(what), self._now(what)
        if now is None or not now.on:
            return None
        if self._store.owners(key) <= {self._node}:
            return self._store.write({key: None}, Lifetime.DURABLE)
        return self._write(Drain(what, since=self._wall(), on=False))

    def tell(self, progress: Mapping[str, Progress] | None) -> None:
        value = None if progress is None else encode_progress(progress)
        self._store.write({f"draining/{self._node}": value}, Lifetime.LEASE)

    def tidy(self) -> Deferred[None] | None:
        held = self._held()
        self._alone = {key: since for key, since in self._alone.items() if key in held}
        gone = dict.fromkeys(key for key, owned in held.items() if self._done(key, owned))
        return self._store.write(gone, Lifetime.DURABLE) if gone else None

    def _now(self, what: Drainable) -> Drain | None:
        # From the store, which is ahead of the read models.
        entry = self._store.get(key_of(what))
        try:
            return None if entry is None else decode_drain(entry.key, entry.value)
        except PeerError:
            return None  # the read models take it for none, too

    def _write(self, drain: Drain) -> Deferred[None]:
        self._alone.pop(key_of(drain.what), None)
        return self._store.write({key_of(drain.what): encode_drain(drain)}, Lifetime.DURABLE)

    def _done(self, key: str, owned: Owned[Drain]) -> bool:
        """Whether this node's entry of a key is in vain: another's counts, or it ends what is gone everywhere."""
        owners = self._store.owners(key)
        if owned.owner != self._node:
            return self._node in owners
        if owned.value.on or not owners <= {self._node}:
            self._alone.pop(key, None)
            return False
        now = self._wall()
        return now - self._alone.setdefault(key, now) > KEEP_END
