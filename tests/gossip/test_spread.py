"""What each link lacks and how it gets it: whatever is lost with links that go, all know the same in the end."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcosnet.gossip import spread as module
from dcosnet.gossip.messages import Change, CloseCode, Have, Members, Nothing, Piece, Pong, Pull, Record, Told
from dcosnet.gossip.spread import GATHER_URGENT, HAVES_AT_ONCE, KNOWN, PULLS, PULLS_OF_LINK, REPLIES, Spread
from dcosnet.gossip.wire import BODY_LIMIT, FrameError, Reader, encode
from dcosnet.kv.store import VALUE_LIMIT
from dcosnet.model.delta import NOTHING, Known
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

from .make_corpus import frames as corpus

LEASE = Lifetime.LEASE
DISK = Path("/disk")


class End:
    """A Spread with its store; frames go through a Reader for each link, as they do on a wire."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.rig = StoreRig(DISK, MemoryDisk(DISK), name)
        self.store = self.rig.store
        self.records: dict[str, Told] = {name: Told(Record(name, 1, 0, 1, (), ()))}
        self.spread = Spread(self.store, self.records.get, lambda one, other: False, Random(1))
        self.readers: dict[int, Reader] = {}
        self.refused: list[str] = []
        self.store.follow(lambda owner: self.spread.news(owner, world.now))

    def say(self, **keys: bytes | None) -> None:
        """Write leases of this node's own."""
        self.store.write(keys, LEASE)

    def values(self) -> dict[str, bytes]:
        return {key: entry.value for key, entry in self.store.entries().items()}


class World:
    """Ends, links between them, and what is under way; a link is (end, other), with one number for both."""

    def __init__(self, *names: str) -> None:
        self.now = 10.0
        self.ends = {name: End(name, self) for name in names}
        self.links: dict[int, tuple[str, str]] = {}
        self.air: list[tuple[int, str, bytes]] = []
        self._next = 0
        self.sent: list[tuple[str, str, object]] = []

    def link(self, one: str, other: str) -> int:
        """Open a link, and compare all, as a FRONTIER of all leaves does."""
        number = self.link_silently(one, other)
        for name, peer in ((one, other), (other, one)):
            mine, theirs = self.ends[name], self.ends[peer]
            mine.spread.owe(number, [known for known in mine.records if known not in theirs.records])
            mine.spread.compare(number, dict(theirs.store.known()), list(mine.store.known()), self.now)
        return number

    def link_silently(self, one: str, other: str) -> int:
        """Open a link between two that know equally much, so that nothing is compared."""
        self._next += 1
        self.links[self._next] = (one, other)
        for name, peer in ((one, other), (other, one)):
            reader = self.ends[name].readers[self._next] = Reader()
            list(reader.feed(corpus()["hello.bin"]))
            self.ends[name].spread.joined(self._next, peer)
        return self._next

    def cut(self, number: int) -> None:
        """A link goes, and all that was under way on it."""
        self.air = [one for one in self.air if one[0] != number]
        for name in self.links.pop(number):
            self.ends[name].spread.gone(number, self.now)

    def take(self) -> None:
        """What the ends send now goes into the air."""
        for name, end in self.ends.items():
            for number, frame in end.spread.take_output():
                one, other = self.links[number]
                self.air.append((number, other if name == one else one, frame))
                if end.spread.has_pulled(number):
                    end.readers[number].expect_pieces()

    def deliver(self, at: int = 0) -> None:
        """The first frame on the link of the one at this place: streams do not overtake themselves."""
        number, to, _ = self.air[at]
        first = next(n for n, one in enumerate(self.air) if one[:2] == (number, to))
        number, to, frame = self.air.pop(first)
        end = self.ends[to]
        for message in end.readers[number].feed(frame):
            self.sent.append((self.peer(number, to), to, message))
            if isinstance(message, Members):
                fresh = [told.record.name for told in message.told if told.record.name not in end.records]
                end.records |= {told.record.name: told for told in message.told}
                if fresh:
                    end.spread.records(fresh, number, self.now, urgent=False)
            else:
                end.spread.feed((number, message), self.now)
            end.refused += [one.text for one in end.spread.take_events()]

    def peer(self, number: int, name: str) -> str:
        one, other = self.links[number]
        return other if name == one else one

    def settle(self) -> None:
        """Let time pass until nothing more is sent; bounded."""
        for _ in range(3000):
            self.take()
            for _ in range(100_000):
                if not self.air:
                    break
                self.deliver()
                self.take()
            times = [end.spread.due() for end in self.ends.values()]
            due = min((time for time in times if time is not None), default=None)
            if due is None:
                return
            self.now = max(self.now, due) + 0.001
            for end in self.ends.values():
                end.spread.tick(self.now)
        raise AssertionError("it does not come to rest")

    def messages(self, kind: type, to: str | None = None) -> list:
        return [one for _, whom, one in self.sent if isinstance(one, kind) and to in (None, whom)]


