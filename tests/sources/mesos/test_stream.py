"""Following a master by a clock that the test moves."""

from __future__ import annotations

import json

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from dcosnet.model.net import parse_address
from dcosnet.sources.mesos.access import AccessError, Answer, Stream
from dcosnet.sources.mesos.leader import Known
from dcosnet.sources.mesos.stream import HOLD, MasterStream
from dcosnet.testing.fake_mesos import FakeCluster, record

HERE, ELSEWHERE = "http://127.0.0.1:5050", "http://10.0.0.2:5050"


class Masters:
    """Masters that the test names."""

    def __init__(self, *urls):
        self.known = Known(urls)
        self.changed = None

    def start(self, changed):
        self.changed = changed

    def stop(self):
        return defer.succeed(None)

    def tell(self, known):
        self.known = known
        self.changed()


class Wire:
    """Answers as the test says, in the order of the questions; keeps the streams it opened."""

    def __init__(self):
        self.answers = []
        self.states = []
        self.asked = []
        self.polled = []
        self.streams = []
        self.early = b""

    def subscribe(self, url, receive):
        self.asked.append(url)
        answer = self.answers.pop(0) if self.answers else "stream"
        if answer == "stream":
            answer = Stream(receive)
            self.streams.append(answer)
            if self.early:
                answer.dataReceived(self.early)
        return defer.fail(answer) if isinstance(answer, Exception) else defer.succeed(answer)

    def ask(self, url, call):
        assert call == "GET_STATE"
        self.polled.append(url)
        answer = self.states.pop(0)
        return defer.fail(answer) if isinstance(answer, Exception) else defer.succeed(answer)


class Rig:
    """A stream on a clock."""

    def __init__(self, clock, masters, *, only_here=False, jitter=1.0, names=None):
        self.clock = clock
        self.masters = masters
        self.wire = Wire()
        self.tellings = self.faults = 0
        self.leaders = []
        self.named = names or {}
        self.slow = {}
        self.stream = MasterStream(
            clock,
            self.wire,
            masters,
            here=lambda address: address.is_loopback,
            only_here=only_here,
            refresh=30.0,
            jitter=lambda: jitter,
            resolve=self._resolve,
            told=self._told,
        )
        self.cluster = FakeCluster()
        agent = self.cluster.add_agent("10.0.0.5")
        self.task = self.cluster.add_task("web", self.cluster.add_framework("marathon"), agent)

    def _resolve(self, name):
        return self.slow[name] if name in self.slow else defer.succeed(parse_address(self.named.get(name, name)))

    def _told(self):
        self.tellings += 1
        if self.stream.facts is not None:
            self.leaders.append((self.stream.following, str(self.stream.facts.leader.master)))
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError

    def send(self, document):
        self.wire.streams[-1].dataReceived(record(json.dumps(document).encode()))

    def state(self):
        """What GET_STATE answers."""
        return Answer(200, json.dumps({"type": "GET_STATE", "get_state": self.cluster.get_state()}).encode())

    def names(self):
        return {task.name for task in self.stream.facts.tasks.values()}

    def asks_after(self, seconds):
        """The next question comes just then."""
        before = len(self.wire.asked)
        self.clock.advance(seconds - 0.01)
        assert len(self.wire.asked) == before
        self.clock.advance(0.01)
        assert len(self.wire.asked) == before + 1

    def snapshot(self, heartbeat=15.0):
        self.send(self.cluster.subscribed(heartbeat))
        self.clock.advance(0)


@pytest.fixture
def make(clock):
    rigs = []

    def build(masters, **more):
        rigs.append(Rig(clock, masters, **more))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.stream.stop()
    assert clock.getDelayedCalls() == []


