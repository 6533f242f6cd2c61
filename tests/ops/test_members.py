"""Members and nodes: who is there, and who has said so since somebody asked."""

from __future__ import annotations

import json
from ipaddress import ip_address

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred

from dcosnet.interfaces import IViews
from dcosnet.model.member import Accusation, Member, MemberDetail, MemberState, Refusal
from dcosnet.model.node import Node
from dcosnet.model.rest import RestRequest
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.ops.http import encode
from dcosnet.ops.rest.members import Members
from dcosnet.ops.rest.nodes import WAIT_MAX, Nodes
from dcosnet.testing.contracts.rest import get
from dcosnet.testing.fake_membership import FakeMembership

HOST_A, HOST_B = ip_address("10.0.0.1"), ip_address("10.0.0.2")
NODE_A = Node("host-a", HOST_A, (ip_address("192.0.2.1"), ip_address("fd00::1")), "1", 100.0, 1_700_000_000.5)
NODE_B = Node("host-b", HOST_B, (), "1", 200.0)


def test_members_tell_how_each_one_fares(turns) -> None:
    """State and its age, who accuses and why, and what a person should look at."""
    membership = FakeMembership(
        [Member("host-b", (HOST_B,), MemberState.UNREACHABLE), Member("host-a", (HOST_A,))], turns.later, "no peer yet"
    )
    membership.fares["host-b"] = MemberDetail(
        age=12.3456,
        endpoints=("10.0.0.2:62501",),
        generation=7,
        incarnation=2,
        accused_by=(Accusation("host-c", "silent", 13.0), Accusation("host-a", "refused", 12.0004)),
        problem="its clock is 1h ahead",
        skew=3600.0,
    )
    membership.fares["host-a"] = MemberDetail(age=60.0, linked=True, rtt=0.00123456)
    membership.refused = [Refusal("10.0.0.9:40000", "wrong_cluster", "it is of 'test'", theirs=False, age=1.0, count=3)]
    told = json.loads(encode(get(Members("host-a", membership)).body))
    assert (told["node"], told["unsynced"]) == ("host-a", "no peer yet")
    first, second = told["members"]
    assert (first["name"], first["state"], first["rtt_seconds"], first["linked"]) == ("host-a", "alive", 0.001235, True)
    assert second == {
        "name": "host-b",
        "state": "unreachable",
        "age_seconds": 12.346,
        "degraded": False,
        "problem": "its clock is 1h ahead",
        "accused_by": [
            {"accuser": "host-c", "reason": "silent", "age_seconds": 13.0},
            {"accuser": "host-a", "reason": "refused", "age_seconds": 12.0},
        ],
        "addresses": ["10.0.0.2"],
        "endpoints": ["10.0.0.2:62501"],
        "generation": 7,
        "incarnation": 2,
        "linked": False,
        "rtt_seconds": None,
        "skew_seconds": 3600.0,
    }
    assert told["refusals"] == [
        {
            "peer": "10.0.0.9:40000",
            "reason": "wrong_cluster",
            "text": "it is of 'test'",
            "by": "node",
            "age_seconds": 1.0,
            "count": 3,
        }
    ]


class Fleet:
    """Nodes that a test lets answer."""

    def __init__(self, toolbox, clock):
        self.views = toolbox[IViews]
        self.clock = clock
        self.nodes = {node.name: node for node in (NODE_A, NODE_B)}
        self.members = {node.name: Member(node.name, (node.address,)) for node in (NODE_A, NODE_B)}
        self.resource = Nodes(self.views, clock)
        self.publish()

    def publish(self) -> None:
        owned = {f"node/{name}": Owned(node, name, Stamp(1, 0, name)) for name, node in self.nodes.items()}
        self.views.snapshot.publish(Snapshot({}, owned, dict(self.members)))
        self.clock.advance(0)

    def answer(self, name: str, number: int = 1) -> None:
        self.nodes[name] = attrs.evolve(self.nodes[name], refresh=number)
        self.publish()

    def is_now(self, name: str, state: MemberState) -> None:
        self.members[name] = attrs.evolve(self.members[name], state=state)
        self.publish()

    def ask(self) -> Deferred:
        asked = self.resource.respond(RestRequest("GET", "/v1/nodes", query={"force": ""}))
        assert isinstance(asked, Deferred)
        self.clock.advance(0)
        return asked


