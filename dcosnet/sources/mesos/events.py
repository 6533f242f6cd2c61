"""
What the operator API tells, folded into facts.

Pure: time is an argument. One event costs its own tasks, whatever the number of
all; a snapshot is taken in steps. Who connects, looks up host names and tells
the facts is in `service` and `agent`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import attrs
import msgspec

from dcosnet.model.facts import Agent, Facts, Problem
from dcosnet.model.net import Address
from dcosnet.model.task import TaskId
from dcosnet.sources.mesos.pieces import LIMIT, Opened, pieces
from dcosnet.sources.mesos.recordio import ProtocolError
from dcosnet.sources.mesos.state import (
    Unreadable,
    read_agent,
    read_framework,
    read_id,
    read_task,
    read_update,
    updated_task,
)
from dcosnet.sources.mesos.table import TaskTable
from dcosnet.sources.services import clip

HEARTBEAT = 15.0
"""Seconds between heartbeats until SUBSCRIBED tells; what Mesos does unless told otherwise."""

AGENTS_READY = 600.0
TASKS_READY = 10.0
"""The longest waits for recovered agents and for tasks after them, in seconds; dcos-net's (spec/dns.md 2.8)."""

_BATCH = 16  # tasks per step: about a millisecond
_SNAPSHOT = re.compile(rb'\s*\{\s*(?:"type"\s*:\s*"SUBSCRIBED"|"subscribed"\s*:)')
_SNAPSHOT_DEPTH = 5  # subscribed, get_state, get_tasks, tasks: the elements of the last
_STATE = ("get_tasks", "get_agents", "get_frameworks")
"""What a master's state always has, if only as an empty object; one that lacks any of it is not the cluster's."""
_UNSYNCED_SHOWN = 10


class Phase(StrEnum):
    """How far a subscription is; facts may be told from SERVE on (D28)."""

    INIT = "init"
    AWAIT_AGENTS = "await_agents"
    AWAIT_TASKS = "await_tasks"
    SERVE = "serve"


class _Fold:
    """What both folds have."""

    def __init__(self, source: str) -> None:
        self._table = TaskTable(source)

    @property
    def rejected(self) -> Mapping[str, int]:
        """What could not be used, by what was lost: document, event, task, agent, framework, field."""
        return self._table.rejected

    def refuse(self) -> None:
        """Count a document that was of no use as a whole; whoever took it tells why."""
        self._table.rejected["document"] += 1

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong now, the first thousand; those of a task have its key as reference."""
        return self._table.problems

    @property
    def problem_count(self) -> int:
        """How many problems there are now. Costs a walk over them."""
        return self._table.problem_count

    @property
    def waiting(self) -> frozenset[TaskId]:
        """Tasks held back because their framework, or their agent's address, is not known."""
        return frozenset(self._table.waiting)

    def unresolved(self) -> frozenset[str]:
        """Host names of agents that need a look-up, or another one after a failure."""
        return self._table.unresolved()