def test_silence_for_three_heartbeats_ends_a_stream(clock, make):
    """The interval is the one that the master tells; facts stay."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot(heartbeat=5.0)
    assert rig.stream.trouble is None
    facts = rig.stream.facts
    clock.advance(14.9)
    assert rig.stream.following == HERE
    rig.send({"type": "HEARTBEAT"})
    clock.advance(14.9)
    assert len(rig.wire.asked) == 1
    clock.advance(0.2)
    clock.advance(0)
    assert len(rig.wire.asked) == 2
    assert rig.stream.facts == facts


def test_a_lost_stream_is_asked_for_once_at_once_and_then_with_growing_waits(clock, make):
    """So that a master that restarts is found soon and one that is down is not beaten."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.wire.answers = [AccessError("refused")] * 8
    rig.wire.streams[0].connectionLost()
    clock.advance(0)
    assert len(rig.wire.asked) == 2
    for wait in (2, 4, 8, 16, 30, 30):
        rig.asks_after(wait)


def test_a_master_that_ends_each_stream_early_is_not_asked_in_a_circle(clock, make):
    """Not even one that tells its whole state first."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    rig.wire.streams[0].connectionLost()
    clock.advance(1.9)
    assert len(rig.wire.asked) == 1
    clock.advance(0.1)
    assert len(rig.wire.asked) == 2


def test_nonsense_waits_for_its_turn_however_long_the_stream_had_lasted(clock, make):
    """It may well be there again."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    clock.advance(20)
    rig.wire.streams[0].dataReceived(b"<html>")
    clock.advance(0)
    assert len(rig.wire.asked) == 1
    clock.advance(2)
    assert len(rig.wire.asked) == 2


def test_a_standby_is_asked_again_and_has_nothing(clock, make):
    rig = make(Masters(HERE))
    rig.wire.answers = [Answer(307, location="//10.0.0.2:5050")] * 2
    rig.stream.start()
    assert (rig.stream.synced, rig.stream.facts, rig.stream.trouble) == (True, None, None)
    clock.advance(2)
    clock.advance(2)
    assert rig.wire.asked == [HERE] * 3


def test_from_elsewhere_a_redirect_is_followed(make):
    """A node in front of the cluster hears the leader wherever it is."""
    rig = make(Masters(ELSEWHERE))
    rig.wire.answers = [Answer(307, location="//10.0.0.3:5050/api/v1")]
    rig.stream.start()
    rig.snapshot()
    assert rig.wire.asked == [ELSEWHERE, "http://10.0.0.3:5050"]
    assert str(rig.stream.facts.leader.master) == "10.0.0.3:5050"


def test_masters_that_are_known_by_name_are_all_told_by_address(make):
    """`master.` and `zk-1.zk` would lack those that do not lead."""
    names = {"m1.example": "10.0.0.1", "m2.example": "10.0.0.2", "m3.example": "10.0.0.3"}
    rig = make(Masters(*(f"http://{name}:5050" for name in names)), names=names)
    rig.stream.start()
    rig.snapshot()
    leader = rig.stream.facts.leader
    assert str(leader.master) == "10.0.0.1:5050"
    assert {str(each) for each in leader.masters} == {"10.0.0.1:5050", "10.0.0.2:5050", "10.0.0.3:5050"}


def test_an_elected_leader_that_is_known_by_name_is_the_one_at_its_address(make):
    """A redirect tells the address; the facts are of that election all the same."""
    names = {"m1.example": "10.0.0.1", "m2.example": "10.0.0.2"}
    rig = make(Masters(), names=names)
    rig.masters.known = Known(("http://m1.example:5050",), "http://m2.example:5050", 4)
    rig.wire.answers = [AccessError("refused"), Answer(307, location="//10.0.0.2:5050")]
    rig.stream.start()
    rig.snapshot()
    assert rig.wire.asked == ["http://m2.example:5050", "http://m1.example:5050", "http://10.0.0.2:5050"]
    assert (str(rig.stream.facts.leader.master), rig.stream.facts.leader.epoch) == ("10.0.0.2:5050", 4)


def test_secrets_do_not_go_where_nobody_is_verified(make):
    rig = make(Masters("https://10.0.0.2:5050"))
    rig.wire.answers = [Answer(307, location="http://10.0.0.3:5050/api/v1")]
    rig.stream.start()
    assert rig.wire.asked == ["https://10.0.0.2:5050"]
    assert "no TLS" in rig.stream.trouble


