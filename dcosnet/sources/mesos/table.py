"""
Tasks, their agents and their frameworks, in whatever order they are heard of.

A task is made once both are known; until then it waits. When either changes,
the tasks it touches are made anew, and only those. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

import attrs

from dcosnet.model.facts import Agent, Facts, Framework, Problem
from dcosnet.model.net import Address
from dcosnet.model.task import Task, TaskId, TaskState
from dcosnet.sources.mesos.state import Described, make_task, pid_address

_SHOWN = 1000  # of the problems; they are counted beyond
_REMARKS = 20


class TaskTable:
    """
    All that one Mesos endpoint told.

    Generators do their work as they are run; each step of theirs places one
    task. `rejected` counts what could not be used, by what was lost.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.rejected: Counter[str] = Counter(
            {"document": 0, "event": 0, "task": 0, "agent": 0, "framework": 0, "field": 0}
        )
        self._facts = Facts()
        self.clear()

    def clear(self) -> None:
        """Forget everything but what was counted. Facts that were given keep what they show."""
        self.agents: dict[str, Agent] = {}
        self.frameworks: dict[str, Framework] = {}
        self.waiting: set[TaskId] = set()
        self._described: dict[TaskId, Described] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._of_agent: dict[str, set[TaskId]] = {}
        self._of_framework: dict[str, set[TaskId]] = {}
        self._flawed: dict[TaskId, tuple[str, ...]] = {}
        self._bad_pids: set[str] = set()
        self._named: dict[str, set[str]] = {}
        self._answers: dict[str, Address | None] = {}
        self._remarks: dict[Problem, None] = {}
        self._changed: set[TaskId] | None = None
        self._stale = True

    # tasks

    def described(self, id_: TaskId) -> Described | None:
        """What was told of a task that has not ended."""
        return self._described.get(id_)

    def ids(self) -> list[TaskId]:
        """All tasks that have not ended."""
        return list(self._described)

    def put(self, described: Described, now: float) -> None:
        """Take what a task is now; one that has ended is dropped."""
        id_ = described.id
        if described.state is TaskState.TERMINAL:
            self.drop(id_)
            return
        before = self._described.get(id_)
        if before is None or before.agent != described.agent:
            if before is not None:
                self.drop(id_)
            self._of_agent.setdefault(described.agent, set()).add(id_)
            self._of_framework.setdefault(id_.framework, set()).add(id_)
        self._described[id_] = described
        self._note(described, before)
        self._place(id_, now)

    def drop(self, id_: TaskId) -> None:
        """Forget a task; one that is not known is no error."""
        described = self._described.pop(id_, None)
        if described is None:
            return
        _discard(self._of_agent, described.agent, id_)
        _discard(self._of_framework, id_.framework, id_)
        self._flawed.pop(id_, None)
        self.waiting.discard(id_)
        if self._tasks.pop(id_, None) is not None:
            self._touch(id_)

    def _place(self, id_: TaskId, now: float) -> None:
        described, before = self._described[id_], self._tasks.get(id_)
        agent, framework = self.agents.get(described.agent), self.frameworks.get(id_.framework)
        address = None if agent is None else agent.address
        name = None if framework is None else framework.name
        if before is not None:
            # What is gone from the lists is still where its last tasks run.
            address = before.agent if address is None else address
            name = before.framework if name is None else name
        if address is None or name is None:
            self.waiting.add(id_)
            return
        self.waiting.discard(id_)
        task = make_task(described, address, name, self._source, now)
        if before is None or task != before:
            self._tasks[id_] = task
            self._touch(id_)

    def _touch(self, id_: TaskId) -> None:
        self._stale = True
        if self._changed is not None:
            self._changed.add(id_)

    def _note(self, described: Described, before: Described | None) -> None:
        flaws = described.flaws + described.status_flaws
        if before is None or (before.flaws, before.status_flaws) != (described.flaws, described.status_flaws):
            self.rejected["field"] += len(flaws)
        if flaws:
            self._flawed[described.id] = flaws
        else:
            self._flawed.pop(described.id, None)

    # agents

    def put_agent(self, agent: Agent, now: float) -> Iterator[None]:
        """Take an agent as it was read; its tasks follow."""
        if agent.address is None:
            self._named.setdefault(agent.hostname, set()).add(agent.id)
            agent = attrs.evolve(agent, address=self._looked_up(agent))
        before = self.agents.get(agent.id)
        if agent == before:
            return
        if before is not None and before.hostname != agent.hostname:
            self._unname(before)
        self.agents[agent.id] = agent
        self._stale = True
        self._bad_pids.discard(agent.id)
        if agent.pid and pid_address(agent.pid) is None:
            self._bad_pids.add(agent.id)
            self.rejected["field"] += 1
        if before is None or before.address != agent.address:
            yield from self._places(self._of_agent.get(agent.id, ()), now)

    def drop_agent(self, id_: str) -> None:
        """Forget an agent. Its tasks stay until they end themselves."""
        agent = self.agents.pop(id_, None)
        if agent is not None:
            self._stale = True
            self._bad_pids.discard(id_)
            self._unname(agent)

    def unresolved(self) -> frozenset[str]:
        """Host names without an address, whether nobody looked or nothing was found."""
        return frozenset(name for name in self._named if name and self._answers.get(name) is None)

    def resolved(self, hostname: str, address: Address | None, now: float) -> Iterator[None]:
        """What a look-up gave; None where it failed. A later failure does not undo an earlier success."""
        if hostname not in self._named or (address is None and hostname in self._answers):
            return
        self._answers[hostname] = address
        for id_ in tuple(self._named[hostname]):
            yield from self.put_agent(attrs.evolve(self.agents[id_], address=None), now)

    def _looked_up(self, agent: Agent) -> Address | None:
        if agent.hostname and agent.hostname not in self._answers:
            return None
        return self._answers.get(agent.hostname) or pid_address(agent.pid)

    def _unname(self, agent: Agent) -> None:
        """Forget who has a host name, and with the last of them what it resolved to."""
        ids = self._named.get(agent.hostname, set())
        ids.discard(agent.id)
        if not ids:
            self._named.pop(agent.hostname, None)
            self._answers.pop(agent.hostname, None)

    # frameworks

    def put_framework(self, framework: Framework, now: float) -> Iterator[None]:
        """Take a framework; where its name is new, its tasks follow (D17)."""
        before = self.frameworks.get(framework.id)
        if framework == before:
            return
        self.frameworks[framework.id] = framework
        self._stale = True
        ids = self._of_framework.get(framework.id, set())
        if before is not None and before.name == framework.name:
            return
        yield from self._places(ids, now)

    def drop_framework(self, id_: str) -> None:
        """Forget a framework. Its tasks stay, under its name, until they end themselves."""
        if self.frameworks.pop(id_, None) is not None:
            self._stale = True

    def _places(self, ids: Iterable[TaskId], now: float) -> Iterator[None]:
        for id_ in tuple(ids):
            self._place(id_, now)
            yield

    # what is known

    def remark(self, kind: str, reference: str, reason: str) -> None:
        """Count something that was of no use, and keep it for people; the oldest make room."""
        self.rejected[kind] += 1
        self._remarks[Problem(reference, reason)] = None
        if len(self._remarks) > _REMARKS:
            del self._remarks[next(iter(self._remarks))]

    @property
    def problem_count(self) -> int:
        """How many problems there are now."""
        return sum(1 for _ in self._problems())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The first thousand problems; those of a task have its key as reference."""
        return tuple(islice(self._problems(), _SHOWN))

    def _problems(self) -> Iterator[Problem]:
        agents = (
            Problem(f"agent {agent.id}", _without_address(agent, self._answers))
            for agent in self.agents.values()
            if agent.address is None or agent.id in self._bad_pids
        )
        tasks = (Problem(id_.key, flaw) for id_, flaws in self._flawed.items() for flaw in flaws)
        return chain(agents, tasks, self._remarks)

    def facts(self, unsynced: tuple[str, ...] = ()) -> Facts:
        """
        All that is known, with what changed since the last call; the same object where nothing did.

        Its tasks are a live view until the next `clear`: a copy of 50 000 for
        each change would cost more than all that comes of it. What is not whole
        is not told, so `changed` does not start anew there.
        """
        if unsynced:
            return Facts(self._tasks, unsynced, self.frameworks.copy(), self.agents.copy())
        if self._stale:
            last = self._facts
            self._facts = Facts(
                tasks=self._tasks,
                frameworks=last.frameworks if last.frameworks == self.frameworks else self.frameworks.copy(),
                agents=last.agents if last.agents == self.agents else self.agents.copy(),
                changed=None if self._changed is None else frozenset(self._changed),
            )
            self._changed = set()
            self._stale = False
        return self._facts


def _without_address(agent: Agent, answers: Mapping[str, Address | None]) -> str:
    if agent.address is not None:
        return f"its pid {agent.pid!r} has no address"
    if agent.hostname in answers or not agent.hostname:
        return f"host name {agent.hostname!r} was not resolved and pid {agent.pid!r} has no address; its tasks wait"
    return f"host name {agent.hostname!r} is being looked up; its tasks wait"


def _discard(index: dict[str, set[TaskId]], key: str, id_: TaskId) -> None:
    ids = index[key]
    ids.discard(id_)
    if not ids:
        del index[key]