class MasterFold(_Fold):
    """
    A master's event stream. A SUBSCRIBED empties it first.

    Until `phase` is SERVE the facts are not whole: tell what was told last.
    `heartbeat_interval` is in seconds. `events` counts records by type, unknown
    ones as "other".
    """

    def __init__(self, source: str = "mesos") -> None:
        super().__init__(source)
        self._pending: dict[str, str] = {}
        self._deadline: float | None = None
        self._settle = False
        self._kind: object = None
        self._opened: set[tuple[str, ...]] = set()
        self.phase = Phase.INIT
        self.heartbeat_interval = HEARTBEAT
        self._take: dict[str, Callable[[Any, float], Iterator[None]]] = {
            "HEARTBEAT": _nothing,
            "TASK_ADDED": self._task_added,
            "TASK_UPDATED": self._task_updated,
            "FRAMEWORK_ADDED": self._framework_told,
            "FRAMEWORK_UPDATED": self._framework_told,
            "FRAMEWORK_REMOVED": self._framework_removed,
            "AGENT_ADDED": self._agent_added,
            "AGENT_REMOVED": self._agent_removed,
        }
        self.events: dict[str, int] = dict.fromkeys(("SUBSCRIBED", *self._take, "other"), 0)

    @property
    def pending(self) -> frozenset[str]:
        """Agents that the master remembers and that have not registered again."""
        return frozenset(self._pending)

    def apply(self, record: bytes | bytearray | Mapping[str, Any], now: float) -> None:
        """
        Take one record.

        Raises ProtocolError when it is not a JSON object, or a snapshot without
        a whole state; the fold is then of no use any more. Anything less costs
        only itself, and becomes a problem.
        """
        _run(self.steps(record, now))

    def steps(self, record: bytes | bytearray | Mapping[str, Any], now: float) -> Iterator[None]:
        """
        `apply` in steps of about a millisecond.

        Take no other record, and tell no facts, before it is exhausted.
        """
        if not isinstance(record, Mapping) and (len(record) > LIMIT or _SNAPSHOT.match(record)):
            yield from self._snapshot(record, now)
            return
        event = _decoded(record)
        kind = event.get("type")
        if kind == "SUBSCRIBED":
            yield from self._snapshot(msgspec.json.encode(event), now)
            return
        take = self._take.get(kind) if isinstance(kind, str) else None
        if take is None:
            self.events["other"] += 1
            self._table.remark("event", "event stream", f"events of type {clip(kind)} are unknown")
            return
        self.events[str(kind)] += 1
        try:
            yield from _batched(take(event.get(str(kind).lower()), now))
        except Unreadable as error:
            self._table.remark("event", f"event {kind}", str(error))
        self._advance(now)

    def facts(self) -> Facts:
        """All that is known; `changed` since the last call, which gave the same object if nothing did."""
        return self._table.facts(self._unsynced())

    def due(self) -> float | None:
        """When to call `tick`; None while only records can move it on."""
        return self._deadline

    def tick(self, now: float) -> None:
        """Give up on what was waited for long enough."""
        self._advance(now)

    def resolved(self, hostname: str, address: Address | None, now: float) -> None:
        """What a look-up gave; None where it failed: then the agent's pid is used (D21)."""
        _run(self._table.resolved(hostname, address, now))
        self._advance(now)

    # the start phases

    def _advance(self, now: float) -> None:
        overdue = self._deadline is not None and now >= self._deadline
        if self.phase is Phase.AWAIT_AGENTS and (overdue or not self._pending):
            # The agents' tasks come after them, so they are given their time.
            self.phase, self._deadline, self._settle = Phase.AWAIT_TASKS, now + TASKS_READY, True
        elif self.phase is Phase.AWAIT_TASKS and (overdue or not (self._settle or self._table.waiting)):
            self.phase, self._deadline = Phase.SERVE, None

    def _unsynced(self) -> tuple[str, ...]:
        if self.phase is Phase.INIT:
            return ("the master has not told its state yet",)
        if self.phase is Phase.AWAIT_AGENTS:
            shown = [f"agent {name} has not registered again yet" for name in list(self._pending.values())]
            more = len(shown) - _UNSYNCED_SHOWN
            return (*shown[:_UNSYNCED_SHOWN], *([f"and {more} more"] if more > 0 else ()))
        if self.phase is Phase.AWAIT_TASKS:
            return ("the agents' tasks may not all be told yet",)
        return ()

    # records

    def _snapshot(self, record: bytes | bytearray, now: float) -> Iterator[None]:
        self.events["SUBSCRIBED"] += 1
        self._table.clear()
        self._pending.clear()
        self.phase, self._deadline, self._settle = Phase.INIT, None, False
        self._kind = None
        self._opened.clear()
        yield from _batched(self._take_snapshot(record, now))
        if self._kind != "SUBSCRIBED":
            raise ProtocolError(f"a record of {len(record)} bytes is no SUBSCRIBED but {clip(self._kind)}")
        for key in _STATE:
            if ("subscribed", "get_state", key) not in self._opened:
                raise ProtocolError(f"the state that the master tells has no {key}")
        if self._pending:
            self.phase, self._deadline = Phase.AWAIT_AGENTS, now + AGENTS_READY
        else:
            self.phase, self._deadline = Phase.AWAIT_TASKS, now + TASKS_READY
            self._advance(now)

    def _take_snapshot(self, record: bytes | bytearray, now: float) -> Iterator[None]:
        readers: dict[tuple[str, ...], tuple[str, Callable[[Any, float], Iterator[None]]]] = {
            ("get_tasks", "tasks"): ("task", self._task),
            ("get_agents", "agents"): ("agent", self._agent),
            ("get_agents", "recovered_agents"): ("agent", self._recovered),
            ("get_frameworks", "frameworks"): ("framework", self._framework),
        }
        for path, value in pieces(record, _SNAPSHOT_DEPTH):
            if path[:2] == ("subscribed", "get_state") and path[2:] in readers:
                if value is Opened.LIST:
                    self._opened.add(path)
                    continue
                if path not in self._opened:
                    raise ProtocolError(f"the state that the master tells has {path[-1]} that are no list")
                kind, read = readers[path[2:]]
                try:
                    yield from read(value, now)
                except Unreadable as error:
                    self._table.remark(kind, f"a {kind} of the snapshot", str(error))
            elif path == ("subscribed", "heartbeat_interval_seconds"):
                self._heartbeat(value)
            elif path == ("type",):
                self._kind = value
            elif value is Opened.OBJECT:
                self._opened.add(path)
            yield

    def _heartbeat(self, value: object) -> None:
        if isinstance(value, int | float) and 0 < value <= AGENTS_READY:
            self.heartbeat_interval = float(value)
        else:
            self._table.remark("field", "heartbeat_interval_seconds", f"{clip(value)} is no interval")

    def _recovered(self, document: Any, _now: float) -> Iterator[None]:
        # The list holds what `agent_info` holds elsewhere.
        agent = read_agent({"agent_info": document})
        if agent.id not in self._table.agents:
            self._pending[agent.id] = agent.hostname or agent.id
        yield from ()

    def _task(self, document: Any, now: float) -> Iterator[None]:
        self._table.put(read_task(document, self._table.described), now)
        yield from ()

    def _agent(self, document: Any, now: float) -> Iterator[None]:
        agent = read_agent(document)
        self._pending.pop(agent.id, None)
        yield from self._table.put_agent(agent, now)

    def _framework(self, document: Any, now: float) -> Iterator[None]:
        return self._table.put_framework(read_framework(document), now)

    def _task_added(self, content: Any, now: float) -> Iterator[None]:
        return self._task(_inner(content, "task"), now)

    def _agent_added(self, content: Any, now: float) -> Iterator[None]:
        return self._agent(_inner(content, "agent"), now)

    def _framework_told(self, content: Any, now: float) -> Iterator[None]:
        return self._framework(_inner(content, "framework"), now)

    def _agent_removed(self, content: Any, _now: float) -> Iterator[None]:
        id_ = read_id(content, "agent_id")
        self._pending.pop(id_, None)
        self._table.drop_agent(id_)
        yield from ()

    def _framework_removed(self, content: Any, _now: float) -> Iterator[None]:
        self._table.drop_framework(read_id(_inner(content, "framework_info"), "id"))
        yield from ()

    def _task_updated(self, content: Any, now: float) -> Iterator[None]:
        # A task that ended, or was told of as ended, still gets updates.
        before = self._table.described(updated_task(content))
        if before is not None:
            self._table.put(read_update(content, before), now)
        yield from ()