def test_a_redirect_in_a_circle_ends(make):
    rig = make(Masters(ELSEWHERE))
    rig.wire.answers = [Answer(307, location=f"//10.0.0.{n}:5050") for n in (3, 2, 3, 2, 3, 2)]
    rig.stream.start()
    assert len(rig.wire.asked) == 4
    assert "circle" in rig.stream.trouble


def test_a_leader_that_was_elected_is_followed_at_once(clock, make):
    """A master that lost the election may not know it; epochs tell whose word is newer."""
    rig = make(Masters(ELSEWHERE, "http://10.0.0.3:5050"))
    rig.masters.known = Known(rig.masters.known.masters, ELSEWHERE, 4)
    rig.stream.start()
    rig.snapshot()
    assert rig.stream.facts.leader.epoch == 4
    clock.advance(10)
    rig.masters.tell(Known(rig.masters.known.masters, "http://10.0.0.3:5050", 5))
    clock.advance(0)
    assert rig.wire.asked == [ELSEWHERE, "http://10.0.0.3:5050"]
    rig.snapshot()
    assert rig.stream.facts.leader.epoch == 5
    assert len(rig.stream.facts.leader.masters) == 2


def test_a_leader_that_is_known_by_name_is_followed_at_once_too(clock, make):
    names = {"m1.example": "10.0.0.1", "m2.example": "10.0.0.2"}
    urls = tuple(f"http://{name}:5050" for name in names)
    rig = make(Masters(*urls), names=names)
    rig.masters.known = Known(urls, urls[0], 4)
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.masters.tell(Known(urls, urls[1], 5))
    clock.advance(0)
    assert rig.wire.asked == list(urls)
    rig.snapshot()
    assert rig.stream.facts.leader.epoch == 5


def test_a_leader_that_gets_another_name_is_not_left(clock, make):
    """It is where it was: nothing of its stream is missing."""
    names = {"m1.example": "10.0.0.1"}
    urls = ("http://m1.example:5050", "http://10.0.0.1:5050")
    rig = make(Masters(*urls), names=names)
    rig.masters.known = Known(urls, urls[0], 4)
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.masters.tell(Known(urls[1:], urls[1], 4))
    clock.advance(0)
    assert rig.wire.asked == [urls[0]]


def test_a_deposed_leader_keeps_its_facts_until_a_new_one_must_have_its_own(clock, make):
    """No name is gone while the new leader still waits for its agents (D28)."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.wire.answers = [Answer(307, location="//10.0.0.2:5050")] * 10_000
    rig.wire.streams[0].connectionLost()
    clock.advance(0)
    assert rig.stream.synced
    clock.advance(HOLD - 1)
    assert len(rig.stream.facts.tasks) == 1
    clock.advance(2)
    assert rig.stream.facts is None


def test_a_leader_that_is_elected_again_does_not_let_go(clock, make):
    """Its agents may need ten minutes to be back, and those began when the ones of holding on were nearly over."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.wire.answers = [Answer(307, location="//10.0.0.2:5050")] * 300
    rig.wire.streams[0].connectionLost()
    clock.advance(0)
    for _ in range(300):
        clock.advance(2)
    rig.cluster.fail_over()
    rig.snapshot(heartbeat=600.0)
    assert rig.stream.trouble is not None
    clock.advance(500)
    assert rig.names() == {"web"}
    rig.wire.answers = [Answer(307, location="//10.0.0.2:5050")] * 10_000
    rig.wire.streams[-1].connectionLost()
    clock.advance(2)
    clock.advance(HOLD - 1)
    assert rig.names() == {"web"}
    clock.advance(2)
    assert rig.stream.facts is None


