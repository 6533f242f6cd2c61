"""What the store says, decoded: the one input of every fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs

from dcosnet.model.drain import Drain, Progress
from dcosnet.model.facts import Agent, Framework, Leader
from dcosnet.model.member import Member
from dcosnet.model.node import Node
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Task

T = TypeVar("T")


@attrs.frozen
class Owned(Generic[T]):
    """
    A decoded value with the node that wrote it and when its key was created.

    `since` gives for VIP label names of a task the older stamp they inherit.
    """

    value: T
    owner: str
    created: Stamp
    since: Mapping[str, Stamp] = attrs.field(factory=dict)


@attrs.frozen
class Snapshot:
    """
    Live views of all decoded keys; read them, never keep them over a turn.

    All but `members` are keyed by the store's own keys ("task/...",
    "node/...", "framework/...", "agent/...", "leader/...", "drain/...",
    "draining/..."), the same that changed-key sets name. `progress` is what
    each node tells of its drains, by the drains' keys. A change of `members` is told as the changed key
    "member/<name>".
    """

    tasks: Mapping[str, Owned[Task]]
    nodes: Mapping[str, Owned[Node]]
    members: Mapping[str, Member]
    frameworks: Mapping[str, Owned[Framework]] = attrs.field(factory=dict)
    agents: Mapping[str, Owned[Agent]] = attrs.field(factory=dict)
    leaders: Mapping[str, Owned[Leader]] = attrs.field(factory=dict)
    drains: Mapping[str, Owned[Drain]] = attrs.field(factory=dict)
    progress: Mapping[str, Owned[Mapping[str, Progress]]] = attrs.field(factory=dict)

    @property
    def leader(self) -> Owned[Leader] | None:
        """
        The leading master, of what the nodes of several say that they are.

        The one elected last has the highest epoch; where the epochs are equal,
        because nobody counted elections, it is the one told of last.
        """
        return max(self.leaders.values(), key=lambda one: (one.value.epoch, one.created, one.owner), default=None)
