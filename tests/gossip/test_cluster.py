"""What nodes do with each other, carried by hand: every line of it could be a line in a log."""

from __future__ import annotations

import pytest

from dcosnet.gossip.cluster import HELLO_PATIENCE, LINKS_LIMIT, PROBLEM_FOR
from dcosnet.gossip.effects import ClockDiffers, LinkRefused, Paused, Superseded
from dcosnet.gossip.faults import FOR, MANY
from dcosnet.gossip.messages import (
    Accusation,
    Close,
    CloseCode,
    Digest,
    Doubted,
    Frontier,
    Have,
    Members,
    Ping,
    Pong,
    Pull,
    Record,
    Told,
)
from dcosnet.gossip.table import KEPT_FOR, MEMBERS_LIMIT, SHARED_FOR
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

from .hands import DISK, World

ALIVE, UNREACHABLE, DEAD, LEFT = MemberState.ALIVE, MemberState.UNREACHABLE, MemberState.DEAD, MemberState.LEFT


@pytest.fixture
def world():
    return World()


def linked(world, *names):
    """Nodes that know each other; the first is everybody's seed."""
    nodes = [world.start(name, *([names[0]] if name != names[0] else [])) for name in names]
    world.run(5)
    assert all(set(node.core.links) == set(names) - {node.name} for node in nodes)
    return nodes


def refusals(node):
    return [(event.who, event.code, event.theirs) for event in node.said(LinkRefused)]


# Links


def test_two_that_dial_each_other_keep_one_link(world):
    """Both decide alike, without a word."""
    a, b = world.start("a", "b"), world.start("b", "a")
    world.run(3)
    assert [len(node.ends) for node in (a, b)] == [1, 1]
    assert set(a.core.links) == {"b"}
    assert a.core.links["b"].dialled is True, "the lower name's link stays"
    assert refusals(a) == refusals(b) == []


def test_what_one_says_the_other_knows(world):
    """Keys, over whatever links there are."""
    a, b, c = linked(world, "a", "b", "c")
    a.rig.store.write({"k": b"1"}, Lifetime.LEASE)
    world.run(1)
    assert b.rig.store.get("k").value == c.rig.store.get("k").value == b"1"
    assert a.core.joined
    assert b.core.joined


def test_a_restart_takes_the_place_of_what_was(world):
    """Its generation is greater; nobody is refused."""
    a, b = linked(world, "a", "b")
    disk = b.rig.disk
    b.rig.crash()
    world.stop(b)
    again = world.start("b", "a", rig=StoreRig(DISK, disk, "b"))
    world.run(3)
    assert a.state("b") is ALIVE
    assert a.core.table.record("b").generation == again.core.table.own.generation
    assert set(again.core.links) == {"a"}
    assert refusals(a) == []


def test_who_is_killed_is_unreachable_at_once_and_dead_after_five_seconds(world):
    """Its host refuses the dial."""
    a, b, c = linked(world, "a", "b", "c")
    c.rig.store.write({"k": b"1"}, Lifetime.LEASE)
    world.run(1)
    world.stop(c)
    world.run(0.5)
    assert a.state("c") is b.state("c") is UNREACHABLE
    assert a.rig.store.get("k") is not None
    world.run(6)
    assert a.state("c") is b.state("c") is DEAD
    assert a.rig.store.get("k") is None


def test_who_is_silent_is_found_by_pings(world):
    """No packet comes, and nobody says so."""
    a, b, _ = linked(world, "a", "b", "c")
    world.part("c")
    world.run(3.5)
    assert a.state("c") is b.state("c") is UNREACHABLE
    assert a.state("b") is ALIVE


def test_halves_that_meet_again_have_nobody_dead(world):
    """Each refutes, and all know the same."""
    nodes = linked(world, "a", "b", "c", "d")
    a, _b, c, d = nodes
    world.part("c", "d")
    world.run(45)
    assert [a.state("c"), a.state("d"), c.state("a"), d.state("b")] == [DEAD] * 4
    assert a.state("b") is c.state("d") is ALIVE
    a.rig.store.write({"k": b"1"}, Lifetime.LEASE)
    world.apart.clear()
    world.run(25)
    assert all(node.states() == dict.fromkeys("abcd", "alive") for node in nodes)
    assert c.rig.store.get("k").value == b"1"


