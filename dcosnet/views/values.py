"""
Values of the store in MessagePack, and back.

Positional, so that a node may append fields and an older one ignores them. An
entry that cannot be read is a PeerError: it spoils only itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, TypeVar

import msgspec

from dcosnet.errors import PeerError
from dcosnet.model.drain import PREFIX, Drain, Left, Progress, key_of, parse_drainable
from dcosnet.model.facts import Agent, Framework, Leader
from dcosnet.model.net import Endpoint, Protocol, check_port, parse_address
from dcosnet.model.node import Node
from dcosnet.model.provenance import Provenance
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState

W = TypeVar("W")


REFRESH_MAX = 2**53
"""More refreshes than there will be, and a number that any decoder can hold."""


_Time = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]
"""Seconds since the epoch, up to the year 9999: what can be shown."""


class _Port(msgspec.Struct, array_like=True, frozen=True):
    protocol: Protocol
    port: int | None
    host_port: int | None
    name: str
    vips: tuple[str, ...]


class _Task(msgspec.Struct, array_like=True, frozen=True):
    framework_id: str
    task_id: str
    name: str
    framework: str
    agent: str
    addresses: tuple[str, ...]
    ports: tuple[_Port, ...]
    state: TaskState
    health: Health
    weight: int
    runtime: Runtime
    labels: dict[str, str]
    source: str
    reference: str
    since: dict[str, tuple[int, int, str]]


class _Node(msgspec.Struct, array_like=True, frozen=True):
    name: str
    address: str
    public_addresses: tuple[str, ...]
    version: str
    started_at: _Time
    updated: _Time = 0.0
    refresh: int = 0


class _Framework(msgspec.Struct, array_like=True, frozen=True):
    id: str
    name: str
    pid: str
    hostname: str
    active: bool


class _Agent(msgspec.Struct, array_like=True, frozen=True):
    id: str
    hostname: str
    address: str | None
    pid: str


class _Leader(msgspec.Struct, array_like=True, frozen=True):
    master: tuple[str, int]
    masters: tuple[tuple[str, int], ...]
    epoch: int


class _Drain(msgspec.Struct, array_like=True, frozen=True):
    on: bool
    user: str
    since: _Time
    note: str


class _Left(msgspec.Struct, array_like=True, frozen=True):
    flows: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    taking: bool


class _Progress(msgspec.Struct, array_like=True, frozen=True):
    since: _Time
    left: dict[str, _Left]


# One object for the agent of many tasks: decoded sooner, and held once.
_address = lru_cache(4096)(parse_address)
_encoder = msgspec.msgpack.Encoder()
_tasks = msgspec.msgpack.Decoder(_Task)
_nodes = msgspec.msgpack.Decoder(_Node)
_frameworks = msgspec.msgpack.Decoder(_Framework)
_agents = msgspec.msgpack.Decoder(_Agent)
_leaders = msgspec.msgpack.Decoder(_Leader)
_drains = msgspec.msgpack.Decoder(_Drain)
_progress = msgspec.msgpack.Decoder(dict[str, _Progress])
_refreshes = msgspec.msgpack.Decoder(Annotated[int, msgspec.Meta(ge=0, le=REFRESH_MAX)])


def encode_task(task: Task, since: dict[str, Stamp]) -> bytes:
    """A task, with the creation stamps that its VIP names inherit (by label name)."""
    return _encoder.encode(
        _Task(
            task.id.framework,
            task.id.task,
            task.name,
            task.framework,
            str(task.agent),
            tuple(map(str, task.addresses)),
            tuple(_Port(p.protocol, p.port, p.host_port, p.name, p.vips) for p in task.ports),
            task.state,
            task.health,
            task.weight,
            task.runtime,
            dict(task.labels),
            task.provenance.source,
            task.provenance.reference,
            {name: (s.milliseconds, s.counter, s.node) for name, s in since.items()},
        )
    )


def decode_task(value: bytes) -> tuple[Task, dict[str, Stamp]]:
    """What `encode_task` was given, without the time of observation. Raises PeerError."""
    wire = _decode(_tasks, value)
    try:
        task = Task(
            TaskId(wire.framework_id, wire.task_id),
            wire.name,
            wire.framework,
            _address(wire.agent),
            tuple(map(_address, wire.addresses)),
            tuple(Port(p.protocol, _port(p.port), _port(p.host_port), p.name, p.vips) for p in wire.ports),
            wire.state,
            wire.health,
            wire.weight,
            wire.runtime,
            wire.labels,
            Provenance(wire.source, wire.reference),
        )
    except ValueError as error:
        raise PeerError(f"a task of the store cannot be used: {error}") from error
    return task, {name: Stamp(*stamp) for name, stamp in wire.since.items()}


def encode_node(node: Node) -> bytes:
    """A node."""
    return _encoder.encode(
        _Node(
            node.name,
            str(node.address),
            tuple(map(str, node.public_addresses)),
            node.version,
            node.started_at,
            node.updated,
            node.refresh,
        )
    )


def decode_node(value: bytes) -> Node:
    """What `encode_node` was given. Raises PeerError."""
    wire = _decode(_nodes, value)
    try:
        return Node(
            wire.name,
            parse_address(wire.address),
            tuple(map(parse_address, wire.public_addresses)),
            wire.version,
            wire.started_at,
            wire.updated,
            wire.refresh,
        )
    except ValueError as error:
        raise PeerError(f"a node of the store cannot be used: {error}") from error


def encode_refresh(number: int) -> bytes:
    """The number with which a node asks all to say anew what they are."""
    return _encoder.encode(number)


def decode_refresh(value: bytes) -> int:
    """What `encode_refresh` was given. Raises PeerError."""
    number: int = _decode(_refreshes, value)
    return number


def encode_framework(framework: Framework) -> bytes:
    """A framework."""
    return _encoder.encode(
        _Framework(framework.id, framework.name, framework.pid, framework.hostname, framework.active)
    )


def decode_framework(value: bytes) -> Framework:
    """What `encode_framework` was given. Raises PeerError."""
    wire = _decode(_frameworks, value)
    return Framework(wire.id, wire.name, wire.pid, wire.hostname, wire.active)


def encode_agent(agent: Agent) -> bytes:
    """An agent."""
    address = None if agent.address is None else str(agent.address)
    return _encoder.encode(_Agent(agent.id, agent.hostname, address, agent.pid))


def decode_agent(value: bytes) -> Agent:
    """What `encode_agent` was given. Raises PeerError."""
    wire = _decode(_agents, value)
    try:
        address = None if wire.address is None else parse_address(wire.address)
    except ValueError as error:
        raise PeerError(f"an agent of the store cannot be used: {error}") from error
    return Agent(wire.id, wire.hostname, address, wire.pid)


def encode_leader(leader: Leader) -> bytes:
    """The leading master and the masters that are known."""
    masters = tuple((str(one.address), one.port) for one in leader.masters)
    return _encoder.encode(_Leader((str(leader.master.address), leader.master.port), masters, leader.epoch))


def decode_leader(value: bytes) -> Leader:
    """What `encode_leader` was given. Raises PeerError."""
    wire = _decode(_leaders, value)
    try:
        return Leader(_endpoint(*wire.master), tuple(_endpoint(*one) for one in wire.masters), wire.epoch)
    except ValueError as error:
        raise PeerError(f"a leader of the store cannot be used: {error}") from error


def encode_drain(drain: Drain) -> bytes:
    """A drain, or its end, but for what it drains: that is in its key."""
    return _encoder.encode(_Drain(drain.on, drain.user, drain.since, drain.note))


def decode_drain(key: str, value: bytes) -> Drain:
    """What `encode_drain` was given, for the key of the drain. Raises PeerError."""
    wire = _decode(_drains, value)
    try:
        what = parse_drainable(key.removeprefix(PREFIX))
    except ValueError as error:
        raise PeerError(f"a drain of the store cannot be used: {error}") from error
    if what is None or key_of(what) != key:
        raise PeerError(f"a drain of the store cannot be used: {key[:80]!r} is not written in full")
    return Drain(what, wire.user, wire.since, wire.note, wire.on)


def encode_progress(progress: Mapping[str, Progress]) -> bytes:
    """How far drains have come on a node, by their keys."""
    return _encoder.encode(
        {
            key: _Progress(one.since, {name: _Left(left.flows, left.taking) for name, left in one.left.items()})
            for key, one in progress.items()
        }
    )


def decode_progress(value: bytes) -> Mapping[str, Progress]:
    """What `encode_progress` was given. Raises PeerError."""
    return {
        key: Progress(wire.since, {name: Left(left.flows, left.taking) for name, left in wire.left.items()})
        for key, wire in _decode(_progress, value).items()
    }


def _decode(decoder: msgspec.msgpack.Decoder[W], value: bytes) -> W:
    try:
        return decoder.decode(value)
    except msgspec.DecodeError as error:
        raise PeerError(f"an entry of the store cannot be read: {error}") from error


def _port(port: int | None) -> int | None:
    return None if port is None else check_port(port)


def _endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(parse_address(address), check_port(port))