@pytest.mark.parametrize("linked", [True, False])
def test_who_was_dead_is_asked_for_its_leases_and_those_who_dropped_them_are_not(linked):
    """All dropped them, and believe of each other that they have them: to ask round and round would never end."""
    world = World("a", "b", "c", "v")
    numbers = [world.link("v", name) for name in "abc"]
    for pair in (("a", "b"), ("b", "c"), ("c", "a")):
        world.link(*pair)
    world.ends["v"].say(x=b"1")
    world.settle()
    others = [world.ends[name] for name in "abc"]
    for end in others:
        end.store.judge("v", MemberState.DEAD)
    for number in numbers:
        world.cut(number)
    world.settle()
    assert all(end.values() == {} for end in others)
    if linked:
        for name in "abc":
            world.link_silently("v", name)
    world.sent.clear()
    for end in others:
        end.store.judge("v", MemberState.ALIVE)
    world.settle()
    assert [end.values() for end in others] == [{"x": b"1"} if linked else {}] * 3
    assert len(world.messages(Pull)) <= 3 * 3
    if linked:
        assert len(world.messages(Pull, "v")) == 3


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_whatever_is_lost_with_links_all_know_the_same_in_the_end(data):
    """The promise of the whole: what was under way when a link went is told over the next one."""
    names = ["a", "b", "c", "d"]
    world = World(*names)
    for pair in (("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")):
        world.link(*pair)
    sizes = st.sampled_from([1, 100, 20_000, 300_000])
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["say", "say", "go", "go", "go", "cut", "full", "wait"]))
        if what == "say":
            world.ends[data.draw(st.sampled_from(names))].say(
                **{data.draw(st.sampled_from("xyz")): data.draw(st.sampled_from("12")).encode() * data.draw(sizes)}
            )
        elif what == "go":
            world.take()
            for _ in range(data.draw(st.integers(1, 20))):
                if world.air:
                    world.deliver(data.draw(st.integers(0, len(world.air) - 1)))
        elif what == "cut":
            number = data.draw(st.sampled_from(sorted(world.links)))
            pair = world.links[number]
            world.cut(number)
            world.link(*pair)
        elif what == "full":
            number = data.draw(st.sampled_from(sorted(world.links)))
            world.ends[world.links[number][0]].spread.room(number, data.draw(st.booleans()))
        else:
            world.now += data.draw(st.sampled_from([0.01, 0.1, 6.0]))
            for end in world.ends.values():
                end.spread.tick(world.now)
    for number, pair in world.links.items():
        world.ends[pair[0]].spread.room(number, True)
    world.settle()
    # What a pull gave up on is found by the next comparison, which is the core's business.
    for number, pair in list(world.links.items()):
        world.cut(number)
        world.link(*pair)
    world.settle()
    known = [dict(end.store.known()) for end in world.ends.values()]
    assert all(one == known[0] for one in known)
    assert all(end.values() == world.ends["a"].values() for end in world.ends.values())
    assert all(set(end.records) == set(names) for end in world.ends.values())
    assert all(end.spread.caught_up for end in world.ends.values())


