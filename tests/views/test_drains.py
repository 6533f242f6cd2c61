"""Drains of several nodes in several stores: whoever begins one, anybody may end it, and all come to see the same."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dcosnet.errors import PeerError
from dcosnet.model.delta import NOTHING
from dcosnet.model.drain import Drain, DrainedHost, Left, Progress, key_of
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.snapshot import Owned
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig
from dcosnet.views.drains import KEEP_END, Drains
from dcosnet.views.values import decode_drain, decode_progress, encode_drain

HOST = DrainedHost("host-x")
OTHER = DrainedHost(ip_address("10.0.0.1"))
NAMES = ("a", "b", "c")


class Node:
    """A store with what writes its drains."""

    def __init__(self, directory: Path, name: str, disk: MemoryDisk | None = None) -> None:
        self.rig = StoreRig(directory / name, disk, node=name)
        self.name = name
        self.make()

    def make(self) -> None:
        self.drains = Drains(self.name, self.rig.store, self.held, lambda: self.rig.now)

    def held(self) -> dict[str, Owned[Drain]]:
        entries = self.rig.store.entries("drain/")
        return {key: Owned(decode_drain(key, one.value), one.owner, one.created) for key, one in entries.items()}

    def on(self) -> set[str]:
        return {key for key, owned in self.held().items() if owned.value.on}

    def hear(self, other: Node) -> None:
        """Take all that another one knows."""
        for owner in list(other.rig.store.known()):
            if owner != self.name:
                known = self.rig.store.known().get(owner, NOTHING)
                delta = other.rig.store.missing(owner, known, 1 << 40)
                if delta is not None:
                    self.rig.store.take(delta)
        self.rig.turn()


@pytest.fixture
def nodes(tmp_path):
    for name in NAMES:
        (tmp_path / name).mkdir()
    some = [Node(tmp_path, name) for name in NAMES]
    yield some
    for one in some:
        one.rig.stop()


def gossip(*nodes: Node) -> None:
    for _ in nodes:
        for one in nodes:
            for other in nodes:
                one.hear(other)


def tidy(*nodes: Node) -> None:
    for _ in nodes:
        for one in nodes:
            one.drains.tidy()
        gossip(*nodes)


def test_a_drain_is_seen_by_all_with_who_said_it(nodes) -> None:
    a, b, _ = nodes
    a.drains.begin(HOST, "root", "new kernel")
    b.hear(a)
    (owned,) = b.held().values()
    assert (owned.owner, owned.value) == ("a", Drain(HOST, "root", a.rig.now, "new kernel"))


def test_a_drain_survives_its_node(nodes) -> None:
    """It outlives the host that was asked: it is durable there, and others keep it when that host is dead."""
    a, b, _ = nodes
    a.drains.begin(HOST, "", "")
    b.hear(a)
    b.rig.store.judge("a", MemberState.DEAD)
    assert b.on() == {key_of(HOST)}
    a.rig.restart()
    assert a.on() == {key_of(HOST)}


def test_the_end_of_an_own_drain_leaves_nothing(nodes) -> None:
    a, b, _ = nodes
    a.drains.begin(HOST, "", "")
    gossip(a, b)
    assert a.drains.end(HOST) is not None
    gossip(a, b)
    assert (a.held(), b.held()) == ({}, {})
    assert a.drains.end(HOST) is None


def test_another_node_ends_a_drain_also_while_its_own_is_away(nodes) -> None:
    """What was away comes back with the older word, and that does not count."""
    a, b, c = nodes
    a.drains.begin(HOST, "", "")
    gossip(a, b, c)
    assert b.drains.end(HOST) is not None
    gossip(b, c)
    assert not c.on()
    assert a.on()
    gossip(a, b, c)
    assert not a.on()


def test_what_was_ended_goes_everywhere_and_the_end_a_day_later(nodes) -> None:
    """The end outlives what it ends, so that the order of news does not matter; then nothing is left."""
    a, b, _ = nodes
    a.drains.begin(HOST, "", "")
    gossip(*nodes)
    b.drains.end(HOST)
    gossip(*nodes)
    tidy(*nodes)
    assert b.rig.store.owners(key_of(HOST)) == {"b"}
    assert not b.on()
    b.rig.now += KEEP_END + 1
    tidy(*nodes)
    assert [one.held() for one in nodes] == [{}, {}, {}]


def test_the_end_stays_while_what_it_ends_does(nodes) -> None:
    """A host that is away for weeks still has its drain on its disk."""
    a, b, c = nodes
    a.drains.begin(HOST, "", "")
    gossip(*nodes)
    b.drains.end(HOST)
    b.rig.now += 100 * KEEP_END
    tidy(b, c)
    assert (b.on(), c.on()) == (set(), set())
    assert b.rig.store.owners(key_of(HOST)) == {"a", "b"}


def test_the_end_stays_for_a_day_after_what_it_ends_has_gone(nodes) -> None:
    """Else who hears first that the end is gone, and then that the drain is, drains anew in between."""
    a, b, _ = nodes
    a.drains.begin(HOST, "", "")
    gossip(*nodes)
    b.drains.end(HOST)
    b.rig.now += 2 * KEEP_END
    gossip(*nodes)
    a.drains.tidy()
    gossip(*nodes)
    tidy(*nodes)
    assert b.rig.store.owners(key_of(HOST)) == {"b"}
    b.rig.now += KEEP_END + 1
    tidy(*nodes)
    assert b.rig.store.owners(key_of(HOST)) == set()


def test_ending_a_drain_that_two_nodes_have_begun_ends_both(nodes) -> None:
    """Without an end that stays, the older one would come to light."""
    a, b, _ = nodes
    a.drains.begin(HOST, "", "first")
    gossip(*nodes)
    b.drains.begin(HOST, "", "second")
    b.drains.end(HOST)
    gossip(*nodes)
    assert [one.on() for one in nodes] == [set(), set(), set()]


def test_what_is_begun_again_keeps_its_time_while_it_is_on(nodes) -> None:
    """A new note does not make a new drain of it; an end between them does."""
    a, b, _ = nodes
    a.drains.begin(HOST, "", "")
    began = a.rig.now
    gossip(a, b)
    b.rig.now = began + 10
    b.drains.begin(HOST, "root", "a note")
    assert b.held()[key_of(HOST)].value == Drain(HOST, "root", began, "a note")
    b.drains.end(HOST)
    b.drains.begin(HOST, "", "")
    assert b.held()[key_of(HOST)].value.since == began + 10


def test_an_entry_that_cannot_be_read_is_no_drain_and_is_replaced(nodes) -> None:
    a = nodes[0]
    a.rig.store.write({key_of(HOST): b"\xff"}, Lifetime.DURABLE)
    assert a.drains.end(HOST) is None
    a.drains.begin(HOST, "", "")
    assert a.on() == {key_of(HOST)}


def test_progress_is_a_lease_of_this_node_until_there_is_nothing_to_tell(nodes) -> None:
    a, b, _ = nodes
    progress = {key_of(HOST): Progress(5.0, {"tcp/10.0.0.1:80": Left(3)})}
    a.drains.tell(progress)
    b.hear(a)
    entry = b.rig.store.get("draining/a")
    assert entry is not None
    assert decode_progress(entry.value) == progress
    b.rig.store.judge("a", MemberState.DEAD)
    assert b.rig.store.get("draining/a") is None
    a.drains.tell(None)
    assert a.rig.store.get("draining/a") is None


def test_a_key_that_is_not_written_in_full_is_no_drain(nodes) -> None:
    """Two keys of one thing could not be ended by its name."""
    for key in ("drain/10.0.0.1", "drain/web.shop", "drain/nonsense/", "drain/"):
        with pytest.raises(PeerError):
            decode_drain(key, encode_drain(Drain(OTHER)))


class Operators(RuleBasedStateMachine):
    """People on three nodes; what one of them said last, of all that was heard where it was said, holds in the end."""

    whats = st.sampled_from([HOST, OTHER])
    names = st.sampled_from(range(len(NAMES)))

    @initialize()
    def start(self) -> None:
        self.nodes = [Node(Path("/memory"), name, MemoryDisk(Path("/memory") / name)) for name in NAMES]
        self.last: dict[str, bool] = {}

    def heard_all(self, number: int) -> None:
        # So that "last" is one order: each person looks at what all said before.
        for other in self.nodes:
            self.nodes[number].hear(other)
        for one in self.nodes:
            one.rig.now += 1

    @rule(number=names, what=whats)
    def begin(self, number, what) -> None:
        self.heard_all(number)
        self.nodes[number].drains.begin(what, "", "")
        self.last[key_of(what)] = True

    @rule(number=names, what=whats)
    def end(self, number, what) -> None:
        self.heard_all(number)
        self.nodes[number].drains.end(what)
        self.last[key_of(what)] = False

    @rule(number=names)
    def tidy(self, number) -> None:
        self.nodes[number].drains.tidy()

    @rule(number=names, other=names)
    def hear(self, number, other) -> None:
        self.nodes[number].hear(self.nodes[other])

    @rule(number=names)
    def restart(self, number) -> None:
        self.nodes[number].rig.restart()
        self.nodes[number].make()

    @rule()
    def long_after(self) -> None:
        for one in self.nodes:
            one.rig.now += KEEP_END + 1

    def teardown(self) -> None:
        """Who hears of all sees what was said last; and in the end nothing is left of what was ended."""
        on = {key for key, said in self.last.items() if said}
        gossip(*self.nodes)
        assert [one.on() for one in self.nodes] == [on] * 3
        self.long_after()
        tidy(*self.nodes)
        self.long_after()
        tidy(*self.nodes)
        assert [set(one.held()) for one in self.nodes] == [on] * 3
        for one in self.nodes:
            one.rig.stop()


TestOperators = Operators.TestCase
TestOperators.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
