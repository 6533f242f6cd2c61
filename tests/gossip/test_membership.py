"""Membership of a node that has no peers."""

from ipaddress import ip_address

from twisted.internet.task import Clock

from dcosnet.gossip.membership import Membership
from dcosnet.io.turns import Turns
from dcosnet.model.member import Member
from dcosnet.model.node import Node
from dcosnet.testing.contracts.membership import membership_contract
from dcosnet.testing.fake_membership import FakeMembership

NODE = Node("a", ip_address("127.0.0.1"))


class TestAlone(membership_contract(lambda: (Membership(NODE, Turns(Clock()).later), "a"))):
    """The contract."""


def fake():
    return FakeMembership([Member("a", (NODE.address,))], Turns(Clock()).later), "a"


class TestFake(membership_contract(fake)):
    """The fake that others are tested with keeps the contract, too."""


def test_without_peers_this_node_is_the_only_member(clock, turns):
    """And a reader hears it on the next turn."""
    heard = []
    Membership(NODE, turns.later).members.subscribe(lambda members, changed: heard.append((dict(members), changed)))
    assert heard == []
    clock.advance(0)
    assert heard == [({"a": Member("a", (ip_address("127.0.0.1"),))}, None)]