def test_a_small_change_is_sent_at_once_and_goes_on():
    """Over two links, without anybody asking."""
    world = World("a", "b", "c")
    world.link("a", "b")
    world.link("b", "c")
    world.settle()
    world.sent.clear()
    world.ends["a"].say(x=b"1")
    world.settle()
    assert world.ends["c"].values() == {"x": b"1"}
    assert not world.messages(Pull)


def test_many_changes_are_one_while_a_link_takes_nothing():
    """A slow peer costs names, and no queue of what was said."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    world.sent.clear()
    a = world.ends["a"]
    a.spread.room(number, False)
    for n in range(500):
        a.say(x=str(n).encode())
    world.take()
    assert world.air == []
    assert a.spread.due() is None, "it would be asked again and again for what it cannot do"
    assert len(a.spread._links[number].owed) == 1
    a.spread.room(number, True)
    world.settle()
    assert len(world.messages(Change, "b")) == 1
    assert world.ends["b"].values() == {"x": b"499"}


def test_a_large_value_is_announced_and_pulled_over_one_link():
    """It would come over each link else, and a ping would wait for it."""
    world = World("a", "b", "c")
    for pair in (("a", "b"), ("a", "c"), ("b", "c")):
        world.link(*pair)
    world.settle()
    world.sent.clear()
    world.ends["a"].say(x=b"x" * 500_000)
    world.settle()
    assert world.ends["c"].values() == world.ends["b"].values() == {"x": b"x" * 500_000}
    assert world.messages(Have, "b")
    assert len(world.messages(Pull)) == 2
    assert len(world.messages(Change, "b")) == len(world.messages(Change, "c")) == 1


def test_no_frame_is_longer_than_a_piece():
    """Whatever is sent; so long, at the most, a ping waits."""
    world = World("a", "b")
    world.link("a", "b")
    world.ends["a"].say(x=b"x" * 500_000)
    longest = 0
    for _ in range(200):
        world.take()
        longest = max([longest, *(len(frame) for _, _, frame in world.air)])
        while world.air:
            world.deliver()
        world.now += 0.06
        world.ends["a"].spread.tick(world.now)
    assert world.ends["b"].values()
    assert 10_000 < longest < 16_384 + 32


def test_what_is_said_while_a_pull_is_answered_is_told_after_it():
    """In between it would join on to nothing: all would be pulled again, and the rest of the pieces be nonsense."""
    world = World("a", "b")
    world.link("a", "b")
    world.settle()
    world.sent.clear()
    a, b = world.ends["a"], world.ends["b"]
    a.say(x=b"x" * 500_000)
    said = False
    for _ in range(400):
        for number, frame in a.spread.take_output():
            world.air.append((number, "b", frame))
            if frame[4] == 11 and not said:  # the first piece is on its way
                said = True
                a.say(y=b"1")
        world.take()
        while world.air:
            world.deliver()
        b.spread.records(["b"], None, world.now, urgent=True)  # b says something over the link meanwhile
        world.now += 0.06
        for end in (a, b):
            end.spread.tick(world.now)
    assert said
    assert b.values() == a.values()
    assert len(world.messages(Pull)) == 1
    assert len(world.messages(Change, "b")) == 2


def test_what_the_store_refuses_costs_only_itself():
    """A namespace beyond a limit; the next one over the same link is taken."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    b = world.ends["b"]
    stamp = (1, 0, "e")
    for owner, value in (("e", b"x" * (VALUE_LIMIT + 1)), ("f", b"1")):
        change = Change(owner, 1, 0, 1, True, False, False, (module_put(owner, value, stamp),), ())
        b.spread.feed((number, change), world.now)
    refused = b.spread.take_events()
    assert [one.link for one in refused] == [number]
    assert "e" in next(iter(refused)).text
    assert b.values() == {"k-f": b"1"}
    assert b.spread.knows(number, "e") == NOTHING
    assert b.spread.caught_up