def test_who_leaves_is_gone_at_once(world):
    """It says so itself; no link is tried again, and nobody is accused."""
    a, b, c = linked(world, "a", "b", "c")
    c.core.leave(world.now)
    world.run(0.1)
    assert a.state("c") is b.state("c") is LEFT
    world.dialled.clear()
    world.run(20)
    assert not [one for one in world.dialled if one[1] == "c:1"]
    assert a.core.table.own.accuses == ()
    assert c.core.due() is None


def test_a_node_that_was_paused_accuses_nobody(world):
    """It was not there to hear them."""
    a, b, c = linked(world, "a", "b", "c")
    sequence = a.core.table.own.sequence
    a.asleep = True
    world.run(20)
    assert b.state("a") is not ALIVE
    a.asleep = False
    world.run(5)
    assert a.said(Paused)
    assert a.core.health
    assert all(not one.core.table.own.accuses for one in (a, b, c))
    assert a.core.table.own.sequence > sequence, "it refutes"
    assert all(node.states() == dict.fromkeys("abc", "alive") for node in (a, b, c))


def test_a_pause_amid_two_pings_loses_no_link(world):
    """The answer may be in a buffer of this process, which did not run to read it."""
    # The end that dialled pings first; the other one has not begun to look by then.
    one, other = sorted(linked(world, "a", "b"), key=lambda node: not next(iter(node.core.links.values())).dialled)
    link = one.core.links[other.core.table.name]
    world.part("b")
    for _ in range(300):
        world.run(0.01)
        if link.probe.tries == 2:
            break
    assert link.probe.tries == 2
    one.asleep = True
    world.apart.clear()
    world.run(0.4)
    one.asleep = False
    world.run(0.05)
    assert one.core.links.get(other.core.table.name) is link


def test_a_short_pause_of_all_harms_nobody(world):
    """A host that was suspended with all its processes."""
    nodes = linked(world, "a", "b", "c")
    world.leap(30)
    world.run(5)
    assert all(node.states() == dict.fromkeys("abc", "alive") for node in nodes)
    assert all(node.core.table.own.incarnation == 0 for node in nodes)


def test_a_node_dials_whom_it_lost_long_ago(world):
    """For 72 hours, once in a while; then it has forgotten."""
    a, b = linked(world, "a", "b")
    world.part("b")
    world.run(40)
    assert a.state("b") is DEAD
    b.asleep = True
    world.leap(SHARED_FOR + 60)
    world.run(70)
    assert a.core.table.told("b") is None, "spoken of no more"
    world.dialled.clear()
    world.run(30)
    assert ("a", "b:1") in world.dialled
    world.leap(KEPT_FOR - SHARED_FOR)
    world.run(130)
    assert a.state("b") is None
    assert "b" not in a.rig.store.known()


# Who is refused


def test_another_cluster_is_refused(world):
    """And none of its members is taken."""
    a = world.start("a")
    b = world.start("b", "a", cluster="test")
    world.run(3)
    assert ("b", CloseCode.WRONG_CLUSTER, False) in refusals(a)
    assert "b" not in a.core.table
    assert "a" not in b.core.table
    tries = len(world.dialled)
    world.run(100)
    assert len(world.dialled) <= tries + 2, "not again for five minutes"


def test_a_name_that_the_certificate_does_not_have_is_refused(world):
    """And the one whose certificate it is has to answer for it."""
    a, _b = linked(world, "a", "b")
    liar = world.stranger(a, "b", certified="mallory")
    assert liar.closed == CloseCode.IDENTITY
    assert refusals(a) == [("mallory", CloseCode.IDENTITY, False)]
    assert a.core.members["b"].problem is None
    assert a.core.members["b"].linked


