"""
The facts of this node's sources, made into the keys that this node owns.

Pure: `take...` hears, `step` gives a bounded part of what must be written, and
the caller writes it. What was heard is decided anew from what is known at that
moment, so nothing older can overtake anything newer, however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from urllib.parse import quote

from dcosnet.model.facts import Agent, Facts, Framework, Leader
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Address
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Task, TaskId
from dcosnet.model.viplabels import parse
from dcosnet.views.values import encode_agent, encode_framework, encode_leader, encode_task

Since = Callable[[str, str], Stamp | None]
"""When a VIP name (label name, framework) was first used, as the VIP table knows it."""

OwnerOf = Callable[[str], str | None]
"""Whose word on a key counts in the store; None where there is none."""

_Few = tuple[str, str]
"""Something of which there are fewer than tasks: "framework" or "agent", and its id."""

_FewTold = Mapping[str, Mapping[str, Framework | Agent]]
"""What a source tells of them, by kind and id."""

MANY = 4096
"""Changes at once that are as good as any: taking 50 000 one by one, as where a framework is renamed, took 60 ms."""

_HERE = (MemberState.ALIVE, MemberState.UNREACHABLE)  # unreachable is quick and passes


class LocalKeys:
    """
    What this node's sources say, as keys.

    A source without a leader tells of this node, and all its tasks are ours. One
    that hears the leading master tells of the whole cluster: ours are then the
    frameworks, the agents, and those tasks whose agent is this node or no
    member. What we told of a member's tasks stays until that member tells of
    them itself, so that a node which joins takes no name away.

    Where another node's leader has the higher epoch, ours is no longer leading,
    and we tell only of this node.

    Where two sources tell of one thing, the first in the order of `sources`
    holds it. What did not change is not written again.
    """

    def __init__(self, node: str, sources: tuple[str, ...], owner_of: OwnerOf) -> None:
        self._node = node
        self._sources = sources
        self._owner_of = owner_of
        self._facts: dict[str, Facts] = {}
        self._few_told: dict[str, _FewTold] = {}
        """Of each source, as it was when it told: its own mappings may be live."""
        self._homes: dict[Address, str] = {}
        self._rival: int | None = None
        self._tasks: dict[TaskId, tuple[str, Task]] = {}
        """What this node tells, with the source that it has it from."""
        self._written: dict[str, tuple[bytes, tuple[Task, dict[str, Stamp]]]] = {}
        """Of each key what `step` gave out, until `written` was asked for it."""
        self._few: dict[_Few, Framework | Agent] = {}
        self._leader: Leader | None = None
        # What must be decided anew: single ids, and sources to go through as a
        # whole. As sets in order, so that they are bounded by what there is.
        self._ids: dict[TaskId | _Few, None] = {}
        self._whole: dict[str, None] = {}
        self._walk: Iterator[TaskId | _Few] = iter(())
        self.settled = True
        """Whether all that was heard has been given out by `step`."""

    def take(self, source: str, facts: Facts) -> None:
        """Hear a source's whole facts."""
        before = self._facts.get(source)
        self._facts[source] = facts
        few: _FewTold = {"framework": facts.frameworks, "agent": facts.agents}
        few_before = self._few_told.get(source, {})
        if few != few_before:
            self._few_told[source] = {kind: dict(told) for kind, told in few.items()}
        led = before is not None and before.leader is not None
        if (
            before is None
            or facts.changed is None
            or len(facts.changed) > MANY
            or led is not (facts.leader is not None)
        ):
            self._whole[source] = None
        else:
            # What is there before what is gone, as in `_through`.
            self._ids.update(dict.fromkeys(id_ for id_ in facts.changed if id_ in facts.tasks))
            self._ids.update(dict.fromkeys(facts.changed))
            if few != few_before:
                self._ids.update(dict.fromkeys(chain(_each(few), _each(few_before))))
        self.settled = False

    def take_members(self, members: Mapping[str, Member]) -> None:
        """Hear who is a member; what agents have one decides who tells of their tasks."""
        homes: dict[Address, str] = {}
        for name in sorted(members, key=lambda name: (name != self._node, name)):
            if members[name].state in _HERE:
                for address in members[name].addresses:
                    homes.setdefault(address, name)
        if homes != self._homes:
            self._homes = homes
            self._reconsider()

    def take_rival(self, epoch: int | None) -> None:
        """Hear the highest epoch that another node's leader has; None where no other node tells of one."""
        if epoch != self._rival:
            self._rival = epoch
            self._reconsider()

    def take_owner(self, id_: TaskId, owner: str) -> None:
        """Hear who tells of a task: if that is another node now, we need not."""
        if owner != self._node and id_ in self._tasks:
            self._ids[id_] = None
            self.settled = False

    def step(self, limit: int, since: Since) -> dict[str, bytes | None]:
        """
        The changes that the store needs for at most `limit` things, None to delete.

        The leader is told once all else is: who hears of it has heard the rest.
        """
        changes: dict[str, bytes | None] = {}
        for count in range(limit):
            id_ = self._next(whole_first=bool(count % 2))
            if id_ is None:
                self._decide_leader(changes)
                self.settled = True
                break
            if isinstance(id_, TaskId):
                self._decide_task(id_, since, changes)
            else:
                self._decide_few(id_, changes)
        return changes

    def written(self, key: str, value: bytes) -> tuple[Task, dict[str, Stamp]] | None:
        """
        What `step` encoded as just this value, once; None for a value of anybody else.

        So that this node need not decode what it has just encoded, and holds each of its tasks once.
        """
        encoded, task = self._written.pop(key, (None, None))
        return task if encoded is value else None

    def unsynced(self) -> str | None:
        """Why an absent task may yet exist: what the sources have not told; None when all have."""
        for name in self._sources:
            facts = self._facts.get(name)
            if facts is None:
                return f"source {name} has not been read yet"
            if facts.unsynced:
                return f"source {name}: {facts.unsynced[0]}"
        return None

    def _reconsider(self) -> None:
        leading = [name for name, facts in self._facts.items() if facts.leader is not None]
        if leading:
            self._whole.update(dict.fromkeys(leading))
            self.settled = False

    def _next(self, *, whole_first: bool) -> TaskId | _Few | None:
        """What to decide next; single changes and whole sources take turns, so that neither waits for the other."""
        if self._ids and not whole_first:
            return self._pop()
        id_ = next(self._walk, None)
        while id_ is None and self._whole:
            source = next(iter(self._whole))
            del self._whole[source]
            self._walk = self._through(source)
            id_ = next(self._walk, None)
        return self._pop() if id_ is None and self._ids else id_

    def _pop(self) -> TaskId | _Few:
        id_ = next(iter(self._ids))
        del self._ids[id_]
        return id_

    def _through(self, source: str) -> Iterator[TaskId | _Few]:
        """
        All that a source tells, and then all that may be gone: a name that moves is never without an address.

        Tasks of one name go together: what is folded from them is made once,
        and nearly always appears as a whole.
        """
        told_before = [id_ for id_, (told_by, _) in self._tasks.items() if told_by == source]
        yield from _each(self._few_told[source])
        alike: dict[str, list[TaskId]] = {}
        for id_, task in self._facts[source].tasks.items():
            alike.setdefault(task.name, []).append(id_)
        yield from chain.from_iterable(alike.values())
        yield from told_before
        yield from list(self._few)

    def _decide_task(self, id_: TaskId, since: Since, changes: dict[str, bytes | None]) -> None:
        now, before = self._desired(id_), self._tasks.get(id_)
        if now is None:
            if before is not None:
                del self._tasks[id_]
                changes[id_.key] = None
                self._written.pop(id_.key, None)
            return
        self._tasks[id_] = now
        if before is None or before[1] != now[1]:
            key, task = id_.key, (now[1], _inherited(now[1], since))
            value = changes[key] = encode_task(*task)
            self._written[key] = value, task

    def _desired(self, id_: TaskId) -> tuple[str, Task] | None:
        for name in self._sources:
            facts = self._facts.get(name)
            task = None if facts is None else facts.tasks.get(id_)
            if facts is not None and task is not None and self._is_ours(facts, task):
                return name, task
        return None

    def _is_ours(self, facts: Facts, task: Task) -> bool:
        if facts.leader is None:
            return True
        home = self._homes.get(task.agent)
        if home is None:
            return self._leads(facts)
        if home == self._node:
            return True
        return task.id in self._tasks and self._owner_of(task.id.key) in (None, self._node)

    def _leads(self, facts: Facts) -> bool:
        return facts.leader is not None and (self._rival is None or facts.leader.epoch >= self._rival)

    def _decide_few(self, few: _Few, changes: dict[str, bytes | None]) -> None:
        kind, id_ = few
        key = f"{kind}/{quote(id_, safe='@:')}"
        leading = (name for name in self._sources if name in self._facts and self._leads(self._facts[name]))
        now = next((told[id_] for name in leading if id_ in (told := self._few_told[name][kind])), None)
        if now == self._few.get(few):
            return
        if now is None:
            del self._few[few]
            changes[key] = None
        else:
            self._few[few] = now
            changes[key] = encode_framework(now) if isinstance(now, Framework) else encode_agent(now)

    def _decide_leader(self, changes: dict[str, bytes | None]) -> None:
        """
        Tell who leads, also when another node knows of a later one.

        The key has this node's name: of one key only the last word could be
        read, and that may be the older leader's.
        """
        told = (self._facts[name].leader for name in self._sources if name in self._facts)
        leader = next((one for one in told if one is not None), None)
        if leader != self._leader:
            self._leader = leader
            changes[f"leader/{self._node}"] = None if leader is None else encode_leader(leader)


def _each(few: _FewTold) -> Iterator[_Few]:
    return ((kind, id_) for kind, told in few.items() for id_ in told)


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
