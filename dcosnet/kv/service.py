"""
The store as a service: acknowledges writes, and tells readers of changes.

What the keys mean is the readers' business; how they reach other nodes is
gossip's. A durable write is readable at once and acknowledged after the fsync,
and once as many other nodes have it as are expected; those made while another
fsync is under way share the next one.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IKeyValue, IMetrics, IReplica
from dcosnet.io.disk import Disk
from dcosnet.kv.batch import Batch
from dcosnet.kv.clock import LEAP_MS, Clock
from dcosnet.kv.copier import CallLater, Copier, InThread, Timer
from dcosnet.kv.copies import Copies
from dcosnet.kv.journal import Journal
from dcosnet.kv.quorum import Quorum
from dcosnet.kv.store import LIMITS, DeltaError, LimitError, Step, Store
from dcosnet.kv.subscription import Receive, Subscription
from dcosnet.model.cell import Later
from dcosnet.model.delta import Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.metric import Metric, Sample

log = Logger()

T = TypeVar("T")

WAITING_LIMIT = 65_536
"""Writes that may wait for the disk or for other nodes; one more is refused."""

REVIEW_SECONDS = 1.0
"""How often it is looked whether entries that were ahead of this host's time still are."""

FORMER_SECONDS = 10.0
"""How long leases of an owner's former generation are shown, if it does not settle."""


