"""
The source `mesos` in the reactor: an agent polled, a master followed, told as one.

What is whole is told; what is missing is named. What was told stays until
something better is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, ITaskSource
from dcosnet.model.facts import Facts, Problem, SourceStatus
from dcosnet.model.metric import Metric, Sample
from dcosnet.model.net import Address
from dcosnet.model.node import Node
from dcosnet.model.task import TaskId
from dcosnet.sources.mesos.agent import AgentPoller
from dcosnet.sources.mesos.events import AgentFold, MasterFold
from dcosnet.sources.mesos.leader import Masters
from dcosnet.sources.mesos.merge import MANY, Merge
from dcosnet.sources.mesos.stream import MasterStream

SOURCE = "mesos"

MakeAgent = Callable[[Callable[[], None]], AgentPoller]
MakeStream = Callable[[Callable[[], None]], MasterStream]


@implementer(ITaskSource, IMetrics)
class MesosSource(Service):
    """
    Tells what one or both of an agent and the masters tell.

    `agent` and `stream` make them, given what to call when they have news;
    None leaves one out. `masters` is what the stream looks for masters in.
    """

    name = SOURCE

    def __init__(
        self, reactor: Any, node: Node, masters: Masters, agent: MakeAgent | None, stream: MakeStream | None
    ) -> None:
        self._reactor = reactor
        self._node = node
        self._masters = masters
        self._agent = agent(self._news) if agent is not None else None
        self._stream = stream(self._news) if stream is not None else None
        self._merge = Merge()
        self._sink: Callable[[Facts], None] | None = None
        self._heard: tuple[Facts | None, Facts | None] = (None, None)
        self._facts: Facts | None = None
        self._changed_at: float | None = None

    # ITaskSource

    def watch(self, sink: Callable[[Facts], None]) -> None:
        self._sink = sink

    def status(self) -> SourceStatus:
        problems = [problem for fold in self._folds() for problem in fold.problems]
        more = sum(fold.problem_count for fold in self._folds()) - len(problems)
        problems = [*self._masters.problems, *problems]
        problems += [Problem(what, why) for what, why in self._troubles()]
        return SourceStatus(
            synced=not self._missing(),
            detail="; ".join(self._details()),
            tasks=len(self._facts.tasks) if self._facts is not None else 0,
            changed_at=self._changed_at,
            problems=tuple(problems),
            more=more,
        )

    # IMetrics

    def collect(self) -> Iterator[Metric]:
        now = self._reactor.seconds()
        facts = self._facts or Facts()
        yield _gauge("tasks", "Tasks that the agent and the masters tell of.", len(facts.tasks))
        yield _gauge("leading", "1 if the leading master is followed here.", int(facts.leader is not None))
        yield _gauge("problems", "What is wrong in what they tell now.", self._problem_count())
        stale = [Sample(seconds, {"of": what}) for what, seconds in self._stale(now)]
        yield Metric("dcosnet_mesos_stale_seconds", "Seconds without a word; 0 while all is well.", "gauge", stale)
        polls = self._agent.polls if self._agent is not None else {}
        samples = [Sample(count, {"result": result}) for result, count in polls.items()]
        yield Metric("dcosnet_mesos_polls_total", "Polls of the agent, by what became of them.", "counter", samples)
        tries = self._stream.connections if self._stream is not None else {}
        samples = [Sample(count, {"result": result}) for result, count in tries.items()]
        yield Metric("dcosnet_mesos_streams_total", "Tries to follow a master.", "counter", samples)
        records = self._stream.records if self._stream is not None else 0
        yield Metric("dcosnet_mesos_records_total", "Records that masters sent.", "counter", (Sample(records),))

        rejected, failures = self._rejected()
        samples = [Sample(count, {"what": what}) for what, count in rejected.items()]
        yield Metric("dcosnet_mesos_rejected_total", "What could not be used.", "counter", samples)
        yield Metric("dcosnet_mesos_lookup_failures_total", "Host names not resolved.", "counter", (Sample(failures),))

    # IService

    def startService(self) -> None:
        super().startService()
        if self._agent is not None:
            self._agent.start()
        if self._stream is not None:
            self._stream.start()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._agent is not None:
            self._agent.stop()
        return self._stream.stop() if self._stream is not None else None

    def unready(self) -> str | None:
        """None while all that is to be heard is heard, else the first that is not, and why."""
        missing = self._missing()
        if missing:
            return missing[0]
        for what, why in self._troubles():
            return f"{what}: {why}; what was known stays"
        for problem in self._masters.problems:
            return f"{problem.reference}: {problem.reason}"
        return None

    def describe(self) -> dict[str, Any]:
        """For `/v1/status`."""
        told: dict[str, Any] = {}
        if self._agent is not None:
            told["agent"] = self._agent.url
        if self._stream is not None:
            known = self._masters.known
            told["masters"] = list(known.masters) if known is not None else []
            told["following"] = self._stream.following
        return told

    # what the two say

    def _news(self) -> None:
        """Something is new: tell it, if it is about facts."""
        if not self.running:
            return
        master = self._stream.facts if self._stream is not None else None
        agent = self._agent.facts if self._agent is not None else None
        unsynced = self._missing()
        before, self._heard = self._heard, (master, agent)
        if self._agent is not None and master is not before[0] and master is not None:
            self._poll_if_touched(master)
        nothing_whole = master is None and agent is None and unsynced
        # The same objects, since a comparison of live views would say nothing.
        same = master is before[0] and agent is before[1]
        if nothing_whole or (same and self._facts is not None and self._facts.unsynced == unsynced):
            return
        merged = attrs.evolve(self._merge.merge(master, agent, self._agent_address(agent)), unsynced=unsynced)
        self._facts, self._changed_at = merged, self._reactor.seconds()
        if self._sink is not None:
            self._sink(merged)

    def _poll_if_touched(self, master: Facts) -> None:
        """The master shows a change on our agent, which will not tell it before it is asked."""
        assert self._agent is not None
        agent, changed = self._agent.facts or Facts(), master.changed
        ours = self._agent_address(agent)
        if (
            changed is None
            or len(changed) > MANY
            or any(id_ in agent.tasks or _on(ours, id_, master) for id_ in changed)
        ):
            self._agent.poll_now()

    def _agent_address(self, agent: Facts | None) -> Address:
        """Where the agent's tasks are told to be; its own word where it has any."""
        first = next(iter(agent.tasks.values()), None) if agent is not None else None
        return first.agent if first is not None else self._node.address

    def _missing(self) -> tuple[str, ...]:
        missing = []
        if self._agent is not None and self._agent.facts is None:
            missing.append(self._agent.trouble or f"the agent {self._agent.url} is not heard yet")
        if self._stream is not None and not self._stream.synced:
            problems = [f"{each.reference}: {each.reason}" for each in self._masters.problems]
            missing.append(self._stream.trouble or next(iter(problems), "no master is heard yet"))
        return tuple(missing)

    def _troubles(self) -> Iterator[tuple[str, str]]:
        if self._agent is not None and self._agent.trouble is not None:
            yield "agent", self._agent.trouble
        if self._stream is not None and self._stream.trouble is not None:
            yield "masters", self._stream.trouble

    def _details(self) -> Iterator[str]:
        if self._agent is not None:
            yield f"agent {self._agent.url}"
        if self._stream is not None:
            following = self._stream.following
            yield f"follows {following}" if following is not None else "follows no master"

    def _problem_count(self) -> int:
        return sum(fold.problem_count for fold in self._folds()) + len(self._masters.problems)

    def _folds(self) -> Iterator[AgentFold | MasterFold]:
        if self._agent is not None:
            yield self._agent.fold
        if self._stream is not None and self._stream.fold is not None:
            yield self._stream.fold

    def _rejected(self) -> tuple[Mapping[str, int], int]:
        """By what was lost, and look-ups that failed; of the agent and all streams together."""
        rejected: Counter[str] = Counter()
        failures = 0
        if self._agent is not None:
            rejected.update(self._agent.rejected)
            failures += self._agent.lookup_failures
        if self._stream is not None:
            rejected.update(self._stream.rejected)
            failures += self._stream.lookup_failures
        return rejected, failures

    def _stale(self, now: float) -> Iterator[tuple[str, float]]:
        if self._agent is not None and self._agent.heard_at is not None:
            yield "agent", now - self._agent.heard_at if self._agent.trouble is not None else 0.0
        if self._stream is not None and self._stream.heard_at is not None:
            yield "masters", now - self._stream.heard_at if self._stream.trouble is not None else 0.0
        if self._masters.elects:
            yield "zookeeper", self._masters.stale(now)


def _on(address: Address, task: TaskId, facts: Facts) -> bool:
    return task in facts.tasks and facts.tasks[task].agent == address


def _gauge(name: str, text: str, value: float) -> Metric:
    return Metric(f"dcosnet_mesos_{name}", text, "gauge", (Sample(value),))
