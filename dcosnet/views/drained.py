"""
Which drains concern a task or a backend.

Pure. Nodes are known by name, tasks by the address of their agent, so a host
that is drained by its name is looked up among the members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dcosnet.model.cell import Changed
from dcosnet.model.drain import PREFIX, Drainable, DrainedBackend, DrainedHost, DrainedService, DrainedTask
from dcosnet.model.member import Member
from dcosnet.model.net import Address, Endpoint, Protocol
from dcosnet.model.snapshot import Snapshot
from dcosnet.model.task import Task, TaskId

_Keys = tuple[str, ...]
"""Keys of drains, sorted."""


class DrainIndex:
    """
    The drains that are on, by what they drain.

    False while there are none. Most of the time there are none, or a few.
    """

    def __init__(self) -> None:
        self._on: dict[str, Drainable] = {}
        self._hosts: dict[Address, _Keys] = {}
        self._named: dict[TaskId | tuple[str, str], str] = {}
        """By id of a task, and by group and name of a service."""
        self._places: dict[Endpoint, list[tuple[Protocol | None, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._on)

    def update(self, snapshot: Snapshot, changed: Changed) -> tuple[set[Address], list[Drainable]]:
        """Take the changed keys; the hosts and what else is concerned now, or was."""
        keys = self._on.keys() | snapshot.drains.keys() if changed is None else changed
        moved = [what for key in keys if key.startswith(PREFIX) for what in self._take(key, snapshot)]
        if moved:
            self._arrange()
        hosts = self._hosts
        self._hosts = self._find_hosts(snapshot.members)
        addresses = {
            address for address in hosts.keys() | self._hosts.keys() if hosts.get(address) != self._hosts.get(address)
        }
        return addresses, [what for what in moved if not isinstance(what, DrainedHost)]

    def of_task(self, task: Task) -> _Keys:
        """The drains of a task as a whole."""
        named = (self._named.get(task.id), self._named.get((task.framework, task.name)))
        return tuple(sorted([*self._hosts.get(task.agent, ()), *(key for key in named if key is not None)]))

    def of_backend(self, protocol: Protocol, endpoint: Endpoint) -> _Keys:
        """The drains of this backend, whoever is behind it."""
        return tuple(sorted(key for only, key in self._places.get(endpoint, ()) if only in (None, protocol)))

    def _arrange(self) -> None:
        self._named, self._places = {}, {}
        for key, what in self._on.items():
            if isinstance(what, DrainedBackend):
                self._places.setdefault(what.endpoint, []).append((what.protocol, key))
            elif isinstance(what, DrainedTask):
                self._named[what.id] = key
            elif isinstance(what, DrainedService):
                self._named[what.group, what.name] = key

    def _take(self, key: str, snapshot: Snapshot) -> Iterable[Drainable]:
        owned = snapshot.drains.get(key)
        now = owned.value.what if owned is not None and owned.value.on else None
        before = self._on.pop(key, None)
        if now is not None:
            self._on[key] = now
        return [] if now == before else [what for what in (before, now) if what is not None]

    def _find_hosts(self, members: Mapping[str, Member]) -> dict[Address, _Keys]:
        found: dict[Address, list[str]] = {}
        for key, what in self._on.items():
            if isinstance(what, DrainedHost):
                for address in _addresses(what, members):
                    found.setdefault(address, []).append(key)
        return {address: tuple(sorted(keys)) for address, keys in found.items()}


def _addresses(what: DrainedHost, members: Mapping[str, Member]) -> Iterable[Address]:
    if not isinstance(what.host, str):
        return (what.host,)
    member = members.get(what.host)
    return () if member is None else member.addresses
