"""
One node's facts out of two: what the leading master tells, and what its own agent tells.

Pure. Of a task that both know the agent's word counts: it is the nearer one,
and a master that fell silent still holds tasks that ended.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.model.facts import Facts
from dcosnet.model.net import Address
from dcosnet.model.task import Task, TaskId

MANY = 4096
"""Changes at once from which on the index is made anew; that costs a third of as many single ones."""


class Merge:
    """
    Keeps the index that makes one changed task cost one.

    The agent is known by its address, which its own tasks have; until it was
    heard, the master's word counts for its tasks too.
    """

    def __init__(self) -> None:
        self._master: Facts | None = None
        self._agent: Facts | None = None
        self._address: Address | None = None
        self._ours: set[TaskId] = set()

    def merge(self, master: Facts | None, agent: Facts | None, address: Address | None) -> Facts:
        """
        The facts together; `changed` against the last call of this.

        Both are given whole each time; one that is the same object did not
        change, though its tasks may be a live view that shows already what it
        will tell next. `address` is the agent's.
        """
        same_master, same_agent = master is self._master, agent is self._agent
        moved = address != self._address
        first = (self._master is None) is not (master is None) or (self._agent is None) is not (agent is None)
        changed: frozenset[TaskId] | None = None
        if not (first or moved):
            changed = _both(_since(master, same_master), _since(agent, same_agent))
        self._master, self._agent, self._address = master, agent, address
        if master is None or agent is None:
            whole = master or agent or Facts()
            return attrs.evolve(whole, changed=changed)
        self._index(master.tasks, None if first or moved else _since(master, same_master), address)
        tasks = dict(master.tasks)
        for task in self._ours:
            if task not in agent.tasks:
                tasks.pop(task, None)
        tasks.update(agent.tasks)
        return attrs.evolve(master, tasks=tasks, changed=changed)

    def _index(self, tasks: Mapping[TaskId, Task], changed: frozenset[TaskId] | None, address: Address | None) -> None:
        """Bring `_ours` up to date: the master's tasks on our agent."""
        if changed is None or len(changed) > MANY:
            # Tasks of one agent share the object of its address; one comparison takes as long as several look-ups.
            homes = {id(task.agent): task.agent for task in tasks.values()}
            ours = {key for key, home in homes.items() if home == address}
            self._ours = {task for task, value in tasks.items() if id(value.agent) in ours}
            return
        for task in changed:
            if task in tasks and tasks[task].agent == address:
                self._ours.add(task)
            else:
                self._ours.discard(task)


def _since(facts: Facts | None, same: bool) -> frozenset[TaskId] | None:
    """The tasks that may differ since the facts before; None for any."""
    return frozenset() if same or facts is None else facts.changed


def _both(one: frozenset[TaskId] | None, other: frozenset[TaskId] | None) -> frozenset[TaskId] | None:
    return None if one is None or other is None else one | other
