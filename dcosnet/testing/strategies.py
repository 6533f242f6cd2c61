"""
Hypothesis strategies for the values of `dcosnet.model`.

They make what may really arrive: texts that people type into labels, both
address families, tasks with and without addresses of their own. What a value's
constructor refuses is not made; what a fold has to refuse is.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import strategies as st

from dcosnet.model.addressing import AddressRange
from dcosnet.model.drain import (
    Drain,
    DrainedBackend,
    DrainedHost,
    DrainedService,
    DrainedTask,
    Left,
    Progress,
    key_of,
)
from dcosnet.model.facts import Agent, Facts, Framework, Leader
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Address, Endpoint, Protocol, parse_address, reachable, sort_key
from dcosnet.model.node import Node
from dcosnet.model.provenance import Provenance
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState
from dcosnet.model.vip import Backend, VipKey

# A small world, so that things collide: two tasks of one name, two VIPs of one address.
_FEW_NAMES = ("web", "api.v1", "Web", "/web", "db_1", "-", "télé", "")
_FEW_FRAMEWORKS = ("marathon", "shop", "marathon-user", "dev.marathon")
_FEW_NODES = ("host-a", "host-b", "host-c")


def addresses(version: Literal[4, 6] | None = None) -> st.SearchStrategy[Address]:
    """Any address, of one family when it is given."""
    both: st.SearchStrategy[Address] = st.ip_addresses(v=version)
    return both


vip_addresses = addresses().filter(reachable)
"""Addresses that a VIP may have."""


@st.composite
def ranges(draw: st.DrawFn, longest: int = 1 << 24) -> AddressRange:
    """A range of at most `longest` addresses, of either family."""
    first = draw(addresses())
    last = min(int(first) + draw(st.integers(0, longest - 1)), (1 << first.max_prefixlen) - 1)
    return AddressRange(first, type(first)(last))


ports = st.integers(1, 65535)
"""Port numbers that can be used."""

protocols = st.sampled_from(Protocol)
endpoints = st.builds(Endpoint, addresses(), ports)

names = st.one_of(
    st.sampled_from(_FEW_NAMES),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    st.text("aZ0-_./$ é", max_size=90),
    st.text(max_size=90),
)
"""Names as people write them, to be made labels of: mostly usable, some of punctuation only, some too long."""


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
"""Labels as they stand in a zone."""

vip_names = names.filter(lambda text: any(c.isascii() and c.isalnum() for c in text) and not _is_address(text))
"""Left sides of VIP labels that mean a name."""

vip_labels = st.one_of(
    st.builds("{}:{}".format, vip_names, ports),
    st.builds("{}:{}".format, addresses(), ports),
    st.builds("{}:{}".format, names, st.one_of(st.integers(-1, 1 << 17), st.text("0+- 9٣", max_size=3))),
    names,
)
"""Texts of VIP labels: good ones and all kinds of bad ones."""

stamps = st.builds(Stamp, st.integers(0, 1 << 44), st.integers(0, 1 << 16), st.sampled_from(_FEW_NODES))
frameworks = st.sampled_from(_FEW_FRAMEWORKS)
task_ids = st.builds(
    TaskId, frameworks, st.one_of(st.sampled_from(["t1", "t2", "a/b", "x y"]), st.text(min_size=1, max_size=20))
)
vip_keys = st.one_of(
    st.builds(VipKey, protocols, ports, name=vip_names, framework=frameworks),
    st.builds(VipKey, protocols, ports, address=vip_addresses),
)
backends = st.builds(Backend, addresses(), ports, agent=addresses(), weight=st.integers(0, 3))
task_ports = st.builds(
    Port,
    protocol=protocols,
    port=st.none() | ports,
    host_port=st.none() | ports,
    name=st.sampled_from(["default", "http", "dns"]),
    vips=st.lists(vip_labels, max_size=2, unique=True).map(tuple),
)
provenances = st.builds(
    Provenance,
    source=st.sampled_from(["files", "mesos"]),
    reference=st.text(max_size=20),
    observed_at=st.floats(0, 2e9),
)
tasks = st.builds(
    Task,
    id=task_ids,
    name=names,
    framework=frameworks,
    agent=addresses(),
    addresses=st.lists(addresses(), max_size=3, unique=True).map(tuple),
    ports=st.lists(task_ports, max_size=3).map(tuple),
    state=st.sampled_from(TaskState),
    health=st.sampled_from(Health),
    weight=st.integers(0, 3),
    runtime=st.sampled_from(Runtime),
    labels=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    provenance=provenances,
)
"""Whole tasks; their VIP labels may be anything."""

_few_ids = st.sampled_from(["S0", "S1", "a/b"]) | st.text(min_size=1, max_size=10)
scheduler_frameworks = st.builds(
    Framework,
    id=_few_ids,
    name=frameworks,
    pid=st.just("scheduler-1@10.0.0.5:4711"),
    hostname=names,
    active=st.booleans(),
)
agents = st.builds(
    Agent, id=_few_ids, hostname=names, address=st.none() | addresses(), pid=st.just("slave(1)@10.0.0.5:5051")
)
leaders = st.builds(
    Leader,
    master=endpoints,
    masters=st.lists(endpoints, max_size=7, unique_by=str).map(tuple),
    epoch=st.integers(0, 3),
)
facts = st.builds(
    Facts,
    tasks=st.lists(tasks, max_size=5).map(lambda some: {task.id: task for task in some}),
    unsynced=st.lists(st.text(min_size=1, max_size=20), max_size=2).map(tuple),
    frameworks=st.lists(scheduler_frameworks, max_size=2).map(lambda some: {one.id: one for one in some}),
    agents=st.lists(agents, max_size=2).map(lambda some: {one.id: one for one in some}),
    leader=st.none() | leaders,
)
"""Whole facts, of a source that hears the leading master and of one that does not."""
nodes = st.builds(
    Node,
    name=st.sampled_from(_FEW_NODES),
    address=addresses(),
    public_addresses=st.lists(addresses(), max_size=2, unique=True).map(lambda some: tuple(sorted(some, key=sort_key))),
    version=st.just("0.1.0"),
    started_at=st.floats(0, 2e9),
    updated=st.floats(0, 2e9),
    refresh=st.integers(0, 1000),
)
members = st.builds(
    Member,
    name=st.sampled_from(_FEW_NODES),
    addresses=st.lists(addresses(), min_size=1, max_size=2, unique=True).map(tuple),
    state=st.sampled_from(MemberState),
)
_plain_names = names.filter(lambda text: text.isprintable() and text != "" and not _is_address(text))
drainables = st.one_of(
    st.builds(DrainedBackend, endpoints, st.none() | protocols),
    st.builds(DrainedHost, addresses() | st.sampled_from(_FEW_NODES) | _plain_names),
    st.builds(DrainedService, frameworks, _plain_names),
    st.builds(DrainedTask, task_ids),
)
"""What can be drained."""
drains = st.builds(
    Drain,
    what=drainables,
    user=st.sampled_from(["root", ""]),
    since=st.floats(0, 2e9),
    note=st.text(max_size=20),
    on=st.booleans(),
)
progress = st.dictionaries(
    drainables.map(key_of),
    st.builds(
        Progress,
        st.floats(0, 2e9),
        st.dictionaries(st.text(max_size=20), st.builds(Left, st.integers(0, 1 << 40), st.booleans()), max_size=3),
    ),
    max_size=3,
)
"""What a node tells of its drains."""


def _drains_of(some: list[Task], known: list[Member]) -> st.SearchStrategy[Drain]:
    """Drains that concern these tasks, as a person would look them up, or nothing at all."""
    whats = [drainables]
    for task in some:
        ends = [Endpoint(home, port) for home in (task.agent, *task.addresses) for port in _ports_of(task)]
        whats += [st.just(DrainedHost(task.agent)), st.just(DrainedService(task.framework, task.name))]
        whats += [st.just(DrainedTask(task.id))]
        whats += [st.builds(DrainedBackend, st.sampled_from(ends), st.none() | protocols)] if ends else []
    whats += [st.just(DrainedHost(member.name)) for member in known]
    return st.builds(Drain, what=st.one_of(whats), on=st.sampled_from([True, True, False]))


def _ports_of(task: Task) -> list[int]:
    return [number for port in task.ports for number in (port.port, port.host_port) if number is not None]


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """What a store may say: its tasks, nodes, leaders and drains under their own keys, and who is a member."""
    owners = st.sampled_from(_FEW_NODES)
    some, known = draw(st.lists(tasks, max_size=6)), draw(st.lists(members, max_size=3))
    return Snapshot(
        tasks={
            task.id.key: Owned(task, draw(owners), draw(stamps), draw(st.dictionaries(vip_names, stamps, max_size=1)))
            for task in some
        },
        nodes={f"node/{node.name}": Owned(node, node.name, draw(stamps)) for node in draw(st.lists(nodes, max_size=3))},
        members={member.name: member for member in known},
        drains={
            key_of(drain.what): Owned(drain, draw(owners), draw(stamps))
            for drain in draw(st.lists(_drains_of(some, known), max_size=3))
        },
        leaders={
            f"leader/{owner}": Owned(draw(leaders), owner, draw(stamps))
            for owner in draw(st.lists(owners, max_size=2, unique=True))
        },
    )
