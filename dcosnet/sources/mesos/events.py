"""What the operator API tells, folded into facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from dcosnet.model.facts import Facts, Problem
from dcosnet.model.net import Address
from dcosnet.model.task import TaskId


class Phase(StrEnum):
    """How far a subscription is; facts may be told from SERVE on (D28)."""

    INIT = "init"
    AWAIT_AGENTS = "await_agents"
    AWAIT_TASKS = "await_tasks"
    SERVE = "serve"


class MasterFold:
    """
    A master's event stream, folded. A SUBSCRIBED empties it first.

    `phase` below SERVE: keep what was told last. `heartbeat_interval` in
    seconds. `events` counts by type ("other" for unknown ones), `rejected` by
    what was lost: record, event, task, field. `pending` are recovered agents
    not yet back, `waiting` tasks held back for their agent or framework.
    """

    phase: Phase
    heartbeat_interval: float
    events: Mapping[str, int]
    rejected: Mapping[str, int]
    pending: frozenset[str]
    waiting: frozenset[TaskId]
    problems: tuple[Problem, ...]  # at most 100
    problem_count: int

    def __init__(self, source: str = "mesos") -> None: ...

    def apply(self, record: bytes | Mapping[str, Any], now: float) -> None:
        """Take one record. Raises ProtocolError when it is not a JSON object; the fold is then of no use."""
        raise NotImplementedError

    def steps(self, record: bytes | Mapping[str, Any], now: float) -> Iterator[None]:
        """`apply` in steps of about a millisecond; take no other record before it is exhausted."""
        raise NotImplementedError

    def facts(self) -> Facts:
        """All that is known; `changed` since the last call of this, which is the same object if nothing did."""
        raise NotImplementedError

    def due(self) -> float | None:
        """When to call `tick`; None while only records move it on."""
        raise NotImplementedError

    def tick(self, now: float) -> None:
        """Give up on what was waited for long enough."""
        raise NotImplementedError

    def unresolved(self) -> frozenset[str]:
        """Host names of agents that need a look-up, or another one after a failure."""
        raise NotImplementedError

    def resolved(self, hostname: str, address: Address | None, now: float) -> None:
        """What a look-up gave; None where it failed, then the agent's pid is used (D21)."""
        raise NotImplementedError


class AgentFold:
    """The state of one agent, polled whole. Fields as in MasterFold."""

    rejected: Mapping[str, int]
    problems: tuple[Problem, ...]
    problem_count: int

    def __init__(self, source: str = "mesos") -> None: ...

    def take(self, state: bytes | Mapping[str, Any], agent: bytes | Mapping[str, Any], now: float) -> None:
        """The answers to GET_STATE and GET_AGENT. Raises ProtocolError when one is unusable; nothing changes then."""
        raise NotImplementedError

    def facts(self) -> Facts:
        """As MasterFold; `agents` and `frameworks` are empty, since the leading master tells of them."""
        raise NotImplementedError

    def unresolved(self) -> frozenset[str]:
        """As MasterFold."""
        raise NotImplementedError

    def resolved(self, hostname: str, address: Address | None, now: float) -> None:
        """As MasterFold."""
        raise NotImplementedError