def module_put(owner: str, value: bytes, stamp: tuple[int, int, str]):
    from dcosnet.gossip.messages import Put

    return Put(f"k-{owner}", value, False, 1, stamp, stamp)


def test_who_announces_much_is_asked_for_a_little_at_a_time():
    """And what he announces costs as much as it is long, not that squared."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    spread = world.ends["a"].spread
    best, looked = spread._best, []
    spread._best = lambda owner, able: looked.append(owner) or best(owner, able)
    for start in range(0, 2000, HAVES_AT_ONCE):
        have = Have(tuple((f"o{n}", 1, 1) for n in range(start, start + HAVES_AT_ONCE)))
        spread.feed((number, have), world.now)
    assert len(spread._pulls) == PULLS_OF_LINK
    assert len(looked) <= 2000
    assert not spread.caught_up
    for n in range(2000):
        spread.feed((number, Nothing(f"o{n}")), world.now)
    assert len(looked) <= 6000
    assert spread.caught_up


def test_pulls_are_spread_over_links():
    """At most so many at a time, in all."""
    world = World("a", "b", "c", "d", "e", "f")
    numbers = [world.link("a", other) for other in "bcdef"]
    world.settle()
    spread = world.ends["a"].spread
    for number in numbers:
        spread.feed((number, Have(tuple((f"o{n}", 1, 1) for n in range(50)))), world.now)
    assert len(spread._pulls) == PULLS
    assert max(sum(pull.link == number for pull in spread._pulls.values()) for number in numbers) == PULLS_OF_LINK


def test_an_owner_is_asked_for_its_own():
    """It has the newest."""
    world = World("a", "b", "c")
    first, second = world.link("a", "b"), world.link("a", "c")
    world.settle()
    spread = world.ends["a"].spread
    for turn in range(10):
        generation = (1 << 60) + turn
        spread._links[first].note("c", Known(generation, 1))
        spread.feed((second, Have((("c", generation, 1),))), world.now)
        assert spread._pulls["c"].link == second
        spread.feed((second, Nothing("c")), world.now)
        spread.feed((first, Nothing("c")), world.now)


def test_a_pull_without_progress_goes_to_another():
    """A peer may stand still and keep its link alive."""
    world = World("a", "b", "c")
    first, second = world.link("a", "b"), world.link("a", "c")
    world.settle()
    spread = world.ends["a"].spread
    spread.feed((first, Have((("z", 1, 1),))), world.now)
    assert spread._pulls["z"].link == first
    spread.feed((second, Have((("z", 1, 1),))), world.now)
    due = spread.due()
    spread.tick(world.now + module.PULL_PATIENCE)
    assert due is not None
    assert spread._pulls["z"].link == second
    spread.tick(world.now + 2 * module.PULL_PATIENCE)
    assert spread.caught_up, "nobody is left to ask"


def test_a_link_that_goes_gives_its_pulls_to_another():
    """Those that were asked, and those that waited for their turn."""
    world = World("a", "b", "c")
    first, second = world.link("a", "b"), world.link("a", "c")
    world.settle()
    spread = world.ends["a"].spread
    have = Have(tuple((f"o{n}", 1, 1) for n in range(3 * PULLS_OF_LINK)))
    spread.feed((first, have), world.now)
    spread.gone(first, world.now)
    assert spread.caught_up
    third = world.link("a", "b")
    spread.feed((third, have), world.now)
    spread.feed((second, have), world.now)
    spread.gone(third, world.now)
    assert len(spread._pulls) == PULLS_OF_LINK
    assert len(spread._lacking) == 2 * PULLS_OF_LINK


# What a peer can make this node hold


def test_a_peer_that_asks_and_does_not_read_is_noticed():
    """Answers wait, up to so many."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    spread = world.ends["a"].spread
    spread.room(number, False)
    assert all(spread.reply(number, Pong(n, b"")) for n in range(REPLIES))
    assert not spread.reply(number, Pong(1, b""))


