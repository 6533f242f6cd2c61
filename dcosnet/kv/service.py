"""
The store as a service: acknowledges writes, and tells readers of changes.

What the keys mean is the readers' business; how they reach other nodes will be
gossip's. A durable write is readable at once and acknowledged after the fsync;
those made while another fsync is under way share the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IKeyValue, IMetrics
from dcosnet.kv.batch import Batch
from dcosnet.kv.clock import Clock
from dcosnet.kv.journal import Journal
from dcosnet.kv.namespace import Delta
from dcosnet.kv.store import LimitError, Step, Store
from dcosnet.kv.subscription import Receive, Subscription
from dcosnet.model.cell import Later
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.metric import Metric, Sample

log = Logger()

InThread = Callable[[Callable[[], None]], "Deferred[None]"]
"""Runs a blocking function elsewhere; called with one at a time."""


@implementer(IKeyValue, IMetrics)
class KeyValue(Service):
    """
    The store of one node with its journal.

    `seconds` gives the host's time since the epoch. It opens in the privileged
    start, so that a journal that cannot be used ends twistd in one line, and so
    that whoever starts after may write. Reading and subscribing work before.
    """

    name = "kv"

    def __init__(
        self, node: str, journal: Journal, seconds: Callable[[], float], later: Later, in_thread: InThread
    ) -> None:
        self._store = Store(node)
        self._clock = Clock(node)
        self._journal = journal
        self._seconds = seconds
        self._later = later
        self._in_thread = in_thread
        self._subscriptions: list[Subscription] = []
        self._opened = False
        self._flying: tuple[Batch, list[Deferred[None]]] | None = None
        self._waiting: tuple[Batch, list[Deferred[None]]] | None = None
        self._idle: list[Deferred[None]] = []
        self._refusing = False
        self._writes = dict.fromkeys(Lifetime, 0)
        self._limited = dict.fromkeys(("key", "value", "namespace", "keys"), 0)
        self._commits = 0
        self._commits_refused = 0

    # IKeyValue

    def write(self, changes: Mapping[str, bytes | None], lifetime: Lifetime) -> Deferred[None]:
        """
        As IKeyValue says.

        A write that touches a key which is on disk, or on its way there, waits
        for the disk whatever its lifetime: what a lease takes the place of must
        not come back with the next start.
        """
        assert self._opened, "written before the store was started"
        try:
            step = self._store.write(changes, lifetime, self._clock.now(self._physical()))
        except LimitError as error:
            self._limited[error.limit] += 1
            raise
        if step is not None:
            self._writes[lifetime] += len(step.delta.changes)
            self._tell(step.changed)
            if self._concerns_disk(step):
                return self._enqueue(step)
        return self._acknowledge(changes)

    def get(self, key: str) -> Entry | None:
        """As IKeyValue says."""
        return self._store.live.get(key)

    def entries(self, prefix: str = "") -> Mapping[str, Entry]:
        """As IKeyValue says."""
        if not prefix:
            return dict(self._store.live)
        return {key: entry for key, entry in self._store.live.items() if key.startswith(prefix)}

    def subscribe(self, prefix: str, receive: Receive) -> Callable[[], None]:
        """As IKeyValue says."""
        subscription = Subscription(prefix, receive, self._store.live, self._later)
        self._subscriptions.append(subscription)

        def end() -> None:
            subscription.end()
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

        return end

    # IService

    def privilegedStartService(self) -> None:
        """Read the journal and begin a new generation. Raises JournalError if that cannot be done."""
        super().privilegedStartService()
        # Where the last generation cannot be read or the new one not be written,
        # the host's time keeps them apart.
        contents = self._journal.open(self._store.own.owner, self._physical())
        own = self._store.own.owner
        for entry in contents.entries.values():
            self._clock.observe(entry.written, self._physical())
        self._tell(self._store.take(Delta(own, contents.generation, 0, contents.version, contents.entries)))
        self._opened = True
        if contents.damage is not None:
            log.critical(
                "{path} was damaged at byte {damage}: kept {keys} keys that stand before it; the file is now {aside}",
                path=str(self._journal.path),
                damage=contents.damage,
                keys=len(contents.entries),
                aside=str(self._journal.damaged),
            )
        elif self._journal.torn_bytes:
            log.warn(  # noqa: G010 - Twisted's logger knows no other name
                "{path} ended with a write that was cut short: dropped {bytes} bytes that were not acknowledged",
                path=str(self._journal.path),
                bytes=self._journal.torn_bytes,
            )
        try:
            self._journal.begin(contents.version)
        except OSError as error:
            self._refused(error)
        log.info(
            "{path} holds {keys} durable keys; generation {generation} began",
            path=str(self._journal.path),
            keys=len(contents.entries),
            generation=contents.generation,
        )

    def stopService(self) -> Deferred[None]:
        """Wait for what is on its way to disk, and let go of the journal."""
        super().stopService()
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        idle.addCallback(lambda _: self._journal.close())
        self._settle()
        return idle

    # IMetrics, Part

    def collect(self) -> Iterable[Metric]:
        """The families of `dcosnet_kv_`."""
        journal, store = self._journal, self._store

        def one(name: str, text: str, kind: Any, value: float) -> Metric:
            return Metric(f"dcosnet_kv_{name}", text, kind, (Sample(value),))

        return (
            Metric("dcosnet_kv_entries", "Live entries.", "gauge", _by_lifetime(store.counts)),
            Metric("dcosnet_kv_writes_total", "Keys written or deleted here.", "counter", _by_lifetime(self._writes)),
            Metric(
                "dcosnet_kv_refused_writes_total",
                "Writes beyond a limit.",
                "counter",
                tuple(Sample(count, {"limit": limit}) for limit, count in self._limited.items()),
            ),
            one("namespace_bytes", "Keys and values of this node.", "gauge", store.own.size),
            one("generation", "Grows with each start.", "gauge", store.own.generation),
            one("subscriptions", "Readers of the store.", "gauge", len(self._subscriptions)),
            one("journal_bytes", "Size of the journal.", "gauge", journal.size),
            one("journal_commits_total", "Groups of durable writes on disk.", "counter", self._commits),
            one("journal_refused_total", "Groups that the disk refused.", "counter", self._commits_refused),
            one("journal_rewrites_total", "How often the journal was written anew.", "counter", journal.rewrites),
            one("journal_rewrites_refused_total", "Rewrites that failed.", "counter", journal.rewrites_refused),
            one("journal_torn_bytes", "Dropped at the start: a write cut short.", "gauge", journal.torn_bytes),
            one("journal_damaged", "1 if the journal was damaged at the start.", "gauge", journal.damaged is not None),
        )

    def describe(self) -> Mapping[str, Any]:
        """For `/v1/status`."""
        return {
            "journal": str(self._journal.path),
            "generation": self._store.own.generation,
            "version": self._store.own.version,
            "keys": len(self._store.own.entries),
            "disk_refuses": self._refusing,
            "damaged": None if self._journal.damaged is None else str(self._journal.damaged),
        }

    # Durable writes: `_waiting` gathers while `_flying` is being put on disk.

    def _concerns_disk(self, step: Step) -> bool:
        durable, changes = Lifetime.DURABLE, step.delta.changes
        return (
            any(not batch.keys.isdisjoint(changes) for batch, _ in self._pending())
            or any(entry is not None and entry.lifetime is durable for entry in changes.values())
            or any(before is not None and before.lifetime is durable for before in step.before.values())
        )

    def _pending(self) -> Iterable[tuple[Batch, list[Deferred[None]]]]:
        return (group for group in (self._waiting, self._flying) if group is not None)

    def _acknowledge(self, changes: Mapping[str, bytes | None]) -> Deferred[None]:
        """Of a write that changed nothing: once what it found in place is acknowledged itself."""
        for batch, waiters in self._pending():
            if not batch.keys.isdisjoint(changes):
                return _wait(waiters)
        return succeed(None)

    def _enqueue(self, step: Step) -> Deferred[None]:
        if self._waiting is None:
            self._waiting = (Batch(), [])
            # The next turn, so that the writes of this one go together.
            self._later(self._fly)
        batch, waiters = self._waiting
        batch.add(step)
        return _wait(waiters)

    def _fly(self) -> None:
        if self._flying is not None or self._waiting is None:
            return
        self._flying, self._waiting = self._waiting, None
        batch = self._flying[0]
        self._in_thread(lambda: self._journal.commit(batch.version, batch.changes)).addCallbacks(
            self._landed, self._crashed
        )

    def _landed(self, _: None) -> None:
        self._commits += 1
        if self._refusing:
            self._refusing = False
            log.info("{path} takes durable writes again", path=str(self._journal.path))
        assert self._flying is not None
        waiters, self._flying = self._flying[1], None
        self._fly()
        for waiter in waiters:
            waiter.callback(None)
        self._settle()

    def _crashed(self, failure: Failure) -> None:
        """
        Take back what the disk refused, and all that was written upon it.

        A value that was never acknowledged must not stay readable as if it
        were: what stood before comes back as a step of its own.
        """
        waiting, flying = self._waiting, self._flying
        assert flying is not None
        self._waiting = self._flying = None
        before = {**(waiting[0].before if waiting else {}), **flying[0].before}
        step = self._store.restore(before)
        if step is not None:
            self._tell(step.changed)
        error = failure.value
        if isinstance(error, OSError):
            self._refused(error)
        else:
            log.failure("{path} failed", failure, path=str(self._journal.path))
        for waiter in (*flying[1], *(waiting[1] if waiting else ())):
            waiter.errback(failure)
        self._settle()

    def _refused(self, error: OSError) -> None:
        self._commits_refused += 1
        if not self._refusing:
            self._refusing = True
            log.error(
                "{path} refuses durable writes: {reason}",
                path=str(self._journal.path),
                reason=error.strerror or str(error),
            )

    def _settle(self) -> None:
        if self._flying is None and self._waiting is None:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    def _tell(self, changed: frozenset[str]) -> None:
        if changed:
            for subscription in self._subscriptions:
                subscription.note(changed, self._store.live)

    def _physical(self) -> int:
        return int(self._seconds() * 1000)


def _wait(waiters: list[Deferred[None]]) -> Deferred[None]:
    waiter: Deferred[None] = Deferred()
    waiters.append(waiter)
    return waiter


def _by_lifetime(counts: Mapping[Lifetime, int]) -> tuple[Sample, ...]:
    return tuple(Sample(count, {"lifetime": str(lifetime)}) for lifetime, count in counts.items())