def test_of_two_processes_with_one_name_the_older_steps_back(world):
    """It says so, and writes to nobody any more."""
    a, b = linked(world, "a", "b")
    newer = StoreRig(DISK, MemoryDisk(DISK), "b")
    newer.now += 100
    newer.restart()
    twin = world.start("b", "a", rig=newer, endpoint="elsewhere:1")
    world.run(5)
    assert twin.core.superseded is None
    assert b.core.superseded
    assert b.said(Superseded)
    assert b.core.due() is None
    assert a.core.links["b"].hello.generation == twin.core.table.own.generation


def test_a_cloned_disk_is_seen(world):
    """One name, one generation, and another nonce."""
    a, b = linked(world, "a", "b")
    clone = world.stranger(a, "b", generation=b.core.table.own.generation, nonce=12345)
    assert clone.closed == CloseCode.TWO_NODES
    assert a.core.links["b"].hello.nonce == b.core._nonce


def test_a_node_that_dials_itself_does_so_once(world):
    """A seed may be its own address under another name; and where the link came from is not remembered."""
    a = world.start("a", "self")
    world.nodes["self:1"] = a
    world.run(1)
    before = len(world.dialled)
    assert before
    assert "self:1" in a.core._own_endpoints
    came = world.stranger(a, "a", nonce=a.core._nonce)
    assert came.closed == CloseCode.SELF
    assert a.core._own_endpoints == {"a:1", "self:1"}
    world.run(60)
    assert len(world.dialled) == before


def test_an_older_generation_is_refused(world):
    """And told so, so that it steps back."""
    a, b = linked(world, "a", "b")
    old = world.stranger(a, "b", generation=1)
    assert old.closed == CloseCode.STALE
    told = world.stranger(b, "a", generation=a.core.table.own.generation + 1)
    told.say(Close(CloseCode.STALE, "there is a newer one"))
    assert b.core.superseded


def test_a_version_that_is_not_spoken_is_refused(world):
    """In words that say which are."""
    a = world.start("a")
    far = world.stranger(a, "b", greets=False)
    far.say(far.hello(least=2, most=3))
    assert far.closed == CloseCode.VERSION
    assert "2 to 3" in far.got[-1].text


def test_nonsense_three_times_means_quarantine(world):
    """Else a peer that is broken would be talked to for ever."""
    a = world.start("a")
    for _ in range(MANY):
        one = world.stranger(a, "b")
        assert one.closed is None
        one.say(b"\0\0\0\1\x03\xc0")
        assert one.closed == CloseCode.MALFORMED
    assert world.stranger(a, "b").closed == CloseCode.QUARANTINE
    world.run(FOR + 1)
    assert world.stranger(a, "b").closed is None


def test_who_does_not_say_who_he_is_is_hung_up_on(world):
    """A connection costs memory."""
    a = world.start("a")
    one = world.stranger(a, "b", greets=False)
    world.run(HELLO_PATIENCE - 1)
    assert one.closed is None
    world.run(1.5)
    assert one.closed == CloseCode.NO_HELLO
    assert a.core._links == {}


def test_who_was_dialled_and_says_nothing_is_hung_up_on_sooner(world):
    """There may be another endpoint."""
    a = world.start("a", "b")
    b = world.start("b")
    b.core.opened = lambda *_: None  # it takes the connection and says nothing
    b.core.feed = lambda *_: None
    world.run(2.5)
    assert len(a.core._links) == 1
    world.run(1.5)
    assert ("b", CloseCode.NO_HELLO, False) in refusals(a)


def test_where_there_is_no_room_others_are_named(world):
    """Whom the rings want there is always room for."""
    a = world.start("a")
    for n in range(LINKS_LIMIT):
        name = f"n{n:03}"
        one = world.stranger(a, name)
        one.say(Members((Told(Record(name, 1, 0, 1, (f"{name}:1",), ())),)))
    late = next(
        one
        for n in range(100)
        if (one := world.stranger(a, f"late{n}")).name not in a.core.table.wanted and one.closed is not None
    )
    assert late.closed == CloseCode.BUSY
    assert 1 <= len([told for one in late.heard(Members) for told in one.told]) <= 16