def test_ten_thousand_events_are_few_tellings(clock, make):
    """Each telling holds the whole; the last state is always told."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    before = rig.tellings
    events = []
    rig.cluster.watch(events.append)
    for n in range(5000):
        rig.cluster.update_task(rig.task, healthy=bool(n % 2))
        rig.send(events.pop())
    clock.advance(1)
    assert rig.tellings - before < 5
    (task,) = rig.stream.facts.tasks.values()
    assert task.health == "healthy"


def test_nonsense_each_time_is_asked_for_less_and_less(clock, make):
    """Though each time a whole state came first: a large one every two seconds would be all that both do."""
    rig = make(Masters(HERE))
    rig.stream.start()
    for wait in (2, 4, 8, 16, 30):
        rig.snapshot()
        clock.advance(5)
        rig.wire.streams[-1].dataReceived(b"<html>")
        rig.asks_after(wait)


def test_nothing_is_taken_of_what_follows_nonsense(clock, make):
    """Not even records of the same chunk: nobody knows where one begins, and no timer stays for them."""
    rig = make(Masters(HERE))
    rig.stream.start()
    rig.snapshot()
    clock.advance(20)
    records = rig.stream.records
    gone = record(json.dumps(rig.cluster.subscribed() | {"type": "NEWS"}).encode())
    rig.wire.streams[0].dataReceived(record(b"[]") + gone * 50)
    assert rig.stream.records == records + 1
    assert rig.stream.following is None
    rig.stream.stop()
    assert clock.getDelayedCalls() == []


def test_a_resolver_that_hangs_ends_no_task(clock, make):
    """A new stream is told after ten seconds, with the pids of agents whose names nobody has resolved by then."""
    rig = make(Masters(HERE))
    names = [f"agent-{n}.example" for n in range(9)]
    rig.slow = {name: Deferred() for name in names}
    for n, name in enumerate(names):
        agent = rig.cluster.add_agent(name, pid=f"slave(1)@10.1.0.{n}:5051")
        rig.cluster.add_task(f"t{n}", rig.task[0], agent)
    rig.stream.start()
    rig.snapshot()
    clock.advance(9)
    assert rig.stream.facts is None
    clock.advance(1)
    assert {str(task.agent) for task in rig.stream.facts.tasks.values()} == {
        "10.0.0.5",
        *(f"10.1.0.{n}" for n in range(9)),
    }
    for n, name in enumerate(names):
        rig.slow[name].callback(parse_address(f"10.2.0.{n}"))
    clock.advance(0.1)
    assert {str(task.agent) for task in rig.stream.facts.tasks.values()} == {
        "10.0.0.5",
        *(f"10.2.0.{n}" for n in range(9)),
    }


@pytest.mark.parametrize("mistake", [ZeroDivisionError("oops"), defer.CancelledError()], ids=repr)
def test_a_mistake_of_ours_costs_one_round(mistake, clock, make):
    """It is counted and shows, and masters are looked for again with growing waits, for ever."""
    rig = make(Masters(HERE))
    rig.wire.answers = [mistake] * 8
    rig.stream.start()
    for count, wait in enumerate((2, 4, 8, 16, 30, 30, 30, 30), 1):
        assert rig.stream.connections["error"] == count
        assert "mistake of ours" in rig.stream.trouble
        clock.advance(wait)
    rig.snapshot()
    assert (rig.names(), rig.stream.trouble) == ({"web"}, None)


@pytest.mark.parametrize("rest", [0, 10], ids=["by a timer", "at once"])
def test_what_could_not_be_told_is_told_with_the_next_stream(rest, clock, make):
    """Whoever failed to take a change must not miss it until the next one."""
    rig = make(Masters(HERE))
    events = []
    rig.stream.start()
    rig.snapshot()
    clock.advance(rest)
    rig.cluster.watch(events.append)
    rig.cluster.update_task(rig.task, state="TASK_KILLED")
    rig.faults = 1
    rig.send(events.pop())
    clock.advance(0.1)
    assert (rig.stream.connections["error"], rig.faults) == (1, 0)
    clock.advance(2)
    rig.snapshot()
    assert (rig.stream.facts.tasks, rig.stream.facts.changed, rig.stream.trouble) == ({}, None, None)


# a master that refuses its stream

REFUSES = Answer(403)
NO_STATE = [
    Answer(200, b"<html>please log in</html>"),
    Answer(200, b'{"type":"GET_STATE","get_state":{"get_ta'),
    Answer(200, b"{}"),
    Answer(200, b""),
    Answer(503),
    AccessError(f"{HERE}: refused"),
]


@pytest.mark.parametrize("answer", NO_STATE, ids=str)
def test_an_answer_that_is_none_costs_a_polled_master_one_poll(answer, clock, make):
    """It shows, the last facts stay, and the next answer counts again."""
    rig = make(Masters(HERE))
    rig.wire.answers = [REFUSES] * 3
    rig.wire.states = [rig.state(), answer, answer]
    rig.stream.start()
    clock.advance(0)
    assert (rig.names(), rig.stream.trouble) == ({"web"}, None)
    clock.advance(30)
    clock.advance(0)
    assert (rig.names(), rig.stream.following) == ({"web"}, None)
    assert HERE in rig.stream.trouble
    rig.cluster.add_task("api", rig.task[0], next(iter(rig.cluster.agents)))
    rig.wire.states = [rig.state()]
    clock.advance(2)
    clock.advance(0)
    assert (rig.names(), rig.stream.trouble) == ({"web", "api"}, None)


def test_a_master_that_is_polled_no_more_is_told_of_no_more(clock, make):
    """Its old snapshot, which still waited for an agent, must not come after the news of its stream."""
    rig = make(Masters(HERE))
    rig.cluster.fail_over()
    rig.wire.answers = [REFUSES]
    rig.wire.states = [rig.state(), AccessError("refused")]
    rig.stream.start()
    clock.advance(30)
    clock.advance(0)
    agent = next(iter(rig.cluster.agents))
    rig.cluster.register_again(agent)
    rig.cluster.add_task("api", rig.task[0], agent)
    rig.snapshot(heartbeat=600.0)
    assert rig.names() == {"web", "api"}
    clock.advance(700)
    assert rig.names() == {"web", "api"}


def test_a_polled_master_that_lost_the_election_is_left_at_once(clock, make):
    """As one that streams is."""
    rig = make(Masters(ELSEWHERE, "http://10.0.0.3:5050"))
    rig.masters.known = Known(rig.masters.known.masters, ELSEWHERE, 4)
    rig.wire.answers = [REFUSES]
    rig.wire.states = [rig.state()]
    rig.stream.start()
    clock.advance(10)
    rig.masters.tell(Known(rig.masters.known.masters, "http://10.0.0.3:5050", 5))
    clock.advance(0)
    assert rig.wire.asked == [ELSEWHERE, "http://10.0.0.3:5050"]
    rig.snapshot()
    assert (rig.stream.facts.leader.epoch, len(rig.wire.polled)) == (5, 1)


def test_a_polled_master_that_sends_us_on_is_not_polled(clock, make):
    rig = make(Masters(HERE))
    rig.wire.answers = [REFUSES, Answer(307, location="//10.0.0.2:5050")]
    rig.wire.states = [rig.state(), Answer(307, location="//10.0.0.2:5050")]
    rig.stream.start()
    clock.advance(30)
    clock.advance(0)
    assert (rig.stream.synced, rig.stream.trouble, rig.stream.following) == (True, None, None)
    assert rig.names() == {"web"}


# the border of a stream


def test_what_comes_with_the_answer_is_the_word_of_who_answered(clock, make):
    """The first bytes are there before anybody knows that the stream is: not the old leader said them."""
    rig = make(Masters(ELSEWHERE, "http://10.0.0.3:5050"))
    rig.masters.known = Known(rig.masters.known.masters, ELSEWHERE, 4)
    rig.stream.start()
    rig.snapshot()
    clock.advance(10)
    rig.wire.early = record(json.dumps(rig.cluster.subscribed()).encode())
    rig.masters.tell(Known(rig.masters.known.masters, "http://10.0.0.3:5050", 5))
    clock.advance(0)
    assert rig.stream.facts.leader.epoch == 5
    assert {master for url, master in rig.leaders if url == "http://10.0.0.3:5050"} == {"10.0.0.3:5050"}


def test_stopping_while_an_answer_is_awaited_leaves_nothing(clock, make):
    rig = make(Masters(HERE))
    waiting = Deferred()
    rig.wire.subscribe = lambda url, receive: waiting
    rig.stream.start()
    rig.stream.stop()
    assert waiting.called
    assert clock.getDelayedCalls() == []
