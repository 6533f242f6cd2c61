"""What a source knows: whole sets, never deltas."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.model.net import Address, Endpoint
from dcosnet.model.task import Task, TaskId


@attrs.frozen
class Framework:
    """A scheduler that runs tasks; `pid` is its libprocess address ("scheduler-1@10.0.0.5:4711")."""

    id: str
    name: str
    pid: str = ""
    hostname: str = ""
    active: bool = True


@attrs.frozen
class Agent:
    """A Mesos agent; `address` is None while its host name has not been resolved."""

    id: str
    hostname: str
    address: Address | None
    pid: str = ""


@attrs.frozen
class Leader:
    """
    The leading master, and all masters that are known, the leader among them.

    `epoch` orders what successive leaders say: the one elected later has the
    higher one, whatever the clocks of their hosts.
    """

    master: Endpoint
    masters: tuple[Endpoint, ...]
    epoch: int = 0


@attrs.frozen
class Facts:
    """
    All that a source knows now.

    `unsynced` says for people what is missing ("agent 10.0.0.5 not heard yet");
    while it is not empty, a name that the source might own is not denied.
    `leader` is set by a source that hears the leading master, on that master's
    node: only this node tells of frameworks, agents and foreign tasks.

    `changed` names the tasks that may differ from what the source told last, so
    that one change among many costs one; None when any may. The mappings may be
    live views: each change of what they show is told by a call that follows.
    """

    tasks: Mapping[TaskId, Task] = attrs.field(factory=dict)
    unsynced: tuple[str, ...] = ()
    frameworks: Mapping[str, Framework] = attrs.field(factory=dict)
    agents: Mapping[str, Agent] = attrs.field(factory=dict)
    leader: Leader | None = None
    changed: frozenset[TaskId] | None = attrs.field(default=None, eq=False)


@attrs.frozen
class Problem:
    """Something a source could not use: what, and what to do about it."""

    reference: str
    reason: str


@attrs.frozen
class SourceStatus:
    """
    How a source fares, for `/v1/sources` and readiness; `changed_at` in seconds since the epoch.

    `more` counts the problems that there are beside those given.
    """

    synced: bool
    detail: str
    tasks: int = 0
    changed_at: float | None = None
    problems: tuple[Problem, ...] = ()
    more: int = 0
