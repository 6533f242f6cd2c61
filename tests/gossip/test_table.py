"""Members: which record is the newer, and what is folded from all of them; in any order the same."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dcosnet.errors import PeerError
from dcosnet.gossip.messages import NAME_LIMIT, Accusation, Reason, Record, Told
from dcosnet.gossip.table import (
    ACCUSED_FOR,
    ACCUSES_LIMIT,
    ADDRESSES_LIMIT,
    DEAD_AFTER,
    DEAD_LATEST,
    ENDPOINTS_LIMIT,
    FLAPS_FOR,
    HOLD_MOST,
    KEPT_FOR,
    MEMBERS_LIMIT,
    REFUTES_EVERY,
    SHARED_FOR,
    FullError,
    Table,
    check_record,
)
from dcosnet.model.member import MemberState

ALIVE, UNREACHABLE, DEAD, LEFT = MemberState.ALIVE, MemberState.UNREACHABLE, MemberState.DEAD, MemberState.LEFT


def record(name, generation=1, sequence=1, *, incarnation=0, left=False, accuses=""):
    """`accuses` are names, whose first life is meant."""
    return Record(
        name, generation, incarnation, sequence, (f"{name}:1",), (), left,
        tuple(one if isinstance(one, Accusation) else Accusation(one, 1, 0, "silent") for one in accuses),
    )  # fmt: skip


class Rig:
    """The table of node "a", and a clock."""

    def __init__(self, others="bcde"):
        self.now = 100.0
        self.table = Table(record("a"), self.now)
        for name in others:
            self.take(record(name))
        self.judge()

    def take(self, one, *, dead=False):
        return self.table.take(Told(one, dead), self.now)

    def judge(self, seconds=0.0):
        """Go on, and judge when the table wants to; bounded."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.table.due()
            if due > end:
                break
            self.now = max(self.now, due)
            self.table.judge(self.now)
        self.now = end
        return self

    def states(self):
        return {name: self.table.state(name) for name in self.table.names}

    def gone(self):
        return {name for name, state in self.states().items() if state is not ALIVE}

    def kill(self, name="b", by="acde", sequence=2):
        """All observers accuse."""
        for accuser in by:
            if accuser == "a":
                self.table.accuse(name, Reason.SILENT, self.now)
            else:
                self.take(record(accuser, sequence=sequence, accuses=name))
        return self.judge(0.1)


@pytest.fixture
def rig():
    return Rig()


# Records


def test_the_greater_generation_and_then_sequence_is_newer(rig):
    """Nothing else counts; an older one changes nothing."""
    assert rig.take(record("b", 1, 5))
    assert not rig.take(record("b", 1, 5))
    assert not rig.take(record("b", 1, 4, incarnation=9))
    assert rig.take(record("b", 2, 1))
    assert not rig.take(record("b", 1, 99))
    assert rig.table.record("b").generation == 2


def test_the_own_record_is_never_taken_from_others(rig):
    """One that is newer is another process with this name."""
    assert not rig.take(record("a", 1, 1))
    assert rig.table.superseded is None
    assert not rig.take(record("a", 2, 1))
    assert "newer" in rig.table.superseded
    first = rig.table.superseded
    rig.take(record("a", 3, 1))
    assert rig.table.superseded == first
    assert rig.table.own.generation == 1


