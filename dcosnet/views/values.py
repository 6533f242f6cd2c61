"""
Values of the store in MessagePack, and back.

Positional, so that a node may append fields and an older one ignores them. An
entry that cannot be read is a PeerError: it spoils only itself.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from dcosnet.errors import PeerError
from dcosnet.model.net import Protocol, check_port, parse_address
from dcosnet.model.node import Node
from dcosnet.model.provenance import Provenance
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState

W = TypeVar("W")


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
    started_at: float


_encoder = msgspec.msgpack.Encoder()
_tasks = msgspec.msgpack.Decoder(_Task)
_nodes = msgspec.msgpack.Decoder(_Node)


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
            parse_address(wire.agent),
            tuple(map(parse_address, wire.addresses)),
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
        _Node(node.name, str(node.address), tuple(map(str, node.public_addresses)), node.version, node.started_at)
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
        )
    except ValueError as error:
        raise PeerError(f"a node of the store cannot be used: {error}") from error


def _decode(decoder: msgspec.msgpack.Decoder[W], value: bytes) -> W:
    try:
        return decoder.decode(value)
    except msgspec.DecodeError as error:
        raise PeerError(f"an entry of the store cannot be read: {error}") from error


def _port(port: int | None) -> int | None:
    return None if port is None else check_port(port)