def test_who_asks_and_does_not_read_is_hung_up_on(world):
    """And is not taken for one that sends nonsense."""
    a = world.start("a")
    one = world.stranger(a, "b")
    a.core.writable(next(iter(a.ends)), False)
    one.say(*[Digest(b"", b"")] * 100)
    assert one.closed == CloseCode.SLOW
    again = world.stranger(a, "b")
    a.core.writable(next(iter(a.ends)), False)
    again.say(Pull(tuple((f"o{n}", 1, 1) for n in range(100))))
    assert again.closed == CloseCode.SLOW
    assert a.core._faults.quarantined("b", world.now) == 0
    assert a.core._faults._times == {}


def test_who_reads_nothing_for_ten_seconds_is_hung_up_on(world):
    """What has to be said to it would wait for ever."""
    a = world.start("a")
    one = world.stranger(a, "b")
    one.say(Members((Told(Record("b", 1, 0, 1, (), ())),)))
    a.core.writable(next(iter(a.ends)), False)
    for n in range(12):
        one.say(Ping(n))
        world.run(1)
    assert one.closed == CloseCode.SLOW


def test_a_connection_that_came_and_went_is_no_dial_that_failed(world):
    """Counters are read when something is wrong."""
    a = world.start("a")
    number = a.core.accept()
    a.core.opened(number, "b", "b:9", False, world.now)
    a.core.closed(number, world.now, "gone")
    assert set(a.core.counts.dials_failed.values()) == {0}


# What a peer can say


def test_a_frontier_of_too_many_leaves_is_malformed(world):
    """Each would be answered."""
    a = world.start("a")
    one = world.stranger(a, "b")
    one.say(Frontier(bytes(257), (), b"", (), True))
    assert one.closed == CloseCode.MALFORMED


def test_one_member_too_many_is_not_taken_and_nobody_is_to_blame(world):
    """Who passes it on cannot know how many are remembered here."""
    a = world.start("a")
    one = world.stranger(a, "b")
    for start in range(0, MEMBERS_LIMIT, 500):
        one.say(Members(tuple(Told(Record(f"n{n}", 1, 0, 1, (), ())) for n in range(start, start + 500))))
    assert one.closed is None
    assert len(a.core.table) == MEMBERS_LIMIT
    assert a.core.counts.records_refused == 1


def test_a_peer_that_does_not_read_is_not_the_fault_of_who_speaks(world):
    """Doubts are passed on to all; the one whose queue is full has to go."""
    a = world.start("a")
    slow, loud = world.stranger(a, "slow"), world.stranger(a, "loud")
    names = [f"n{n}" for n in range(150)]
    loud.say(Members(tuple(Told(Record(name, 1, 0, 1, (), ())) for name in names)))
    numbers = {link.name: number for number, link in a.core._links.items()}
    a.core.writable(numbers["slow"], False)
    for name in names:
        loud.say(Doubted(((name, 1, 0),)))
    assert slow.closed == CloseCode.SLOW
    assert loud.closed is None


def test_an_accusation_of_a_life_to_come_is_not_refuted_for_ever(world):
    """Nobody can know of it; each refutation would go round the whole cluster."""
    a = world.start("a")
    one = world.stranger(a, "b")
    generation = a.core.table.own.generation
    lie = Accusation("a", generation, 1 << 60, "silent")
    one.say(Members((Told(Record("b", 1, 0, 1, (), (), False, (lie,))),)))
    for _ in range(5):
        one.say(Pong(0, bytes(8)))
        world.run(0.5)
    assert a.core.table.own.incarnation == 0
    truth = Accusation("a", generation, 0, "silent")
    one.say(Members((Told(Record("b", 1, 0, 2, (), (), False, (truth,))),)))
    world.run(1)
    assert a.core.table.own.incarnation == 1


