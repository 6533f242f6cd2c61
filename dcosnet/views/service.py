"""
From sources to keys, from keys to read models.

What it decides is in the folds; this only carries: facts in, keys written,
changed keys decoded once and handed to every fold, cells published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs
from twisted.application.service import Service
from twisted.logger import Logger
from zope.interface import implementer

from dcosnet.errors import PeerError
from dcosnet.interfaces import IFold, IKeyValue, IMembership, IMetrics, ITaskSource, IViews, IZone
from dcosnet.model.cell import Cell, Changed, Later
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.facts import Facts
from dcosnet.model.metric import Metric, Sample
from dcosnet.model.node import Node
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.task import Task
from dcosnet.model.vip import Vip
from dcosnet.model.zone import Zone
from dcosnet.views.local import LocalKeys
from dcosnet.views.values import decode_node, decode_task, encode_node
from dcosnet.views.viptable import VipTable
from dcosnet.views.zones import TASKS, TaskZone, fixed_zones

log = Logger()


@implementer(IZone)
@attrs.frozen
class CellZone:
    """A zone that is a cell."""

    apex: str
    zone: Cell[Zone]


@implementer(IViews, IMetrics)
class Views(Service):
    """
    The shared read models, kept up to date.

    Sources are watched when this is made, so that nothing they tell is missed;
    what they say is written from the start of the service on.
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
    ) -> None:
        self._node = node
        self._store = store
        self._membership = membership
        self._folds = tuple(folds)
        self._later = later
        self._tasks: dict[str, Owned[Task]] = {}
        self._nodes: dict[str, Owned[Node]] = {}
        self._unreadable: set[str] = set()
        self._table = VipTable()
        self._task_zone = TaskZone()
        named = tuple(sources)
        self._local = LocalKeys(tuple(source.name for source in named))
        self._stop: list[Callable[[], None]] = []
        self._refused = 0
        reason = self._local.unsynced()
        self.snapshot: Cell[Snapshot] = Cell(self._take_snapshot(), later)
        self.vips: Cell[Mapping[str, Vip]] = Cell(self._table.vips, later)
        self.unsynced: Cell[str | None] = Cell(reason, later)
        self._task_cell: Cell[Zone] = Cell(Zone(TASKS, self._task_zone.records, reason), later)
        self.zones = (
            CellZone(TASKS, self._task_cell),
            *(CellZone(zone.apex, Cell(zone, later)) for zone in fixed_zones(node)),
        )
        for source in named:
            source.watch(self._sink(source.name))

    def startService(self) -> None:
        """Tell the store of this node, and follow the store and the members."""
        super().startService()
        self._store.write({f"node/{self._node.name}": encode_node(self._node)}, Lifetime.LEASE)
        self._stop.append(self._store.subscribe("", self._take_entries))
        self._stop.append(
            self._membership.members.subscribe(
                lambda _, changed: self._publish(None if changed is None else frozenset(f"member/{n}" for n in changed))
            )
        )

    def stopService(self) -> None:
        """Follow nothing any more. The store keeps its keys until its owner is gone."""
        while self._stop:
            self._stop.pop()()
        super().stopService()

    def _sink(self, source: str) -> Callable[[Facts], None]:
        def take(facts: Facts) -> None:
            changes = self._local.update(source, facts, self._table.since)
            try:
                self._store.write(changes, Lifetime.LEASE)
            except ValueError:
                self._write_singly(changes)
            # After the store's own delivery, which was put on the turn before
            # this: names are denied only once those that exist are known.
            self._later(self._tell_synced)

        return take

    def _write_singly(self, changes: Mapping[str, bytes | None]) -> None:
        """One task that the store refuses costs only itself; what was there of it would be a lie by now."""
        for key, value in changes.items():
            try:
                self._store.write({key: value}, Lifetime.LEASE)
            except ValueError as error:
                self._refused += 1
                if value is not None and self._store.get(key) is not None:
                    self._store.write({key: None}, Lifetime.LEASE)
                log.error("{key} was refused by the store: {reason}", key=key, reason=str(error))

    def _tell_synced(self) -> None:
        reason = self._local.unsynced()
        if reason != self.unsynced.value:
            log.info("synced" if reason is None else "not synced: {reason}", reason=reason)
            self.unsynced.publish(reason)
            self._task_cell.publish(Zone(TASKS, self._task_zone.records, reason))

    def _take_entries(self, entries: Mapping[str, Entry], changed: Changed) -> None:
        keys = entries.keys() | self._tasks.keys() | self._nodes.keys() if changed is None else changed
        for key in keys:
            self._decode(key, entries.get(key))
        self._publish(changed)

    def _decode(self, key: str, entry: Entry | None) -> None:
        self._unreadable.discard(key)
        if entry is None:
            self._tasks.pop(key, None)
            self._nodes.pop(key, None)
            return
        try:
            if key.startswith("task/"):
                task, since = decode_task(entry.value)
                self._tasks[key] = Owned(task, entry.owner, entry.created, since)
            elif key.startswith("node/"):
                self._nodes[key] = Owned(decode_node(entry.value), entry.owner, entry.created)
        except PeerError as error:
            # The last readable value would be a lie by now.
            self._tasks.pop(key, None)
            self._nodes.pop(key, None)
            self._unreadable.add(key)
            log.error("{key} of {owner} was unreadable: {reason}", key=key, owner=entry.owner, reason=str(error))

    def _take_snapshot(self) -> Snapshot:
        return Snapshot(MappingProxyType(self._tasks), MappingProxyType(self._nodes), self._membership.members.value)

    def _publish(self, changed: Changed) -> None:
        snapshot = self._take_snapshot()
        self.vips.publish(self._table.vips, self._table.update(snapshot, changed))
        reason = self.unsynced.value
        names = self._task_zone.update(snapshot, changed)
        self._task_cell.publish(Zone(TASKS, self._task_zone.records, reason), names)
        for fold in self._folds:
            fold.update(snapshot, changed)
        self.snapshot.publish(snapshot, changed)

    def collect(self) -> Iterable[Metric]:
        """What the views hold."""
        yield Metric("dcosnet_views_tasks", "Tasks known.", "gauge", [Sample(len(self._tasks))])
        yield Metric("dcosnet_views_nodes", "Nodes known.", "gauge", [Sample(len(self._nodes))])
        yield Metric("dcosnet_views_vips", "VIPs with at least one backend.", "gauge", [Sample(len(self._table.vips))])
        yield Metric(
            "dcosnet_views_unreadable_entries",
            "Entries that could not be decoded.",
            "gauge",
            [Sample(len(self._unreadable))],
        )
        yield Metric(
            "dcosnet_views_refused_writes_total", "Keys that the store refused.", "counter", [Sample(self._refused)]
        )