class AgentFold(_Fold):
    """The state of one agent, polled whole."""

    def __init__(self, source: str = "mesos") -> None:
        super().__init__(source)
        self._agent: str | None = None
        self._whole = self._own = Facts()

    def take(self, state: bytes | Mapping[str, Any], agent: bytes | Mapping[str, Any], now: float) -> bool:
        """
        The answers to GET_STATE and GET_AGENT; False while the agent has no id.

        An agent that no master has accepted yet has none. Raises ProtocolError
        when an answer is unusable. In both cases nothing changes.
        """
        try:
            told = _inner(_decoded(agent), "get_agent")
            answer = _inner(_decoded(state), "get_state")
            if _inner(told, "agent_info").get("id") is None:
                return False
            own = read_agent(told)
            tasks = _inner(answer, "get_tasks")
            launched = [*_list(tasks, "launched_tasks"), *_list(tasks, "tasks")]
            frameworks = _list(_inner(answer, "get_frameworks"), "frameworks")
        except Unreadable as error:
            raise ProtocolError(f"the agent's answer cannot be used: {error}") from None
        self._take_agent(own, now)
        self._take_frameworks(frameworks, now)
        self._take_tasks(launched, now)
        return True

    def facts(self) -> Facts:
        """
        The agent's tasks; `changed` since the last call, which gave the same object if nothing did.

        Agents and frameworks are left out: the leading master tells of them.
        """
        whole = self._table.facts(self._unsynced())
        if whole is not self._whole:
            self._whole, self._own = whole, attrs.evolve(whole, agents={}, frameworks={})
        return self._own

    def resolved(self, hostname: str, address: Address | None, now: float) -> None:
        """What a look-up gave; None where it failed: then the agent's pid is used (D21)."""
        _run(self._table.resolved(hostname, address, now))

    def _unsynced(self) -> tuple[str, ...]:
        if self._agent is None:
            return ("the agent has not told its state yet",)
        agent = self._table.agents[self._agent]
        return () if agent.address is not None else (f"host name {clip(agent.hostname)} has no address yet",)

    def _take_agent(self, agent: Agent, now: float) -> None:
        if self._agent not in {None, agent.id}:
            self._table.clear()
        self._agent = agent.id
        _run(self._table.put_agent(agent, now))

    def _take_frameworks(self, documents: list[Any], now: float) -> None:
        gone = set(self._table.frameworks)
        for document in documents:
            try:
                framework = read_framework(document)
            except Unreadable as error:
                self._table.remark("framework", "a framework of the agent", str(error))
            else:
                gone.discard(framework.id)
                _run(self._table.put_framework(framework, now))
        for id_ in gone:
            self._table.drop_framework(id_)

    def _take_tasks(self, documents: list[Any], now: float) -> None:
        gone = set(self._table.ids())
        for document in documents:
            try:
                described = read_task(document, self._table.described)
            except Unreadable as error:
                self._table.remark("task", "a task of the agent", str(error))
            else:
                gone.discard(described.id)
                self._table.put(described, now)
        for id_ in gone:
            self._table.drop(id_)


def _decoded(record: bytes | bytearray | Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON object. Raises ProtocolError."""
    if isinstance(record, Mapping):
        return record
    try:
        value = msgspec.json.decode(record)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"a JSON object was expected, not {clip(value)}")
    return value


def _inner(content: object, key: str) -> Any:
    """The object under a key. Raises Unreadable."""
    value = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(value, dict):
        raise Unreadable(f"it has no {key}")
    return value


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; JSON made of protobuf leaves out an empty one. Raises Unreadable."""
    value = content.get(key, [])
    if not isinstance(value, list):
        raise Unreadable(f"{key} {clip(value)} is no list")
    return value


def _nothing(_content: Any, _now: float) -> Iterator[None]:
    return iter(())


def _run(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def _batched(steps: Iterator[None]) -> Iterator[None]:
    """Every so many steps as one."""
    for number, _ in enumerate(steps, 1):
        if number % _BATCH == 0:
            yield