def test_announcements_of_nothing_cost_no_answer_for_ever(world):
    """One pull at a time, each ends with NOTHING."""
    a = world.start("a")
    one = world.stranger(a, "b")
    one.say(Have((("ghost", 5, 5),)))
    assert [pull.keys for pull in one.heard(Pull)] == [(("ghost", 0, 0),)]
    for n in range(30):
        one.say(Ping(n))
        world.run(1)
    assert len(one.heard(Pull)) == 1
    assert a.core.spread.caught_up


def test_pings_are_answered_while_bulk_waits(world):
    """A link that carries much is not taken for dead."""
    a = world.start("a")
    one = world.stranger(a, "b")
    a.core.writable(next(iter(a.ends)), False)
    one.say(Ping(7))
    assert 7 in [pong.number for pong in one.heard(Pong)]


# A lost disk


def test_a_lost_disk_gives_back_what_was_acknowledged(world):
    """What one said before is with the others."""
    a, b, c = linked(world, "a", "b", "c")
    done = []
    b.rig.store.write({"k": b"1"}, Lifetime.DURABLE).addCallback(done.append)
    for _ in range(20):
        world.run(0.1)
        for node in (a, b, c):
            node.rig.clock.advance(0.1)
    assert done
    world.stop(b)
    rig = b.rig
    rig.disk, rig.recovers = MemoryDisk(DISK), True
    rig.start()
    again = world.start("b", "a", rig=rig)
    world.run(5)
    assert not again.core.recovering
    assert rig.store.get("k").value == b"1"
    assert a.core.table.record("b").generation == again.core.table.own.generation


def test_who_takes_the_name_of_another_is_told_of_by_his_own(world):
    """Of the member whose name he takes nobody thinks the worse."""
    a, _ = linked(world, "a", "b")
    rogue = world.stranger(a, "b", certified="rogue")
    assert rogue.closed == CloseCode.IDENTITY
    assert refusals(a) == [("rogue", CloseCode.IDENTITY, False)]
    assert a.core.view("b").problem is None


def test_a_clock_that_is_wrong_is_told_of_once(world):
    """A log that says so with each link is not read."""
    a, _ = linked(world, "a", "b")
    for _ in range(2):
        one = world.stranger(a, "c", greets=False)
        one.say(one.hello(clock=int(world.now * 1000) + 3_600_000))
        assert "c" in a.core.links
        one.say(Close(CloseCode.LEAVING, ""))
    (told,) = a.said(ClockDiffers)
    assert told.who == "c"
    assert told.ahead == pytest.approx(3600, abs=1)
    one = world.stranger(a, "c")
    one.say(Close(CloseCode.LEAVING, ""))
    one = world.stranger(a, "c", greets=False)
    one.say(one.hello(clock=int(world.now * 1000) - 20_000))
    assert [round(told.ahead) for told in a.said(ClockDiffers)] == [3600, -20]


def test_what_was_wrong_with_a_member_is_not_told_for_ever(world):
    """It may have been mended long ago, by somebody who has no link with this node."""
    a = world.start("a")
    one = world.stranger(a, "b")
    one.say(Members((Told(Record("b", 1, 0, 1, (), ())),)))
    one.say(b"\0\0\0\1\x03\xc0")
    assert "PING" in a.core.view("b").problem
    world.run(PROBLEM_FOR - 5)
    assert a.core.view("b").problem is not None
    world.run(10)
    assert a.core.view("b").problem is None


def test_the_namespace_of_who_is_long_gone_does_not_go_round_for_ever(world):
    """Nodes forget at different moments: each would have it back from one that has not yet."""
    a, b, c = linked(world, "a", "b", "c")
    c.rig.store.write({"k": b"1"}, Lifetime.LEASE)
    world.run(1)
    world.stop(c)
    world.run(12)
    assert "c" in a.rig.store.known()
    a.core.table._members["c"].since -= 100
    world.leap(SHARED_FOR + 60)
    world.run(200)
    assert "c" not in a.rig.store.known()
    assert "c" not in b.rig.store.known()
    world.leap(KEPT_FOR - SHARED_FOR)
    world.run(200)
    for node in (a, b):
        assert "c" not in node.core.table
        assert "c" not in node.rig.store.known()
        assert not node.core.spread.let_go
