"""Membership as other parts see it: alone, and as the core's views change."""

from ipaddress import ip_address

import attrs
from twisted.internet.task import Clock

from dcosnet.gossip.membership import REFUSALS, REFUSED_FOR, Membership
from dcosnet.gossip.table import MemberView
from dcosnet.io.turns import Turns
from dcosnet.model.member import Accusation, Member, MemberState
from dcosnet.model.node import Node
from dcosnet.testing.contracts.membership import membership_contract

HERE, THERE = ip_address("127.0.0.1"), ip_address("10.0.0.2")
NODE = Node("a", HERE)
A = MemberView("a", MemberState.ALIVE, 1, 0, 1, (), ("127.0.0.1",), 0.0)
B = MemberView(
    "b", MemberState.ALIVE, 7, 2, 1, ("10.0.0.2:62501",), ("10.0.0.2", "nonsense"), 5.0, rtt=0.1, linked=True
)


def membership(clock, unsynced=None):
    return Membership(NODE, Turns(clock).later, clock.seconds, unsynced)


def of(views, clock, superseded=None):
    made = membership(clock)
    made.follow(views, lambda: superseded)
    made.update(views)
    return made


class TestAlone(membership_contract(lambda: (membership(Clock()), "a"))):
    """The contract, without a cluster."""


class TestWithOthers(membership_contract(lambda: (of({"a": A, "b": B}, Clock()), "a"))):
    """The contract, with a peer."""


def test_without_peers_this_node_is_the_only_member(clock, turns):
    """And a reader hears it on the next turn."""
    heard = []
    membership(clock).members.subscribe(lambda members, changed: heard.append((dict(members), changed)))
    assert heard == []
    clock.advance(0)
    assert heard == [({"a": Member("a", (HERE,))}, None)]


def test_what_others_decide_by_is_published_and_the_rest_is_not(clock):
    """A round trip is another one each second; nobody is woken for that."""
    views = {"a": A, "b": B}
    made = of(views, clock)
    assert made.members.value["b"] == Member("b", (THERE,))
    revision = made.members.revision
    views["b"] = attrs.evolve(B, rtt=0.2, sequence=2)
    assert made.update({"b"}) == []
    assert made.members.revision == revision
    views["b"] = attrs.evolve(B, state=MemberState.UNREACHABLE)
    ((view, before),) = made.update({"b"})
    assert (view.state, before.state) == (MemberState.UNREACHABLE, MemberState.ALIVE)
    assert made.members.value["b"].state is MemberState.UNREACHABLE
    del views["b"]
    made.update({"b"})
    assert "b" not in made.members.value


def test_this_node_is_alive_for_as_long_as_it_can_say_so(clock):
    """Whatever it tells others when it leaves."""
    made = of({"a": attrs.evolve(A, state=MemberState.LEFT)}, clock)
    assert made.members.value["a"].state is MemberState.ALIVE


def test_details_tell_ages_and_accusers(clock):
    """In seconds until now."""
    clock.advance(20)
    made = of({"a": A, "b": attrs.evolve(B, accused_by=(("c", "silent", 18.0),))}, clock)
    detail = made.details()["b"]
    assert (detail.age, detail.generation, detail.incarnation, detail.rtt, detail.linked) == (15.0, 7, 2, 0.1, True)
    assert detail.accused_by == (Accusation("c", "silent", 2.0),)


def test_a_clock_that_differs_from_all_others_is_this_nodes_problem(clock):
    """Of two nobody can say which is wrong; of three one can."""
    skewed = {name: attrs.evolve(B, name=name, skew=3600.0) for name in ("b", "c")}
    assert "3600 s behind" in of({"a": A, **skewed}, clock).details()["a"].problem
    assert of({"a": A, "b": skewed["b"]}, clock).details()["a"].problem is None
    skewed["c"] = attrs.evolve(B, name="c", skew=0.0)
    skewed["d"] = attrs.evolve(B, name="d", skew=0.0)
    assert of({"a": A, **skewed}, clock).details()["a"].problem is None


def test_what_is_wrong_with_this_node_is_its_problem(clock):
    """Accused by others, or superseded, which goes before."""
    accused = attrs.evolve(A, accused_by=(("b", "silent", 0.0),))
    assert of({"a": accused}, clock).details()["a"].problem == "b cannot reach this node"
    assert of({"a": accused}, clock, "another a").details()["a"].problem == "another a"


def test_refusals_are_counted_by_peer_and_reason_for_ten_minutes(clock):
    """The last one first; what goes on is news once."""
    made = membership(clock)
    assert made.refuse("b", "expired", "old", theirs=False)
    assert made.refuse("c", "foreign", "who", theirs=True)
    clock.advance(1)
    assert not made.refuse("b", "expired", "older", theirs=False)
    clock.advance(2)
    first, second = made.refusals()
    assert (first.peer, first.text, first.count, first.age, first.theirs) == ("b", "older", 2, 2.0, False)
    assert (second.peer, second.count, second.theirs) == ("c", 1, True)
    clock.advance(REFUSED_FOR)
    assert made.refusals() == []
    assert made.refuse("b", "expired", "again", theirs=False)
    assert made.refusals()[0].count == 1


def test_refusals_are_bounded(clock):
    """Whoever can connect can be refused."""
    made = membership(clock)
    for number in range(REFUSALS + 10):
        made.refuse(str(number), "protocol", "", theirs=False)
    assert [one.peer for one in made.refusals()] == [str(number) for number in range(REFUSALS + 9, 9, -1)]


def test_being_in_step_is_told_once(clock):
    """It does not come back."""
    made = membership(clock, "waits")
    heard = []
    made.unsynced.subscribe(lambda value, _: heard.append(value))
    clock.advance(0)
    made.sync()
    made.sync()
    clock.advance(0)
    assert heard == ["waits", None]
    assert made.unsynced.revision == 1
