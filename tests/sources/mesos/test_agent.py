"""Polling an agent by a clock that the test moves."""

from __future__ import annotations

import json

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from dcosnet.model.net import parse_address
from dcosnet.sources.mesos.access import AccessError, Answer
from dcosnet.sources.mesos.agent import AgentPoller
from dcosnet.testing.fake_mesos import FakeCluster

URL = "http://127.0.0.1:5051"


class Rig:
    """An agent of a cluster, asked without a wire."""

    def __init__(self, clock, hostname):
        self.cluster = FakeCluster()
        self.id = self.cluster.add_agent(hostname)
        self.task = self.cluster.add_task("web", self.cluster.add_framework("marathon"), self.id)
        self.asked = []
        self.looked_up = []
        self.answer = None
        self.addresses = {}
        self.tellings = self.faults = 0
        self.poller = AgentPoller(
            clock,
            self,
            URL,
            address=parse_address("10.0.0.7"),
            poll=2.0,
            jitter=lambda: 0.5,
            resolve=self._resolve,
            told=self._told,
        )

    def ask(self, url, call):
        assert url == URL
        self.asked.append(call)
        if self.answer is not None:
            return self.answer()
        make = {"GET_STATE": self.cluster.get_agent_state, "GET_AGENT": self.cluster.get_agent_info}[call]
        inner = make(self.id) if call == "GET_STATE" else {"agent_info": make(self.id)}
        return defer.succeed(Answer(200, json.dumps({"type": call, call.lower(): inner}).encode()))

    def _resolve(self, name):
        self.looked_up.append(name)
        found = self.addresses.get(name)
        return found if isinstance(found, Deferred) else defer.succeed(found)

    def _told(self):
        self.tellings += 1
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError

    @property
    def polls(self):
        return self.asked.count("GET_AGENT")


@pytest.fixture
def make(clock):
    rigs = []

    def build(hostname="10.0.0.5"):
        rigs.append(Rig(clock, hostname))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.poller.stop()
    assert clock.getDelayedCalls() == []


def test_a_poll_that_tells_nothing_new_is_not_told(clock, make):
    rig = make()
    rig.poller.start()
    told = rig.tellings
    clock.pump([0.1, 1.9] * 5)
    assert rig.polls == 6
    assert rig.tellings == told


def test_being_asked_to_poll_is_at_once_and_never_a_flood(clock, make):
    """A thousand events on this agent are ten polls a second, and the last is after the last event."""
    rig = make()
    rig.poller.start()
    clock.advance(0.1)
    rig.poller.poll_now()
    assert rig.polls == 2
    for _ in range(100):
        rig.poller.poll_now()
        clock.advance(0.01)
    assert rig.polls <= 13
    before = rig.polls
    rig.poller.poll_now()
    clock.advance(0.1)
    assert rig.polls > before


def test_a_failing_agent_is_asked_less_and_less_and_keeps_its_facts(clock, make):
    """Even when a master tells of changes all the time."""
    rig = make()
    rig.poller.start()
    facts = rig.poller.facts
    rig.answer = lambda: defer.fail(AccessError("refused"))
    clock.pump([0.1, 1.9])
    assert rig.poller.trouble == "refused"
    before = rig.polls
    for _ in range(2000):
        rig.poller.poll_now()
        clock.advance(0.1)
    assert rig.polls - before < 15
    assert rig.poller.facts is facts
    rig.answer = None
    clock.advance(31)
    clock.advance(31)
    assert rig.poller.trouble is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(401), "GET_AGENT with 401"),
        (Answer(200, b"<html>"), "not JSON"),
        (Answer(200, b"[]"), "JSON object"),
        (Answer(200, b'{"type":"GET_AGENT","get_agent":{"agent_info":{"hostname":"h"}}}'), "get_state"),
    ],
)
def test_an_answer_that_is_none_is_told_with_its_reason(answer, reason, make):
    rig = make()
    rig.answer = lambda: defer.succeed(answer)
    rig.poller.start()
    assert reason in rig.poller.trouble
    assert rig.poller.facts is None


def test_a_name_that_does_not_resolve_is_this_nodes_address(make):
    """D21: no task waits for ever for a name, and the agent is here."""
    rig = make("agent-1.example")
    rig.poller.start()
    (task,) = rig.poller.facts.tasks.values()
    assert task.agent == parse_address("10.0.0.7")
    assert rig.poller.lookup_failures == 1


def test_tasks_that_wait_for_a_name_are_not_told_as_gone(clock, make):
    """The agent registered anew: until its name is looked up again, what was told before stays."""
    rig = make("agent-1.example")
    rig.addresses["agent-1.example"] = parse_address("10.0.0.8")
    rig.poller.start()
    before = rig.poller.facts
    answer = rig.addresses["agent-1.example"] = Deferred()
    new = rig.cluster.add_agent("agent-1.example")
    rig.cluster.add_task("api", rig.task[0], new)
    rig.id = new
    clock.pump([0.1, 1.9])
    assert rig.poller.facts is before
    answer.callback(parse_address("10.0.0.9"))
    assert {(task.name, str(task.agent)) for task in rig.poller.facts.tasks.values()} == {("api", "10.0.0.9")}


def test_a_name_that_resolves_is_what_it_resolves_to(make):
    rig = make("agent-1.example")
    rig.addresses["agent-1.example"] = parse_address("10.0.0.8")
    rig.poller.start()
    (task,) = rig.poller.facts.tasks.values()
    assert task.agent == parse_address("10.0.0.8")


@pytest.mark.parametrize("mistake", [ZeroDivisionError("oops"), defer.CancelledError()], ids=repr)
def test_a_mistake_of_ours_costs_one_poll(mistake, clock, make):
    """It is counted and shows, and the agent is asked again with growing waits, for ever."""
    rig = make()
    rig.poller.start()
    facts = rig.poller.facts
    rig.answer = lambda: defer.fail(mistake)
    for count, wait in enumerate((2.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)):
        assert rig.poller.polls["error"] == count
        clock.advance(0.1)
        clock.advance(wait)
    assert "mistake of ours" in rig.poller.trouble
    assert rig.poller.facts is facts
    rig.answer = None
    clock.pump([0.1, 30.0])
    assert rig.poller.trouble is None
    assert rig.poller.facts == facts


def test_what_could_not_be_told_is_told_again_as_a_whole(clock, make):
    """Whoever failed to take a change must not miss it until the next one."""
    rig = make()
    rig.poller.start()
    rig.cluster.update_task(rig.task, state="TASK_KILLED")
    rig.faults = 1
    clock.pump([0.1, 1.9])
    assert (rig.poller.polls["error"], rig.faults) == (1, 0)
    before = rig.tellings
    clock.pump([0.1, 1.0])
    assert rig.tellings == before + 1
    assert (rig.poller.facts.tasks, rig.poller.facts.changed, rig.poller.trouble) == ({}, None, None)


def test_stopping_in_the_midst_of_a_question_leaves_nothing(clock, make):
    rig = make()
    waiting = Deferred()
    rig.answer = lambda: waiting
    rig.poller.start()
    rig.poller.stop()
    assert clock.getDelayedCalls() == []
