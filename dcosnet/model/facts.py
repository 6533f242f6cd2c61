"""What a source knows: whole sets, never deltas."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.model.task import Task, TaskId


@attrs.frozen
class Facts:
    """
    All that a source knows now.

    `unsynced` says for people what is missing ("agent 10.0.0.5 not heard yet");
    while it is not empty, a name that the source might own is not denied.
    """

    tasks: Mapping[TaskId, Task] = attrs.field(factory=dict)
    unsynced: tuple[str, ...] = ()


@attrs.frozen
class Problem:
    """Something a source could not use: what, and what to do about it."""

    reference: str
    reason: str


@attrs.frozen
class SourceStatus:
    """How a source fares, for `/v1/sources` and readiness; `changed_at` in seconds since the epoch."""

    synced: bool
    detail: str
    tasks: int = 0
    changed_at: float | None = None
    problems: tuple[Problem, ...] = ()
