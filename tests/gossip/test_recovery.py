"""When a node that lost its disk has asked enough: nothing acknowledged is lost, and a new node is not held up."""

import pytest

from dcosnet.gossip.recovery import PATIENCE, PEERS, Recovery


class Replica:
    def __init__(self, fresh=True):
        self.fresh = fresh
        self.calls = []

    def recover(self):
        self.calls.append("recover")

    def recovered(self):
        self.calls.append("recovered")


@pytest.fixture
def replica():
    return Replica()


def test_a_node_with_its_journal_asks_nobody():
    """It knows what it said."""
    replica = Replica(fresh=False)
    recovery = Recovery(replica, 0.0)
    assert not recovery.active
    assert recovery.due() is None
    assert not recovery.settle(99.0, 3, askable=True)
    assert replica.calls == []


def test_two_peers_are_enough_and_one_is_not(replica):
    """One of them may lack the last write."""
    recovery = Recovery(replica, 0.0)
    assert replica.calls == ["recover"]
    recovery.told("b", 1.0)
    recovery.told("b", 1.1)
    assert not recovery.settle(1.1, 3, askable=True)
    recovery.told("c", 1.2)
    assert PEERS == 2
    assert recovery.settle(1.2, 3, askable=True)
    assert not recovery.settle(1.3, 3, askable=True)
    assert replica.calls == ["recover", "recovered"]
    assert recovery.due() is None


def test_the_only_other_that_is_alive_is_enough(replica):
    """In a cluster of two there is no second one."""
    recovery = Recovery(replica, 0.0)
    recovery.told("b", 1.0)
    assert recovery.settle(1.0, 1, askable=True)


def test_for_a_second_one_it_waits_ten_seconds(replica):
    """From when the first has told."""
    recovery = Recovery(replica, 0.0)
    recovery.told("b", 8.0)
    recovery.told("b", 9.0)
    assert recovery.due() == 8.0 + PATIENCE
    assert not recovery.settle(8.0 + PATIENCE - 0.1, 3, askable=True)
    assert recovery.settle(8.0 + PATIENCE, 3, askable=True)


def test_while_there_is_somebody_to_ask_it_asks(replica):
    """What was promised may be with them; `due` does not stand still in the past."""
    recovery, now = Recovery(replica, 0.0), 0.0
    for _ in range(50):
        now = recovery.due()
        assert not recovery.settle(now, 0, askable=True)
        assert recovery.due() > now
    assert recovery.active


def test_where_nobody_is_known_it_begins_after_ten_seconds(replica):
    """The first node of a cluster."""
    recovery = Recovery(replica, 0.0)
    assert not recovery.settle(PATIENCE - 0.1, 0, askable=False)
    assert recovery.settle(PATIENCE, 0, askable=False)
