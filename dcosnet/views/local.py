"""
The facts of this node's sources, made into the keys that this node owns.

Pure: `update` gives what must be written, the caller writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dcosnet.model.facts import Facts
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Task, TaskId
from dcosnet.model.viplabels import parse
from dcosnet.views.values import encode_task

Since = Callable[[str, str], Stamp | None]
"""When a VIP name (label name, framework) was first used, as the VIP table knows it."""


class LocalKeys:
    """
    What this node's sources say, as keys.

    Where two sources tell of one task, the first in the order of `sources`
    holds it. A task that did not change is not written again.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._sources = sources
        self._facts: dict[str, Facts] = {}
        self._tasks: dict[TaskId, Task] = {}

    def update(self, source: str, facts: Facts, since: Since) -> dict[str, bytes | None]:
        """Take a source's whole facts; the changes that the store needs, None to delete."""
        self._facts[source] = facts
        desired: dict[TaskId, Task] = {}
        for name in self._sources:
            if name in self._facts:
                for task_id, task in self._facts[name].tasks.items():
                    desired.setdefault(task_id, task)
        changes: dict[str, bytes | None] = {id_.key: None for id_ in self._tasks.keys() - desired.keys()}
        for task_id, task in desired.items():
            if self._tasks.get(task_id) != task:
                changes[task_id.key] = encode_task(task, _inherited(task, since))
        self._tasks = desired
        return changes

    def unsynced(self) -> str | None:
        """Why an absent task may yet exist: what the sources have not told; None when all have."""
        for name in self._sources:
            facts = self._facts.get(name)
            if facts is None:
                return f"source {name} has not been read yet"
            if facts.unsynced:
                return f"source {name}: {facts.unsynced[0]}"
        return None

    @property
    def tasks(self) -> Mapping[TaskId, Task]:
        """What this node tells of."""
        return self._tasks


def _inherited(task: Task, since: Since) -> dict[str, Stamp]:
    """
    The age of the task's VIP names, where they are in use already.

    It travels with the task, so that a name stays as old as its first user
    when that user has gone; without it a rolling restart would make the name
    young, and on a collision of addresses it would have to move.
    """
    stamps = {}
    for port in task.ports:
        for text in port.vips:
            try:
                name = parse(text).name
            except ValueError:
                continue  # shown with its reason where tasks are shown
            stamp = None if name is None else since(name, task.framework)
            if name is not None and stamp is not None:
                stamps[name] = stamp
    return stamps
