"""
From sources to keys, from keys to read models.

What it decides is in the folds; this only carries: facts in, keys written,
changed keys decoded once and handed to every fold, cells published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.logger import Logger
from zope.interface import implementer

from dcosnet.errors import PeerError
from dcosnet.interfaces import IFold, IKeyValue, IMembership, IMetrics, ITaskSource, IViews, IZone
from dcosnet.io import heap
from dcosnet.model.cell import Cell, Changed, Later
from dcosnet.model.drain import Drain
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.facts import Facts
from dcosnet.model.member import Member
from dcosnet.model.metric import Metric, Sample
from dcosnet.model.net import Endpoint
from dcosnet.model.node import Node
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.task import Task
from dcosnet.model.vip import Vip
from dcosnet.model.zone import Zone
from dcosnet.views.figures import figures
from dcosnet.views.local import LocalKeys
from dcosnet.views.presence import Presence
from dcosnet.views.values import (
    decode_agent,
    decode_drain,
    decode_framework,
    decode_leader,
    decode_node,
    decode_progress,
    decode_refresh,
    decode_task,
)
from dcosnet.views.viptable import VipTable
from dcosnet.views.zones import TASKS, ZOOKEEPER, TaskZone, ZooKeeperZone, concerns_leader, fixed_zones

log = Logger()

SLICE = 256
"""How many things are decided, or keys folded, at a time: a few milliseconds."""

KEEP_AFTER = 512
"""Keys folded, after which what they made is taken for lasting."""


@implementer(IZone)
@attrs.frozen
class CellZone:
    """A zone that is a cell."""

    apex: str
    zone: Cell[Zone]


@attrs.frozen
class _Reading:
    """How the entries under a prefix are decoded, and where they are held."""

    decode: Callable[[Entry], Owned[Any]]
    held: dict[str, Owned[Any]] = attrs.field(factory=dict)


def _plain(decode: Callable[[bytes], Any]) -> Callable[[Entry], Owned[Any]]:
    return lambda entry: Owned(decode(entry.value), entry.owner, entry.created)


def _drain(entry: Entry) -> Owned[Drain]:
    return Owned(decode_drain(entry.key, entry.value), entry.owner, entry.created)


@implementer(IViews, IMetrics)
class Views(Service):
    """
    The shared read models, kept up to date.

    Sources are watched when this is made, so that nothing they tell is missed;
    what they say is written from the start of the service on.

    Both ways are cut into slices of a bounded number of things, one a turn:
    from facts to keys, and from keys to read models. That all is known, so that
    names may be denied, is told after the last slice of both; that something is
    missing, before the first.
    """

    name = "views"

    def __init__(
        self,
        node: Node,
        store: IKeyValue,
        membership: IMembership,
        sources: Iterable[ITaskSource],
        folds: Iterable[IFold],
        later: Later,
        wall: Callable[[], float],
        slice_size: int = SLICE,
    ) -> None:
        self._node = node
        self._slice = slice_size
        self._wall = wall
        self._presence = Presence(node)
        self._store = store
        self._membership = membership
        self._folds = tuple(folds)
        self._later = later
        self._readings = {
            "task": _Reading(self._task),
            "node": _Reading(_plain(decode_node)),
            "framework": _Reading(_plain(decode_framework)),
            "agent": _Reading(_plain(decode_agent)),
            "leader": _Reading(_plain(decode_leader)),
            "refresh": _Reading(_plain(decode_refresh)),
            "drain": _Reading(_drain),
            "draining": _Reading(_plain(decode_progress)),
        }
        self._unreadable: set[str] = set()
        self._table = VipTable()
        self._task_zone = TaskZone()
        self._zk_zone = ZooKeeperZone()
        named = tuple(sources)
        self._local = LocalKeys(node.name, tuple(source.name for source in named), self._owner_of)
        self._stop: list[Callable[[], None]] = []
        self._refusals = 0
        # What the store had no room for, and which of it is to be tried again.
        self._refused: dict[str, bytes] = {}
        self._retry: dict[str, None] = {}
        # The store's live view, and which of its keys are not folded yet.
        self._entries: Mapping[str, Entry] = {}
        self._unfolded: dict[str, None] = {}
        self._folding = self._writing = self._undelivered = False
        self._made = 0
        self._members_told: Mapping[str, Member] = {}
        self._peers_missing = membership.unsynced.value
        reason = self._reason()
        self.snapshot: Cell[Snapshot] = Cell(self._take_snapshot(), later)
        self.vips: Cell[Mapping[str, Vip]] = Cell(self._table.vips, later)
        self.drained: Cell[Mapping[str, Mapping[Endpoint, tuple[str, ...]]]] = Cell(self._table.drained, later)
        self.unsynced: Cell[str | None] = Cell(reason, later)
        self._task_cell: Cell[Zone] = Cell(Zone(TASKS, self._task_zone.records, reason), later)
        self._zk_cell: Cell[Zone] = Cell(Zone(ZOOKEEPER, self._zk_zone.records, reason), later)
        self.zones = (
            CellZone(TASKS, self._task_cell),
            CellZone(ZOOKEEPER, self._zk_cell),
            *(CellZone(zone.apex, Cell(zone, later)) for zone in fixed_zones(node)),
        )
        for source in named:
            source.watch(self._sink(source.name))

    def startService(self) -> None:
        """Tell the store of this node, and follow the store and the members."""
        super().startService()
        self._say_presence()
        self._stop.append(self._store.subscribe("", self._take_entries))
        self._stop.append(self._membership.members.subscribe(self._take_members))
        self._stop.append(self._membership.unsynced.subscribe(self._take_peers_missing))
        self._write_later()

    def stopService(self) -> None:
        """Follow nothing any more. The store keeps its keys until its owner is gone."""
        while self._stop:
            self._stop.pop()()
        self._unfolded.clear()
        super().stopService()

    def refresh(self) -> int:
        """The number is known here at once, and answered when the store has told it."""
        number, changes = self._presence.ask(owned.value for owned in self.snapshot.value.nodes.values())
        self._store.write(changes, Lifetime.LEASE)
        return number

    # From facts to keys

    def _say_presence(self) -> None:
        if self._presence.due:
            self._store.write(self._presence.say(self._wall()), Lifetime.LEASE)

    def _sink(self, source: str) -> Callable[[Facts], None]:
        def take(facts: Facts) -> None:
            self._local.take(source, facts)
            self._tell_synced()
            self._write_later()

        return take

    def _take_members(self, members: Mapping[str, Member], changed: Changed) -> None:
        self._local.take_members(members)
        self._write_later()
        names = self._members_told.keys() | members.keys() if changed is None else changed
        self._members_told = members
        self._publish(frozenset(f"member/{name}" for name in names))

    def _take_peers_missing(self, reason: str | None, _changed: Changed) -> None:
        # As it was delivered, not as it is: by then the store has told what the peers said.
        self._peers_missing = reason
        self._tell_synced()

    def _reason(self) -> str | None:
        return self._local.unsynced() or self._peers_missing

    def _write_later(self) -> None:
        if self.running and not self._writing and (self._retry or not self._local.settled):
            self._writing = True
            self._later(self._write)

    def _write(self) -> None:
        self._writing = False
        if not self.running:
            return
        changes = self._local.step(self._slice, self._table.since)
        for key in tuple(islice(self._retry, self._slice)):
            del self._retry[key]
            if key in self._refused:
                changes.setdefault(key, self._refused[key])
        try:
            self._store.write(changes, Lifetime.LEASE)
        except ValueError:
            self._write_singly(changes)
        else:
            for key in changes if self._refused else ():
                self._refused.pop(key, None)
        if self._local.settled and not self._retry:
            self._undelivered = True
            # After the store's own delivery, which was put on the turn before this.
            self._later(self._delivered)
        else:
            self._write_later()

    def _write_singly(self, changes: Mapping[str, bytes | None]) -> None:
        """One key that the store refuses costs only itself; what was there of it would be a lie by now."""
        for key, value in changes.items():
            try:
                self._store.write({key: value}, Lifetime.LEASE)
            except ValueError as error:
                assert value is not None, "what frees room is never refused"
                if self._store.get(key) is not None:
                    self._store.write({key: None}, Lifetime.LEASE)
                if self._refused.get(key) != value:
                    self._refusals += 1
                    log.error("{key} was refused by the store: {reason}", key=key, reason=str(error))
                self._refused[key] = value
            else:
                self._refused.pop(key, None)

    def _delivered(self) -> None:
        self._undelivered = False
        self._tell_synced()

    def _tell_synced(self) -> None:
        """Tell a reason at once, and that there is none only when all that was told is folded."""
        reason, local = self._reason(), self._local.unsynced()
        missing = self._unfolded or self._undelivered or not self._local.settled or not self.running
        if local is None and not missing:
            self._store.settle()  # whether peers have been heard is another matter
        if reason == self.unsynced.value or (reason is None and missing):
            return
        log.info("synced" if reason is None else "not synced: {reason}", reason=reason)
        self.unsynced.publish(reason)
        # Only what denies a name depends on the reason, and that depends on the apex.
        self._task_cell.publish(Zone(TASKS, self._task_zone.records, reason), frozenset({TASKS}))
        self._zk_cell.publish(Zone(ZOOKEEPER, self._zk_zone.records, reason), frozenset({ZOOKEEPER}))

    # From keys to read models

    def _take_entries(self, entries: Mapping[str, Entry], changed: Changed) -> None:
        self._entries = entries
        if self._refused and (changed is None or any(key not in entries for key in changed)):
            self._retry.update(dict.fromkeys(self._refused))  # there may be room now
            self._write_later()
        # What is there before what is gone, so that a name whose task moves is not gone in between.
        self._unfolded.update(dict.fromkeys(entries if changed is None else (key for key in changed if key in entries)))
        for keys in (changed,) if changed is not None else (reading.held for reading in self._readings.values()):
            self._unfolded.update(dict.fromkeys(keys))
        if not self._folding:
            self._fold()

    def _fold(self) -> None:
        self._folding = False
        keys = tuple(islice(self._unfolded, self._slice))
        for key in keys:
            del self._unfolded[key]
            self._decode(key, self._entries.get(key))
        self._publish(frozenset(keys))
        self._made += len(keys)
        if self._made >= KEEP_AFTER:
            self._made = 0
            self._later(heap.keep)
        self._write_later()  # where another node tells now what this one told
        self._say_presence()  # where somebody asked for it
        if self._unfolded:
            self._folding = True
            self._later(self._fold)
        else:
            self._tell_synced()

    def _decode(self, key: str, entry: Entry | None) -> None:
        self._unreadable.discard(key)
        reading = self._readings.get(key.partition("/")[0])
        if reading is None:
            return
        if entry is None:
            reading.held.pop(key, None)
            return
        try:
            owned = reading.held[key] = reading.decode(entry)
        except PeerError as error:
            # The last readable value would be a lie by now.
            reading.held.pop(key, None)
            self._unreadable.add(key)
            log.error("{key} of {owner} was unreadable: {reason}", key=key, owner=entry.owner, reason=str(error))
        else:
            if isinstance(owned.value, Task):
                self._local.take_owner(owned.value.id, owned.owner)
            elif isinstance(owned.value, int):
                self._presence.hear(owned.value)

    def _task(self, entry: Entry) -> Owned[Task]:
        task, since = self._local.written(entry.key, entry.value) or decode_task(entry.value)
        return Owned(task, entry.owner, entry.created, since)

    def _owner_of(self, key: str) -> str | None:
        entry = self._store.get(key)
        return None if entry is None else entry.owner

    def _take_snapshot(self) -> Snapshot:
        held = {name: MappingProxyType(reading.held) for name, reading in self._readings.items()}
        return Snapshot(
            tasks=held["task"],
            nodes=held["node"],
            members=self._membership.members.value,
            frameworks=held["framework"],
            agents=held["agent"],
            leaders=held["leader"],
            drains=held["drain"],
            progress=held["draining"],
        )

    def _publish(self, changed: frozenset[str]) -> None:
        snapshot = self._take_snapshot()
        if concerns_leader(changed):
            self._take_rivals(snapshot)
        self.vips.publish(self._table.vips, self._table.update(snapshot, changed))
        self.drained.publish(self._table.drained, self._table.drained_changed)
        reason = self.unsynced.value
        names = self._task_zone.update(snapshot, changed)
        self._task_cell.publish(Zone(TASKS, self._task_zone.records, reason), names)
        names = self._zk_zone.update(snapshot, changed)
        self._zk_cell.publish(Zone(ZOOKEEPER, self._zk_zone.records, reason), names)
        for fold in self._folds:
            fold.update(snapshot, changed)
        self.snapshot.publish(snapshot, changed)

    def _take_rivals(self, snapshot: Snapshot) -> None:
        epochs = (one.value.epoch for one in snapshot.leaders.values() if one.owner != self._node.name)
        self._local.take_rival(max(epochs, default=None))
        self._write_later()

    def collect(self) -> Iterable[Metric]:
        """What the views hold."""
        held = {name: len(reading.held) for name, reading in self._readings.items()}
        yield Metric("dcosnet_views_tasks", "Tasks known.", "gauge", [Sample(held["task"])])
        yield Metric("dcosnet_views_nodes", "Nodes known.", "gauge", [Sample(held["node"])])
        yield Metric("dcosnet_views_frameworks", "Frameworks known.", "gauge", [Sample(held["framework"])])
        yield Metric("dcosnet_views_agents", "Mesos agents known.", "gauge", [Sample(held["agent"])])
        yield Metric("dcosnet_views_leaders", "Nodes that tell who leads.", "gauge", [Sample(held["leader"])])
        yield Metric("dcosnet_views_drains", "Drains known, and ends of drains.", "gauge", [Sample(held["drain"])])
        yield Metric("dcosnet_views_vips", "VIPs with at least one backend.", "gauge", [Sample(len(self._table.vips))])
        yield Metric(
            "dcosnet_views_unfolded_keys",
            "Keys that changed and are not in the read models yet.",
            "gauge",
            [Sample(len(self._unfolded))],
        )
        yield Metric(
            "dcosnet_views_unreadable_entries",
            "Entries that could not be decoded.",
            "gauge",
            [Sample(len(self._unreadable))],
        )
        yield Metric(
            "dcosnet_views_refused_writes_total", "Keys that the store refused.", "counter", [Sample(self._refusals)]
        )
        yield Metric(
            "dcosnet_views_refused_keys", "Keys that wait for room in the store.", "gauge", [Sample(len(self._refused))]
        )
        yield from figures(self._table, self._readings["task"].held.values(), self._node.address)
