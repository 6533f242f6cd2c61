"""
The operator API's documents, read into values.

Total: whatever a document holds, nothing is raised but ValueError for a thing
that is useless as a whole (a task without an id). Smaller errors cost only the
field, port or label they are in, and come back as flaws.
"""

from __future__ import annotations

from typing import Any

import attrs

from dcosnet.model.facts import Agent, Framework
from dcosnet.model.net import Address
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState


@attrs.frozen
class Described:
    """What the API told of one task, before its agent and framework are looked up."""

    id: TaskId
    agent: str
    state: TaskState


def read_task(document: object, before: Described | None = None) -> Described:
    """
    A whole task, as TASK_ADDED and the snapshots tell it.

    Raises ValueError when it does not say which task it is, or on which agent.
    A field that cannot be read keeps its value of `before`.
    """
    raise NotImplementedError


def read_update(update: object, before: Described) -> Described:
    """`before` after the content of a TASK_UPDATED."""
    raise NotImplementedError


def make_task(described: Described, agent: Address, framework: str, now: float) -> Task:
    """The task, with the rules for ports applied (spec/l4lb_overlay.md 1.6)."""
    raise NotImplementedError


def read_agent(document: object) -> Agent:
    """An agent; its address is known when its host name is one. Raises ValueError."""
    raise NotImplementedError


def read_framework(document: object) -> Framework:
    """A framework. Raises ValueError."""
    raise NotImplementedError