@pytest.mark.parametrize(
    "bad",
    [
        record(""),
        record("  "),
        record("x/y"),
        record("x\ny"),
        record("é" * (NAME_LIMIT // 2 + 1)),
        Record("x", 1, 0, 1, ("e",) * (ENDPOINTS_LIMIT + 1), ()),
        Record("x", 1, 0, 1, (), ("e",) * (ADDRESSES_LIMIT + 1)),
        Record("x", 1, 0, 1, ("e" * (NAME_LIMIT + 7),), ()),
        record("x", accuses=[Accusation(f"n{n}", 1, 0, "silent") for n in range(ACCUSES_LIMIT + 1)]),
        record("x", accuses=[Accusation("b", 1, 0, "s" * 50_000)]),
        record("x", accuses=[Accusation("b", 1, 0, "silent"), Accusation("b", 1, 1, "silent")]),
        Record("x", 1, 0, 1, (), ("é" * 259,) * ADDRESSES_LIMIT, False, (Accusation("b", 1, 0, "s" * 20_000),)),
    ],
)
def test_what_no_member_would_write_is_refused(rig, bad):
    """And nothing of it stays."""
    with pytest.raises(PeerError):
        rig.take(bad)
    assert len(rig.table) == 5


def test_a_record_at_all_limits_is_taken():
    """What a node may be configured to say has to pass."""
    names = [f"n{n}".ljust(100, "x") for n in range(ACCUSES_LIMIT)]
    check_record(
        Record("x" * NAME_LIMIT, 1, 0, 1, ("e" * 259,) * ENDPOINTS_LIMIT, ("a" * 45,) * ADDRESSES_LIMIT, False,
               tuple(Accusation(name, 1 << 62, 1, "no_answer") for name in names))
    )  # fmt: skip


def test_only_so_many_members_are_remembered(rig):
    """Known ones go on."""
    for n in range(MEMBERS_LIMIT - 5):
        rig.take(record(f"n{n}"))
    with pytest.raises(FullError):
        rig.take(record("one-more"))
    assert rig.take(record("b", sequence=2))


# Verdicts


def test_one_that_all_observers_accuse_is_unreachable_and_dead_after_five_seconds(rig):
    """Not at once: it may be a pause, or a cable."""
    rig.kill()
    assert rig.gone() == {"b"}
    assert rig.table.state("b") is UNREACHABLE
    rig.judge(DEAD_AFTER - 0.2)
    assert rig.table.state("b") is UNREACHABLE
    rig.judge(0.2)
    assert rig.table.state("b") is DEAD


def test_the_fewer_agree_the_longer_it_takes(rig):
    """Three of four are just enough."""
    rig.kill(by="acd")
    rig.judge(DEAD_LATEST - 0.2)
    assert rig.table.state("b") is UNREACHABLE
    rig.judge(0.3)
    assert rig.table.state("b") is DEAD


def test_who_is_cut_off_itself_gives_the_others_all_the_time(rig):
    """More likely they are well."""
    rig.table.held_back = rig.now + 2
    rig.kill()
    rig.judge(DEAD_LATEST - 1)
    assert rig.table.state("b") is UNREACHABLE
    rig.judge(1.5)
    assert rig.table.state("b") is DEAD


def test_some_that_accuse_make_one_degraded(rig):
    """People are told; nothing else happens."""
    rig.kill(by="c")
    view = rig.table.view("b")
    assert (view.state, view.degraded) == (ALIVE, True)
    assert [accuser for accuser, _, _ in view.accused_by] == ["c"]


def test_an_accusation_that_is_taken_back_counts_no_more(rig):
    """A link is up again."""
    rig.kill()
    for accuser in "cde":
        rig.take(record(accuser, sequence=3))
    assert rig.table.absolve("b", rig.now)
    assert not rig.table.absolve("b", rig.now)
    rig.judge(0.1)
    assert rig.gone() == set()


def test_dead_is_final_for_a_life_and_ended_by_the_next(rig):
    """Whatever is taken back: its leases are gone, and only itself can say them again."""
    rig.kill().judge(DEAD_AFTER)
    for accuser in "cde":
        rig.take(record(accuser, sequence=3))
    rig.table.absolve("b", rig.now)
    rig.take(record("b", sequence=2))
    rig.judge(1)
    assert rig.table.state("b") is DEAD
    rig.take(record("b", sequence=3, incarnation=1))
    rig.judge(3)
    assert rig.table.state("b") is ALIVE


def test_its_next_life_is_no_way_back_for_one_that_nobody_reaches(rig):
    """It is looked for again, and dead until those who accuse it have heard it; that was one flap, so at once then."""
    rig.kill().judge(DEAD_AFTER)
    assert "b" not in rig.table.wanted
    rig.take(record("b", sequence=2, incarnation=1))
    rig.judge(1)
    assert rig.table.state("b") is DEAD
    assert not rig.table.is_dead("b")
    assert "b" in rig.table.wanted
    assert accusers(rig.table, "b") == set("acde")
    for accuser in "cde":
        rig.take(record(accuser, sequence=3))
    rig.judge(0.1)
    assert rig.table.state("b") is ALIVE


def test_a_next_life_that_nobody_reaches_ends_as_the_last_did(rig):
    """Dead is dead, without a word of being unreachable between."""
    rig.kill().judge(DEAD_AFTER)
    rig.take(record("b", sequence=2, incarnation=1))
    rig.judge(DEAD_AFTER + 0.1)
    assert rig.table.is_dead("b")
    assert rig.table.state("b") is DEAD


def test_a_new_generation_is_alive_at_once(rig):
    """A restart; what was said of the life before is void."""
    rig.kill().judge(DEAD_AFTER)
    rig.take(record("b", generation=2))
    rig.judge(0.1)
    assert rig.table.state("b") is ALIVE
    assert rig.table.view("b").accused_by == ()


def test_dead_of_a_teller_counts_for_who_has_never_heard_of_it(rig):
    """Else a node that joins would wait for who is gone; and who knows better is not talked out of it."""
    rig.take(record("z"), dead=True)
    rig.take(record("b", sequence=2), dead=True)
    rig.judge(0.1)
    assert rig.table.state("z") is DEAD
    assert rig.table.state("b") is ALIVE


def test_who_left_is_not_on_the_rings(rig):
    """At once, and without accusations."""
    rig.take(record("b", sequence=2, left=True))
    rig.judge(0.1)
    assert rig.table.state("b") is LEFT
    assert "b" not in rig.table.wanted
    assert not rig.table.accuse("b", Reason.SILENT, rig.now)


def test_who_comes_and_goes_stays_away_longer_each_time(rig):
    """Up to a minute; traffic is not to follow it each time."""
    waits = []
    for turn in range(9):
        rig.kill(sequence=2 * turn + 2)
        assert rig.table.state("b") is UNREACHABLE
        for accuser in "cde":
            rig.take(record(accuser, sequence=2 * turn + 3))
        rig.table.absolve("b", rig.now)
        began = rig.now
        while rig.table.state("b") is not ALIVE:
            rig.judge(0.25)
            assert rig.now - began < HOLD_MOST + 1
        waits.append(round(rig.now - began))
    assert waits == [0, 2, 4, 8, 16, 32, 60, 60, 60]
    rig.judge(FLAPS_FOR + 1)
    rig.kill(sequence=90)
    for accuser in "cde":
        rig.take(record(accuser, sequence=91))
    rig.judge(0.1)
    assert rig.table.state("b") is ALIVE


def test_only_neighbours_are_accused_and_once(rig):
    """Nobody else's word counts."""
    for n in range(40):
        rig.take(record(f"n{n}"))
    rig.judge(0.1)
    far = next(name for name in rig.table.names if not rig.table.observes(name) and name != "a")
    near = min(rig.table.wanted)
    assert not rig.table.accuse(far, Reason.SILENT, rig.now)
    assert not rig.table.accuse("nobody", Reason.SILENT, rig.now)
    assert rig.table.accuse(near, Reason.SILENT, rig.now)
    assert not rig.table.accuse(near, Reason.REFUSED, rig.now)
    assert rig.table.accuses(near)


def test_an_accusation_may_come_before_whom_it_is_about(rig):
    """Records have no order among themselves."""
    for accuser in "bcde":
        rig.take(record(accuser, sequence=2, accuses="z"))
    rig.judge(0.1)
    rig.take(record("z"))
    rig.judge(0.1)
    assert rig.table.state("z") is UNREACHABLE


# Refutation


def test_who_is_accused_says_that_it_lives(rig):
    """In its next incarnation, and not more often than each second."""
    rig.take(record("b", sequence=2, accuses="a"))
    rig.judge(0.1)
    assert rig.table.own.incarnation == 1
    assert not rig.table.is_accused()
    rig.take(record("b", sequence=3, accuses=[Accusation("a", 1, 1, "silent")]))
    rig.judge(0.1)
    assert rig.table.own.incarnation == 1
    rig.judge(REFUTES_EVERY)
    assert rig.table.own.incarnation == 2
    assert rig.table.refutations == 2


def test_who_is_doubted_says_so_too_and_others_pass_it_on(rig):
    """Of the life that is known, and of no other."""
    assert not rig.table.doubt("a", (1, 0))
    rig.judge(0.1)
    assert rig.table.own.incarnation == 1
    assert not rig.table.doubt("a", (1, 0))
    rig.judge(2)
    assert rig.table.own.incarnation == 1
    assert rig.table.doubt("b", (1, 0))
    assert not rig.table.doubt("b", (1, 1))
    assert not rig.table.doubt("nobody", (1, 0))
    rig.kill().judge(DEAD_AFTER)
    assert not rig.table.doubt("b", (1, 0))


def test_who_has_left_refutes_nothing(rig):
    """It is gone."""
    rig.table.set_own(rig.now, left=True)
    rig.table.doubt("a", (1, 0))
    rig.judge(3)
    assert rig.table.own.incarnation == 0


# Memory


def test_the_gone_are_told_of_for_a_day_and_a_half_and_remembered_for_three():
    """Else they would come back from whoever was away; the digest has only what is told."""
    rig = Rig()
    empty = rig.table.digest.leaves()
    rig.take(record("z", left=True))
    rig.judge(0.1)
    assert rig.table.told("z")
    rig.now += SHARED_FOR + 1
    rig.judge(61)
    assert rig.table.told("z") is None
    assert rig.table.digest.leaves() == empty
    assert rig.table.state("z") is LEFT
    assert rig.table.forgotten() == ()
    rig.now += KEPT_FOR - SHARED_FOR
    rig.judge(61)
    assert rig.table.forgotten() == ("z",)
    assert "z" not in rig.table
    assert rig.table.forgotten() == ()


def test_accusations_of_what_is_past_are_taken_back(rig):
    """A record would grow with all who ever died."""
    rig.kill().judge(DEAD_AFTER)
    assert rig.table.own.accuses
    rig.judge(ACCUSED_FOR + 125)
    assert rig.table.own.accuses == ()
    assert rig.table.state("b") is DEAD


def test_who_is_not_looked_after_any_more_is_not_accused_for_ever(rig):
    """This node would not learn that it is back."""
    rig.table.accuse("b", Reason.SILENT, rig.now)
    rig.judge(65)
    assert rig.table.accuses("b")
    for n in range(60):
        rig.take(record(f"n{n}"))
    assert not rig.table.observes("b")
    rig.judge(65)
    assert not rig.table.accuses("b")


def test_who_joins_does_not_bring_back_one_that_is_gone(rig):
    """Its observers stay the same until it speaks, so their word does, too."""
    rig.now = 150.0
    rig.kill(by="acd")
    assert rig.table.state("b") is UNREACHABLE
    for n in range(60):
        rig.take(record(f"n{n}"))
    assert not rig.table.observes("b")
    rig.judge(15)
    assert rig.table.accuses("b")
    assert rig.table.state("b") is UNREACHABLE
    rig.take(record("b", sequence=2, incarnation=1))
    rig.judge(65)
    assert not rig.table.accuses("b")
    assert rig.table.state("b") is ALIVE


# Any order


NAMES = "abcdef"


def accusers(table, name):
    return {accuser for accuser, _, _ in table.view(name).accused_by}


class Order(RuleBasedStateMachine):
    """Two tables of one node hear the same records, each in its own order; at rest they judge alike."""

    @initialize()
    def begin(self):
        self.now = 100.0
        self.tables = [Table(record("a"), self.now) for _ in range(2)]
        self.late = []
        self.newest = {}

    @rule(
        name=st.sampled_from(NAMES[1:]),
        restart=st.booleans(),
        refute=st.booleans(),
        left=st.sampled_from([False] * 9 + [True]),
        accuses=st.dictionaries(st.sampled_from(NAMES), st.tuples(st.integers(1, 2), st.integers(0, 1)), max_size=4),
    )
    def say(self, name, restart, refute, left, accuses):
        """A member writes its next record; one table hears it now, the other some time later."""
        before = self.newest.get(name, record(name, 1, 0))
        generation = before.generation + restart
        one = Record(
            name, generation, 0 if restart else before.incarnation + refute, 1 if restart else before.sequence + 1,
            (), (), left,
            tuple(Accusation(who, *life, "silent") for who, life in sorted(accuses.items()) if who != name),
        )  # fmt: skip
        self.newest[name] = one
        self.tables[0].take(Told(one), self.now)
        self.late.append(one)

    @rule(data=st.data())
    def hear(self, data):
        """The other table hears any of them, and perhaps again."""
        if self.late:
            self.tables[1].take(Told(data.draw(st.sampled_from(self.late))), self.now)

    @rule()
    def rest(self):
        """Both have heard all, in the same moment: they know and judge the same."""
        for one in reversed(self.late):
            self.tables[1].take(Told(one), self.now)
        verdicts = []
        for table in self.tables:
            assert table.digest.leaves() == self.tables[0].digest.leaves()
            verdicts.append(table._verdicts())
            assert set(table.ring) == set(self.tables[0].ring)
            for name in table.names:
                assert accusers(table, name) == accusers(self.tables[0], name)
        assert verdicts[0] == verdicts[1]

    @invariant()
    def own_record_is_own(self):
        assert all(table.own == record("a") for table in getattr(self, "tables", ()))


TestOrder = Order.TestCase
TestOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_the_last_observer_says_counts_soon_among_a_thousand():
    """Verdicts are not drawn for each record; but the one that is to come waits for no long time after the last."""
    table = Table(record("a"), 100.0)
    for number in range(1000):
        table.take(Told(record(f"n{number}")), 100.0)
    table.judge(100.0)
    table.take(Told(record("n1", sequence=2)), 100.0)
    assert 100.0 < table.due() <= 100.1