@implementer(IKeyValue, IReplica, IMetrics)
class KeyValue(Service):
    """
    The store of one node, with its journal in `directory`, which need not be there.

    `seconds` gives the host's time since the epoch, which may jump; `call_later`
    measures by a time that does not. It opens in the privileged start, so that a
    journal that cannot be used ends twistd in one line, and so that whoever
    starts after may write. Reading and subscribing work before.
    """

    name = "kv"

    def __init__(
        self,
        node: str,
        directory: Path,
        disk: Disk,
        seconds: Callable[[], float],
        later: Later,
        call_later: CallLater,
        in_thread: InThread,
    ) -> None:
        self.node = node
        self.journal = Journal(directory, disk)
        self._store = Store(node, self._told)
        self._clock = Clock(node)
        self._call_later = call_later
        self._seconds = seconds
        self._copier = Copier(Copies(directory / "copies", disk), self._store.copy, later, call_later, in_thread)
        self._quorum = Quorum()
        self._later = later
        self._in_thread = in_thread
        self._subscriptions: list[Subscription] = []
        self._followers: list[Callable[[str], None]] = []
        self._expiries: dict[str, Timer] = {}
        self._review_timer: Timer | None = None
        self._opened = self._stopped = False
        self.fresh = False
        self._recovering = False
        # What the journal is to begin with once this node has recovered.
        self._renewal: tuple[int, Mapping[str, Entry]] | None = None
        self._flying: tuple[Batch, list[Deferred[None]]] | None = None
        self._waiting: tuple[Batch, list[Deferred[None]]] | None = None
        # On this disk, and not yet on enough others.
        self._unconfirmed: deque[tuple[Batch, list[Deferred[None]]]] = deque()
        self._waiters = 0
        self._idle: list[Deferred[None]] = []
        self._refusing = False
        self._writes = dict.fromkeys(Lifetime, 0)
        self._limited = dict.fromkeys((*LIMITS, "waiting"), 0)
        self._copies_dropped = 0
        self._refused_deltas = dict.fromkeys((*LIMITS, "owners", "form"), 0)
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
            self._check_waiters(lifetime)
            step = self._store.write(changes, lifetime, self._clock.now(self._physical()))
        except LimitError as error:
            self._limited[error.limit] += 1
            raise
        if step is not None:
            self._writes[lifetime] += len(step.delta.changes)
            self._tell(step.changed)
        sought = [key for key, value in changes.items() if value is None] if self._recovering else []
        if sought or (step is not None and self._concerns_disk(step)):
            return self._enqueue(step, sought)
        return self._acknowledge(changes)

    def settle(self) -> None:
        """As IKeyValue says."""
        self._store.settle()

    def get(self, key: str) -> Entry | None:
        """As IKeyValue says."""
        return self._store.live.get(key)

    def owners(self, key: str) -> frozenset[str]:
        """As IKeyValue says."""
        return self._store.owners(key)

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

    # IReplica

    @property
    def generation(self) -> int:
        """As IReplica says."""
        return self._store.own.generation

    def known(self) -> Mapping[str, Known]:
        """As IReplica says."""
        return self._store.known

    def missing(self, owner: str, known: Known, limit: int) -> Delta | None:
        """As IReplica says."""
        return self._store.missing(owner, known, limit)

    def take(self, delta: Delta) -> bool:
        """As IReplica says."""
        physical = self._physical()
        try:
            news = self._store.take(delta, physical + LEAP_MS)
        except DeltaError as error:
            self._refused_deltas[error.limit] += 1
            raise
        if news is None:
            return False
        for entry in delta.changes.values():
            if entry is not None:
                self._clock.observe(entry.written, physical)
        self._watch_former(delta.owner)
        self._watch_ahead()
        self._copier.note(delta.owner, news)
        self._tell(news.changed)
        return True

    def follow(self, told: Callable[[str], None]) -> Callable[[], None]:
        """As IReplica says."""
        self._followers.append(told)

        def end() -> None:
            if told in self._followers:
                self._followers.remove(told)

        return end

    def judge(self, owner: str, state: MemberState) -> None:
        """As IReplica says."""
        self._tell(self._store.judge(owner, state in (MemberState.DEAD, MemberState.LEFT)))
        self._watch_former(owner)

    def forget(self, owner: str) -> bool:
        """As IReplica says."""
        forgotten = self._store.forget(owner)
        if forgotten:
            self._quorum.forget(owner)
            self._copier.drop(owner)
        self._watch_former(owner)
        return forgotten

    def recover(self) -> None:
        """As IReplica says."""
        if self.fresh and not self._recovering:
            self._recovering = True
            self._store.recover(self.journal.last)
            log.info("{path} is new: asks other nodes for the keys of this one", path=str(self.journal.path))

    def exceed(self, generation: int) -> None:
        """As IReplica says."""
        if self._recovering:
            own = self._store.own
            own.generation = max(own.generation, generation + 1)

    def recovered(self) -> None:
        """
        As IReplica says.

        What was found was acknowledged once, so it is not taken back when the
        disk refuses: it goes there with the next durable write.
        """
        if not self._recovering:
            return
        self._recovering = False
        found = self._store.recovered()
        self._quorum.renew()
        own = self._store.own
        batch, _ = self._gather()
        batch.rebase(found.said)
        durable = {key: entry for key, entry in own.durable().items() if key not in batch.before}
        durable |= {key: entry for key, entry in batch.before.items() if entry is not None}
        self._renewal = own.generation, durable
        self._later(self._fly)
        self._tell(found.changed)
        log.info(
            "recovered {keys} durable keys of this node; generation {generation}",
            keys=len(found.said),
            generation=own.generation,
        )

    def expect(self, copies: int) -> None:
        """As IReplica says."""
        self._quorum.copies = copies
        self._acknowledge_copied()

    def confirm(self, peer: str, known: Known) -> None:
        """As IReplica says; of another generation of this node it says nothing."""
        if known.generation == self.generation and peer != self.node:
            self._quorum.confirm(peer, known.version)
            self._acknowledge_copied()

    def follow_copies(self, stored: Callable[[str, Known], None]) -> Callable[[], None]:
        """As IReplica says."""
        return self._copier.follow(stored)

    # IService

    def privilegedStartService(self) -> None:
        """Read the journal and begin a new generation. Raises JournalError if that cannot be done."""
        super().privilegedStartService()
        # Where the last generation cannot be read or the new one not be written,
        # the host's time keeps them apart.
        contents = self.journal.open(self.node, self._physical())
        for entry in contents.entries.values():
            self._clock.observe(entry.written, self._physical())
        self._tell(self._store.begin(contents.generation, contents.version, contents.entries))
        self._opened = True
        self._load_copies()
        if contents.damage is not None:
            log.critical(
                "{path} was damaged at byte {damage}: kept {keys} keys that stand before it; the file is now {aside}",
                path=str(self.journal.path),
                damage=contents.damage,
                keys=len(contents.entries),
                aside=str(self.journal.damaged),
            )
        elif self.journal.torn_bytes:
            log.warn(  # noqa: G010 - Twisted's logger knows no other name
                "{path} ended with a write that was cut short: dropped {bytes} bytes that were not acknowledged",
                path=str(self.journal.path),
                bytes=self.journal.torn_bytes,
            )
        self.fresh = self.journal.fresh
        if self.fresh:
            # Made on the next turn, or when all is known that is to be in it:
            # until then the next start is to recover as well.
            self._gather()
        else:
            try:
                self.journal.begin(contents.version)
            except OSError as error:
                self._refused(error)
        log.info(
            "{path} holds {keys} durable keys; generation {generation} began",
            path=str(self.journal.path),
            keys=len(contents.entries),
            generation=contents.generation,
        )

    def stopService(self) -> Deferred[None]:
        """Wait for what is on its way to disk, and let go of the journal."""
        super().stopService()
        self._stopped = True
        while self._expiries:
            self._expiries.popitem()[1].cancel()
        if self._review_timer is not None:
            self._review_timer.cancel()
            self._review_timer = None
        if self._recovering and self._waiting is not None:
            waiters, self._waiting = self._waiting[1], None
            self._cancel(waiters, "stopped before this node had recovered its keys")
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        idle.addCallback(self._close)
        self._settle()
        return idle

    def _close(self, _: None) -> Deferred[None]:
        # Whatever landed while it stopped is on this disk, and will be told by the next start.
        while self._unconfirmed:
            self._cancel(self._unconfirmed.popleft()[1], "on this disk, but stopped before other nodes had it")
        return self._copier.stop().addCallback(lambda _: self.journal.close())

    def _cancel(self, waiters: list[Deferred[None]], reason: str) -> None:
        for waiter in waiters:
            waiter.errback(OSError(errno.ECANCELED, reason, str(self.journal.path)))

    def _load_copies(self) -> None:
        copies = self._copier.copies
        try:
            for found in copies.load(self.node):
                if isinstance(found, str):
                    self._drop_copy(found, "damaged")
                    continue
                try:
                    news = self._store.take(found, self._physical() + LEAP_MS)
                except DeltaError as error:
                    copies.drop(found.owner)
                    self._drop_copy(found.owner, str(error))
                else:
                    self._tell(frozenset() if news is None else news.changed)
                    self._watch_ahead()
        except OSError as error:
            self._drop_copy(str(copies.directory), error.strerror or str(error))

    def _drop_copy(self, what: str, reason: str) -> None:
        self._copies_dropped += 1
        log.warn("the copy {what} was dropped: {reason}", what=what, reason=reason)  # noqa: G010 - Twisted's name

    # IMetrics, Part

    def collect(self) -> Iterable[Metric]:
        """The families of `dcosnet_kv_`."""
        copier = self._copier
        journal, log_file, store = self.journal, self.journal.log, self._store

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
            Metric(
                "dcosnet_kv_refused_deltas_total",
                "Namespaces of other nodes that were beyond a limit.",
                "counter",
                tuple(Sample(count, {"limit": limit}) for limit, count in self._refused_deltas.items()),
            ),
            one("namespace_bytes", "Keys and values of this node.", "gauge", store.own.size),
            one("generation", "Grows with each start.", "gauge", store.own.generation),
            one("ahead_entries", "Entries written more than 10 s ahead of this host.", "gauge", store.ahead),
            one("leaps_total", "Stamps of others that were too far ahead.", "counter", self._clock.leaps),
            one("waiting_writes", "Writes that are not acknowledged yet.", "gauge", self._waiters),
            one("copies_expected", "Other nodes that are to have a durable write.", "gauge", self._quorum.copies),
            one("copies", "Owners whose durable entries are on this disk.", "gauge", len(copier.copies)),
            one("copies_bytes", "Size of what was copied since the start.", "gauge", copier.copies.size),
            one("copies_pending", "Owners of whom something is not on this disk yet.", "gauge", copier.pending),
            one("copies_commits_total", "Copies that the disk took.", "counter", copier.commits),
            one("copies_refused_total", "Copies that it refused.", "counter", copier.refused),
            one("copies_dropped", "Copies of no use at the start.", "gauge", self._copies_dropped),
            one("subscriptions", "Readers of the store.", "gauge", len(self._subscriptions)),
            one("journal_bytes", "Size of the journal.", "gauge", log_file.size),
            one("journal_commits_total", "Groups of durable writes on disk.", "counter", self._commits),
            one("journal_refused_total", "Groups that the disk refused.", "counter", self._commits_refused),
            one("journal_rewrites_total", "How often the journal was written anew.", "counter", log_file.rewrites),
            one("journal_rewrites_refused_total", "Rewrites that failed.", "counter", log_file.rewrites_refused),
            one("journal_torn_bytes", "Dropped at the start: a write cut short.", "gauge", journal.torn_bytes),
            one("journal_damaged", "1 if the journal was damaged at the start.", "gauge", journal.damaged is not None),
        )

    def describe(self) -> Mapping[str, Any]:
        """For `/v1/status`."""
        return {
            "journal": str(self.journal.path),
            "generation": self._store.own.generation,
            "version": self._store.own.version,
            "keys": len(self._store.own.entries),
            "owners": len(self._store.known),
            "recovering": self._recovering,
            "disk_refuses": self._refusing,
            "copies_refused": self._copier.refusing,
            "damaged": None if self.journal.damaged is None else str(self.journal.damaged),
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
        for batch, waiters in (*self._pending(), *reversed(self._unconfirmed)):
            if not batch.keys.isdisjoint(changes):
                return self._wait(waiters)
        return succeed(None)

    def _gather(self) -> tuple[Batch, list[Deferred[None]]]:
        """What goes to disk next; at the earliest on the next turn, so that the writes of this one go together."""
        if self._waiting is None:
            self._waiting = (Batch(), [])
            self._later(self._fly)
        self._waiting[0].version = self._store.own.version
        return self._waiting

    def _enqueue(self, step: Step | None, sought: Iterable[str]) -> Deferred[None]:
        batch, waiters = self._gather()
        if step is not None:
            batch.add(step)
        batch.delete(sought)
        return self._wait(waiters)

    def _check_waiters(self, lifetime: Lifetime) -> None:
        if self._waiters >= WAITING_LIMIT and lifetime is Lifetime.DURABLE:
            raise LimitError("waiting", f"{WAITING_LIMIT} writes wait for the disk or for other nodes already")

    def _wait(self, waiters: list[Deferred[None]]) -> Deferred[None]:
        self._waiters += 1
        waiter: Deferred[None] = Deferred()
        waiter.addBoth(self._waited)
        waiters.append(waiter)
        return waiter

    def _waited(self, result: T) -> T:
        self._waiters -= 1
        return result

    def _fly(self) -> None:
        if self._flying is not None or self._waiting is None or self._recovering:
            return
        self._flying, self._waiting = self._waiting, None
        batch = self._flying[0]
        renewal, self._renewal = self._renewal, None

        def commit() -> None:
            if renewal is not None:
                self.journal.log.assume(self.node, *renewal)
            self.journal.commit(batch.version, batch.changes)

        self._in_thread(commit).addCallbacks(self._landed, self._crashed)

    def _landed(self, _: None) -> None:
        self.fresh = False
        if self._refusing:
            self._refusing = False
            log.info("{path} takes durable writes again", path=str(self.journal.path))
        assert self._flying is not None
        batch = self._flying[0]
        self._commits += bool(batch.keys)
        if batch.keys:
            batch.land()
            self._unconfirmed.append(self._flying)
        self._flying = None
        self._fly()
        self._acknowledge_copied()
        self._settle()

    def _acknowledge_copied(self) -> None:
        """Acknowledge what is on this disk, and on as many others as it is to be."""
        while self._unconfirmed and self._quorum.has(self._unconfirmed[0][0].version):
            for waiter in self._unconfirmed.popleft()[1]:
                waiter.callback(None)

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
            log.failure("{path} failed", failure, path=str(self.journal.path))
        for waiter in (*flying[1], *(waiting[1] if waiting else ())):
            waiter.errback(failure)
        self._settle()

    def _refused(self, error: OSError) -> None:
        self._commits_refused += 1
        if not self._refusing:
            self._refusing = True
            log.error(
                "{path} refuses durable writes: {reason}",
                path=str(self.journal.path),
                reason=error.strerror or str(error),
            )

    def _settle(self) -> None:
        if self._flying is None and self._waiting is None:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    # Leases of a former generation, shown until the new one has settled or these are over.

    def _watch_former(self, owner: str) -> None:
        if not self._store.passing(owner):
            timer = self._expiries.pop(owner, None)
            if timer is not None:
                timer.cancel()
        elif owner not in self._expiries and not self._stopped:
            # Not put off by a generation after it: who starts again and again would be believed for ever.
            self._expiries[owner] = self._call_later(FORMER_SECONDS, lambda: self._expire(owner))

    def _expire(self, owner: str) -> None:
        del self._expiries[owner]
        self._tell(self._store.expire(owner))

    # Entries that were written too far ahead of this host's time.

    def _watch_ahead(self) -> None:
        if self._store.ahead and self._review_timer is None and not self._stopped:
            # Again and again, and not when the first is due: the host's time may jump.
            self._review_timer = self._call_later(REVIEW_SECONDS, self._review)

    def _review(self) -> None:
        self._review_timer = None
        physical = self._physical()
        changed, stamps = self._store.review(physical + LEAP_MS)
        for stamp in stamps:
            self._clock.observe(stamp, physical)
        self._watch_ahead()
        self._tell(changed)

    def _told(self, owner: str) -> None:
        for told in tuple(self._followers):
            told(owner)

    def _tell(self, changed: frozenset[str]) -> None:
        if changed:
            for subscription in self._subscriptions:
                subscription.note(changed, self._store.live)

    def _physical(self) -> int:
        return int(self._seconds() * 1000)


def _by_lifetime(counts: Mapping[Lifetime, int]) -> tuple[Sample, ...]:
    return tuple(Sample(count, {"lifetime": str(lifetime)}) for lifetime, count in counts.items())