def test_a_peer_may_not_pull_without_end():
    """Each is remembered until there is room."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    spread = world.ends["a"].spread
    spread.room(number, False)
    spread.feed((number, Pull(tuple((f"o{n}", 1, 1) for n in range(REPLIES)))), world.now)
    with pytest.raises(FrameError) as caught:
        spread.feed((number, Pull((("one more", 1, 1),))), world.now)
    assert caught.value.code is CloseCode.SLOW


def test_what_a_peer_says_to_know_is_bounded():
    """Else one that invents owners fills the memory."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    spread = world.ends["a"].spread
    for start in range(0, KNOWN + 1000, 1000):
        names = {f"o{n}": Known(0, 0) for n in range(start, start + 1000)}
        spread.compare(number, names, (), world.now)
    assert len(spread._links[number].known) == KNOWN
    assert spread.knows(number, f"o{KNOWN + 500}") == NOTHING


def test_the_first_word_of_an_end_goes_at_once_and_what_follows_on_it_together():
    """One death is heard of without delay; where half of all are lost, it is not a frame for each of them."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    world.now += 1.0
    a = world.ends["a"]
    for n in range(30):
        a.records[f"n{n}"] = Told(Record(f"n{n}", 1, 0, 1, (), ()))
    a.spread.records(["n0"], None, world.now, urgent=True)
    assert [number for number, _ in a.spread.take_output()] == [number]
    for n in range(1, 30):
        a.spread.records([f"n{n}"], None, world.now + n / 10_000, urgent=True)
        assert not list(a.spread.take_output())
    due = a.spread.due()
    assert due == pytest.approx(world.now + GATHER_URGENT)
    a.spread.tick(due)
    assert len(list(a.spread.take_output())) == 1
    a.spread.records(["n0"], None, due + GATHER_URGENT, urgent=True)
    assert len(list(a.spread.take_output())) == 1


def test_records_fit_into_a_frame_however_long_they_are():
    """A frame that is too long would cost the one who passes it on."""
    world = World("a", "b")
    number = world.link("a", "b")
    world.settle()
    a = world.ends["a"]
    names = [f"n{n}" for n in range(40)]
    for name in names:
        a.records[name] = Told(Record(name, 1, 0, 1, ("e" * 255,) * 16, ("a" * 255,) * 64, False, ()))
    a.spread.records(names, None, world.now, urgent=True)
    got = [frame for _ in range(20) for _, frame in a.spread.take_output()]
    assert max(map(len, got)) <= BODY_LIMIT
    reader = Reader()
    list(reader.feed(corpus()["hello.bin"]))
    told = [one.record.name for message in reader.feed(b"".join(got)) for one in message.told]
    assert told == names
    assert number in a.spread._links


def test_news_of_an_owner_that_the_peer_has_told_of_is_not_told_back():
    """It knows."""
    world = World("a", "b")
    world.link("a", "b")
    world.settle()
    world.sent.clear()
    world.ends["a"].say(x=b"1")
    world.settle()
    assert [to for _, to, _ in world.sent] == ["b"]
    assert isinstance(world.sent[0][2], Change)


def test_pieces_are_taken_only_over_the_link_that_was_asked():
    """`has_pulled` is what the reader is told."""
    world = World("a", "b", "c")
    first, second = world.link("a", "b"), world.link("a", "c")
    world.settle()
    spread = world.ends["a"].spread
    spread._links[first].pulled = spread._links[second].pulled = False  # as if all had been known to each other
    spread.feed((first, Have((("z", 1, 1),))), world.now)
    assert spread.has_pulled(first)
    assert not spread.has_pulled(second)
    reader = Reader()
    list(reader.feed(corpus()["hello.bin"]))
    with pytest.raises(FrameError):
        list(reader.feed(encode(Piece(False, b"x"))))
