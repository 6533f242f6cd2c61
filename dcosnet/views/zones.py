"""
The zones that need no settings: task names, the masters, this node, and the two small ones.

Pure. `l4lb` has its zone with the part that balances, because a VIP's name is
told only once the VIP works.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import cycle
from types import MappingProxyType

from dcosnet.model.cell import Changed
from dcosnet.model.facts import Leader
from dcosnet.model.names import label
from dcosnet.model.net import Address, parse_address, sort_key
from dcosnet.model.node import Node
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.task import Task, TaskState
from dcosnet.model.zone import Record, Zone, address_record, apex_records

TASKS = "dcos.thisdcos.directory"
THIS_NODE = "thisnode.thisdcos.directory"
ZOOKEEPER = "zk"

_KINDS = ("agentip", "containerip", "autoip")
_ENSEMBLE = 5  # names of the ensemble, however many masters there are


def task_addresses(task: Task) -> Mapping[str, tuple[Address, ...]]:
    """What the three kinds of name of a task point to (spec/dns.md 1.3)."""
    mapped = any(port.host_port is not None for port in task.ports)
    return {
        "agentip": (task.agent,),
        "containerip": task.addresses,
        "autoip": (task.agent,) if mapped or not task.addresses else task.addresses,
    }


@lru_cache(4096)  # tasks of one name follow each other
def _kinds(name: str, framework: str) -> tuple[tuple[str, str], ...]:
    """The names of a task by their kind; none when a part of them has nothing usable."""
    left, right = label(name), label(framework)
    return tuple((kind, f"{left}.{right}.{kind}.{TASKS}") for kind in _KINDS) if left and right else ()


class TaskZone:
    """
    The zone of task names; only running tasks have them, healthy or not.

    The leading master (`leader.`) and all masters (`master.`) are in it too; no
    task's name can be theirs, because that has three labels.
    A record that several tasks share stays until the last of them is gone.
    `records` is a live view, the apex included.
    """

    def __init__(self) -> None:
        self._records: dict[str, tuple[Record, ...]] = {TASKS: apex_records()}
        self._of_task: dict[str, Mapping[str, tuple[Address, ...]]] = {}
        self._users: dict[str, dict[str, tuple[Address, ...]]] = {}
        self.records: Mapping[str, tuple[Record, ...]] = MappingProxyType(self._records)

    def update(self, snapshot: Snapshot, changed: Changed) -> frozenset[str]:
        """Take the changed keys; the names that changed."""
        keys: Iterable[str] = (
            self._of_task.keys() | snapshot.tasks.keys()
            if changed is None
            else (key for key in changed if key.startswith("task/"))
        )
        touched: set[str] = set()
        for key in keys:
            touched |= self._take(key, snapshot.tasks.get(key))
        told = {name for name in touched if self._fold(name)}
        if concerns_leader(changed):
            told |= self._take_leader(snapshot.leader)
        return frozenset(told)

    def _take_leader(self, owned: Owned[Leader] | None) -> set[str]:
        leaders = () if owned is None else (owned.value.master.address,)
        names = {f"leader.{TASKS}": leaders, f"master.{TASKS}": masters(owned)}
        return {name for name, found in names.items() if self._put(name, _records(found))}

    def _take(self, key: str, owned: Owned[Task] | None) -> set[str]:
        before = self._of_task.pop(key, {})
        after = {} if owned is None else _names(owned.value)
        if after:
            self._of_task[key] = after
        touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        for name in touched:
            if name in after:
                self._users.setdefault(name, {})[key] = after[name]
            else:
                del self._users[name][key]
        return touched

    def _fold(self, name: str) -> bool:
        users = self._users[name]
        if not users:
            del self._users[name]
        return self._put(name, _records(address for each in users.values() for address in each))

    def _put(self, name: str, records: tuple[Record, ...]) -> bool:
        """Give a name its records; whether that changed anything."""
        if not records:
            return self._records.pop(name, None) is not None
        if self._records.get(name) == records:
            return False
        self._records[name] = records
        return True


class ZooKeeperZone:
    """
    The zone of the ensemble: zk-1.zk to zk-5.zk, the masters in order, round and round.

    Empty but for its apex while no master is known. `records` is a live view.
    """

    def __init__(self) -> None:
        self._records: dict[str, tuple[Record, ...]] = {ZOOKEEPER: apex_records()}
        self.records: Mapping[str, tuple[Record, ...]] = MappingProxyType(self._records)

    def update(self, snapshot: Snapshot, changed: Changed) -> frozenset[str]:
        """Take the changed keys; the names that changed."""
        if not concerns_leader(changed):
            return frozenset()
        named = zip((f"zk-{n}.{ZOOKEEPER}" for n in range(1, _ENSEMBLE + 1)), cycle(masters(snapshot.leader)))
        after = {ZOOKEEPER: apex_records()} | {name: _records((address,)) for name, address in named}
        told = {name for name in self._records.keys() | after.keys() if self._records.get(name) != after.get(name)}
        self._records.clear()
        self._records.update(after)
        return frozenset(told)


def concerns_leader(changed: Changed) -> bool:
    """Whether the changed keys may mean another leader, or other masters."""
    return changed is None or any(key.startswith("leader/") for key in changed)


def masters(owned: Owned[Leader] | None) -> tuple[Address, ...]:
    """The addresses of all masters that are known, in the same order on each node."""
    if owned is None:
        return ()
    return tuple(sorted({one.address for one in (owned.value.master, *owned.value.masters)}, key=sort_key))


def _records(addresses: Iterable[Address]) -> tuple[Record, ...]:
    """One record for each address, in order."""
    # By their numbers: an address takes longer to hash than to be made a record.
    numbered = {sort_key(address): address for address in addresses}
    return tuple(address_record(numbered[number]) for number in sorted(numbered))


def _names(task: Task) -> Mapping[str, tuple[Address, ...]]:
    """The names of a task with their addresses; none when a part of them has nothing usable."""
    if task.state is not TaskState.RUNNING:
        return {}
    found = task_addresses(task)
    return {name: found[kind] for kind, name in _kinds(task.name, task.framework) if found[kind]}


def fixed_zones(node: Node) -> tuple[Zone, ...]:
    """The zones that change only with a restart: `thisnode`, `spartan` and `localhost`."""
    loopback = address_record(parse_address("127.0.0.1"))
    return (
        _zone(
            THIS_NODE,
            {
                THIS_NODE: (address_record(node.address),),
                f"public.{THIS_NODE}": tuple(
                    address_record(address) for address in sorted(set(node.public_addresses), key=sort_key)
                ),
            },
        ),
        _zone(
            "spartan",
            # What resolv.conf checks and watchdogs of DC/OS ask for.
            {"ready.spartan": (loopback,), "ns.spartan": (address_record(parse_address("198.51.100.1")),)},
        ),
        _zone("localhost", {"localhost": (loopback,)}),
    )


def _zone(apex: str, names: Mapping[str, tuple[Record, ...]]) -> Zone:
    records = {name: found for name, found in names.items() if found}
    records[apex] = apex_records() + records.get(apex, ())
    return Zone(apex, MappingProxyType(records))