@pytest.fixture
def fleet(toolbox, clock) -> Fleet:
    return Fleet(toolbox, clock)


def told(asked: Deferred) -> list[str]:
    """The hosts of a reply that has come."""
    results: list[object] = []
    asked.addCallback(results.append)
    assert results, "there is no reply yet"
    return [row["hostname"] for row in json.loads(encode(results[0].body))]


def test_nodes_have_the_shape_of_dcos_net(fleet: Fleet) -> None:
    """Sorted by address; who does not say when he wrote, wrote at his start."""
    assert json.loads(encode(get(fleet.resource).body)) == [
        {
            "private_ip": "10.0.0.1",
            "public_ips": ["192.0.2.1", "fd00::1"],
            "hostname": "host-a",
            "updated": "2023-11-14T22:13:20.500Z",
        },
        {"private_ip": "10.0.0.2", "public_ips": [], "hostname": "host-b", "updated": "1970-01-01T00:03:20.000Z"},
    ]
    assert fleet.views.asked == []


def test_who_forces_waits_until_all_have_answered(fleet: Fleet) -> None:
    """What is then told was written after he asked, whatever anybody's clock says."""
    asked = fleet.ask()
    fleet.answer("host-b")
    assert not asked.called
    fleet.answer("host-a")
    assert told(asked) == ["host-a", "host-b"]
    assert fleet.clock.getDelayedCalls() == []


def test_an_answer_to_an_older_question_is_none(fleet: Fleet) -> None:
    """Each round has a greater number."""
    first = fleet.ask()
    for name in fleet.nodes:
        fleet.answer(name)
    assert first.called
    second = fleet.ask()
    fleet.publish()
    assert not second.called
    for name in fleet.nodes:
        fleet.answer(name, 2)
    assert second.called


def test_a_member_that_cannot_be_reached_is_not_waited_for(fleet: Fleet) -> None:
    """Nor one that becomes unreachable meanwhile, nor one that joins."""
    fleet.is_now("host-b", MemberState.UNREACHABLE)
    asked = fleet.ask()
    fleet.answer("host-a")
    assert asked.called
    fleet.is_now("host-b", MemberState.ALIVE)
    asked = fleet.ask()
    fleet.members["host-c"] = Member("host-c", (ip_address("10.0.0.3"),))
    fleet.answer("host-a", 2)
    assert not asked.called
    fleet.is_now("host-b", MemberState.UNREACHABLE)
    assert told(asked) == ["host-a", "host-b"]


def test_a_member_without_an_entry_is_waited_for_and_not_for_ever(fleet: Fleet) -> None:
    """After five minutes the answer is what is known."""
    del fleet.nodes["host-b"]
    asked = fleet.ask()
    fleet.answer("host-a")
    fleet.clock.advance(WAIT_MAX - 1)
    assert not asked.called
    fleet.clock.advance(1)
    assert told(asked) == ["host-a"]


def test_those_who_ask_at_once_share_a_round(fleet: Fleet) -> None:
    """However many ask, each node writes once."""
    first, second = fleet.ask(), fleet.ask()
    assert fleet.views.asked == [1]
    fleet.answer("host-a")
    fleet.answer("host-b")
    assert first.called
    assert second.called


def test_who_does_not_wait_any_more_ends_the_round_when_he_was_the_last(fleet: Fleet) -> None:
    """Nothing is left behind of a client that went away."""
    first, second = fleet.ask(), fleet.ask()
    for each in (first, second):
        each.addErrback(lambda failure: failure.trap(CancelledError))
    first.cancel()
    assert fleet.clock.getDelayedCalls() != []
    second.cancel()
    assert fleet.clock.getDelayedCalls() == []
    third = fleet.ask()
    assert fleet.views.asked == [1, 2]
    for name in fleet.nodes:
        fleet.answer(name, 2)
    assert third.called


def test_the_dead_are_not_among_the_nodes(fleet: Fleet) -> None:
    """Their entries are leases; dcos-net kept them for ever."""
    del fleet.nodes["host-b"]
    fleet.is_now("host-b", MemberState.DEAD)
    assert [row["hostname"] for row in json.loads(encode(get(fleet.resource).body))] == ["host-a"]
