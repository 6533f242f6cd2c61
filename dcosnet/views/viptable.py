"""
The VIP table: which backends stand behind each VIP.

A pure fold of tasks, members and drains. It gives no addresses to names; that is the
business of the part that balances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType

import attrs

from dcosnet.model.cell import Changed
from dcosnet.model.drain import PREFIX, DrainedBackend, DrainedService, DrainedTask
from dcosnet.model.member import MemberState
from dcosnet.model.net import Address, Endpoint, Protocol, sort_key
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskState
from dcosnet.model.vip import Backend, Vip, VipKey
from dcosnet.model.viplabels import parse
from dcosnet.views.drained import DrainIndex

# What stamps are ordered by, many times quicker than comparing them.
_AGE = attrgetter("milliseconds", "counter", "node")
_ACTIVE = (TaskState.RUNNING, TaskState.KILLING)
_GONE = (MemberState.UNREACHABLE, MemberState.DEAD)


@lru_cache(4096)
def _vip(text: str, protocol: Protocol, framework: str) -> tuple[VipKey, str]:
    """The VIP that a label means, and what it is called here. Raises ValueError."""
    key = parse(text).key(protocol, framework)
    return key, str(key)


def backends(task: Task) -> Iterable[tuple[VipKey, str, Backend]]:
    """
    What a task puts behind which VIPs, each with its text (spec/l4lb_overlay.md 1.7 and 1.8).

    A label that cannot be read is left out; who shows tasks shows the reason.
    """
    if task.state not in _ACTIVE:
        return
    for port in task.ports:
        for text in port.vips:
            try:
                key, name = _vip(text, port.protocol, task.framework)
            except ValueError:
                continue
            for backend in _reached_by(task, port):
                if key.address is None or key.address.version == backend.address.version:
                    yield key, name, backend


def _reached_by(task: Task, port: Port) -> Iterable[Backend]:
    weight = task.serving_weight
    if port.host_port is not None:
        yield Backend(task.agent, port.host_port, task.agent, weight)
    elif port.port is not None:
        for address in task.addresses:
            yield Backend(address, port.port, task.agent, weight)


class VipTable:
    """
    The table with its indices; `vips` is a live view by str(VipKey).

    A backend of an unreachable or dead member is left out, unless that would
    leave the VIP with none: then the verdict is more likely wrong than all of
    them gone. A host counts as reachable if no verdict speaks of it: no member
    has its address, or one has left, which says nothing of the host. A member
    that is alive speaks for an address that it shares with one that is gone.

    What an operator drains has weight zero, also where that leaves a VIP with
    nothing else: unlike a verdict, it was meant. It is not left out for being
    unreachable. `drained` is a live view of the backends concerned, by VIP and
    endpoint, with the keys of their drains; one that a task beside the drained
    one stands behind as well keeps its weight.
    """

    def __init__(self) -> None:
        self._vips: dict[str, Vip] = {}
        self._keys: dict[str, VipKey] = {}
        self._named: dict[tuple[str | None, str | None], set[str]] = {}
        # Of each task its agent, and its VIPs. A dict of nothing but texts the
        # garbage collector would not track, and with each change begin anew to.
        self._of_task: dict[str, tuple[Address, tuple[str, ...]]] = {}
        self._behind: dict[str, dict[str, tuple[tuple[Backend, ...], Stamp]]] = {}
        self._agents: dict[Address, set[str]] = {}
        self._unreachable: frozenset[Address] = frozenset()
        self._drains = DrainIndex()
        # By VIP and task, of those tasks only that are drained.
        self._draining: dict[str, dict[str, dict[Endpoint, tuple[str, ...]]]] = {}
        self._drained: dict[str, Mapping[Endpoint, tuple[str, ...]]] = {}
        self.drained: Mapping[str, Mapping[Endpoint, tuple[str, ...]]] = MappingProxyType(self._drained)
        self.drained_changed: frozenset[str] = frozenset()
        """The VIPs of which `drained` was changed by the last update."""
        self.vips: Mapping[str, Vip] = MappingProxyType(self._vips)

    def update(self, snapshot: Snapshot, changed: Changed) -> frozenset[str]:
        """Take the changed keys; the VIPs that changed."""
        touched: set[str] = set()
        if changed is None:
            tasks = self._of_task.keys() | snapshot.tasks.keys()
            members = drains = True
        else:
            tasks = {key for key in changed if key.startswith("task/")}
            members = any(key.startswith("member/") for key in changed)
            drains = any(key.startswith(PREFIX) for key in changed)
        if members:
            touched |= self._take_members(snapshot)
        if drains or (members and self._drains):
            tasks |= self._take_drains(snapshot, changed)
        for key in tasks:
            touched |= self._take_task(key, snapshot.tasks.get(key))
        drained = {name: self._drained.get(name) for name in touched}
        moved = frozenset(name for name in touched if self._fold(name))
        self.drained_changed = frozenset(name for name in touched if self._drained.get(name) != drained[name])
        return moved

    def since(self, name: str, framework: str) -> Stamp | None:
        """When a VIP name was first used; None where it is not in use."""
        vips = [self._vips[vip] for vip in self._named.get((name, framework), ()) if vip in self._vips]
        stamps = [vip.since for vip in vips if vip.since is not None]
        return min(stamps, key=_AGE) if stamps else None

    def behind(self, agents: Iterable[Address]) -> Mapping[str, set[Endpoint]]:
        """Of these hosts the backends, by VIP, whether they are among its `backends` or left out."""
        out: dict[str, set[Endpoint]] = {}
        for agent in agents:
            for key in self._agents.get(agent, ()):
                for name in self._of_task[key][1]:
                    out.setdefault(name, set()).update(each.endpoint for each in self._behind[name][key][0])
        return out

    @property
    def unreachable(self) -> frozenset[Address]:
        """Hosts of which a verdict says that they are gone."""
        return self._unreachable

    def _take_members(self, snapshot: Snapshot) -> set[str]:
        members = snapshot.members.values()
        alive = {address for one in members if one.state is MemberState.ALIVE for address in one.addresses}
        gone = {address for one in members if one.state in _GONE for address in one.addresses}
        unreachable = frozenset(gone - alive)
        moved, self._unreachable = unreachable ^ self._unreachable, unreachable
        return {name for address in moved for key in self._agents.get(address, ()) for name in self._of_task[key][1]}

    def _take_drains(self, snapshot: Snapshot, changed: Changed) -> set[str]:
        """The tasks that drains which came or went concern."""
        hosts, others = self._drains.update(snapshot, changed)
        if changed is None:
            return set()  # all are taken anew
        tasks = {key for address in hosts for key in self._agents.get(address, ())}
        tasks |= {what.id.key for what in others if isinstance(what, DrainedTask)} & self._of_task.keys()
        # These are looked for, not indexed: some tens of milliseconds among 50 000 tasks, when a person
        # drains one; an index would cost with each change of a task.
        if services := {(what.group, what.name) for what in others if isinstance(what, DrainedService)}:
            tasks |= {
                key
                for key in self._of_task
                if (one := snapshot.tasks.get(key)) is not None and (one.value.framework, one.value.name) in services
            }
        if ends := {what.endpoint for what in others if isinstance(what, DrainedBackend)}:
            ports = {end.port for end in ends}
            tasks |= {
                key
                for behind in self._behind.values()
                for key, (found, _) in behind.items()
                if any(backend.port in ports and backend.endpoint in ends for backend in found)
            }
        return tasks

    def _take_task(self, key: str, owned: Owned[Task] | None) -> set[str]:
        touched = self._drop_task(key)
        if owned is None:
            return touched
        behind: dict[str, list[Backend]] = {}
        stamps: dict[str, Stamp] = {}
        whole = self._drains.of_task(owned.value) if self._drains else ()
        for vip, name, found in backends(owned.value):
            backend = found
            if self._drains and (drains := whole + self._drains.of_backend(vip.protocol, found.endpoint)):
                backend = attrs.evolve(found, weight=0)
                self._draining.setdefault(name, {}).setdefault(key, {})[found.endpoint] = drains
            if name not in self._keys:
                self._keys[name] = vip
                self._named.setdefault((vip.name, vip.framework), set()).add(name)
            behind.setdefault(name, []).append(backend)
            stamps[name] = owned.created if vip.name is None else owned.since.get(vip.name, owned.created)
        if behind:
            self._of_task[key] = (owned.value.agent, tuple(behind))
            self._agents.setdefault(owned.value.agent, set()).add(key)
        for name, those in behind.items():
            self._behind.setdefault(name, {})[key] = (tuple(those), stamps[name])
        return touched | behind.keys()

    def _drop_task(self, key: str) -> set[str]:
        """Take a task from all its VIPs; which they are."""
        if key not in self._of_task:
            return set()
        agent, names = self._of_task.pop(key)
        for name in names:
            del self._behind[name][key]
            if name in self._draining:
                self._draining[name].pop(key, None)
        self._agents[agent].discard(key)
        if not self._agents[agent]:
            del self._agents[agent]
        return set(names)

    def _fold(self, name: str) -> bool:
        """Make one VIP anew; whether it changed."""
        behind = self._behind.get(name)
        if not behind:
            self._forget(name)
            return self._vips.pop(name, None) is not None
        key = self._keys[name]
        best: dict[tuple[tuple[int, int], int], Backend] = {}
        for found, _ in behind.values():
            for backend in found:
                place = (sort_key(backend.address), backend.port)
                held = best.get(place)
                if held is None or (backend.weight, -int(backend.agent)) > (held.weight, -int(held.agent)):
                    best[place] = backend
        ordered = [best[place] for place in sorted(best)]
        drained = self._fold_drained(name)
        if self._unreachable:
            reachable = [each for each in ordered if each.agent not in self._unreachable]
            # What is drained gets nothing new in any case; here its flows are counted to the end.
            kept = [each for each in ordered if each in reachable or (each.draining and each.endpoint in drained)]
            ordered = kept if reachable else ordered
        since = None if key.name is None else min((stamp for _, stamp in behind.values()), key=_AGE)
        vip = Vip(key, tuple(ordered), since)
        if self._vips.get(name) == vip:
            return False
        self._vips[name] = vip
        return True

    def _fold_drained(self, name: str) -> Mapping[Endpoint, tuple[str, ...]]:
        """Make what is drained of one VIP anew; gives it."""
        self._drained.pop(name, None)
        tasks = self._draining.get(name)
        if not tasks:
            self._draining.pop(name, None)
            return {}
        found: dict[Endpoint, set[str]] = {}
        for drained in tasks.values():
            for endpoint, keys in drained.items():
                found.setdefault(endpoint, set()).update(keys)
        self._drained[name] = {endpoint: tuple(sorted(found[endpoint])) for endpoint in sorted(found, key=str)}
        return self._drained[name]

    def _forget(self, name: str) -> None:
        self._behind.pop(name, None)
        self._draining.pop(name, None)
        self._drained.pop(name, None)
        key = self._keys.pop(name, None)
        if key is not None:
            users = self._named[key.name, key.framework]
            users.discard(name)
            if not users:
                del self._named[key.name, key.framework]
