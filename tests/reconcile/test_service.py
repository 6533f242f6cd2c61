"""The loop drives any data plane: order, repair, failures. The plane here is a dict."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from zope.interface import implementer

from dcosnet.errors import DataPlaneError
from dcosnet.interfaces import IDataPlane
from dcosnet.io.turns import Turns
from dcosnet.model.cell import Cell
from dcosnet.reconcile.diff import changed_keys
from dcosnet.reconcile.loop import PERIOD
from dcosnet.reconcile.service import Reconciler


@implementer(IDataPlane)
class DictPlane:
    """Keeps what it is told, except for the keys it is told to refuse."""

    able = frozenset()

    def __init__(self, story: list) -> None:
        self.there: dict[str, int] = {}
        self.refuses: set[str] = set()
        self.broken = False
        self.story = story
        self.asked: list = []
        """Which keys each observation was about; None for all."""
        self.hold: Deferred[None] | None = None

    def observe(self, keys=None):
        if self.broken:
            raise RuntimeError("a defect")
        self.asked.append(keys)
        return succeed({key: value for key, value in self.there.items() if keys is None or key in keys})

    def plan(self, desired, actual):
        puts = [("put", key, value) for key, value in desired.items() if actual.get(key) != value]
        return (*puts, *(("drop", key, 0) for key in actual if key not in desired))

    def apply(self, changes):
        refused = None
        for what, key, value in changes:
            if key in self.refuses:
                refused = refused or DataPlaneError(what, "refused")
                continue
            self.story.append((what, key))
            if what == "put":
                self.there[key] = value
            else:
                del self.there[key]
        return self.hold or (succeed(None) if refused is None else fail(refused))


class Rig:
    def __init__(self, clock, turns) -> None:
        self.clock = clock
        self.story: list = []
        self.plane = DictPlane(self.story)
        self.desired: Cell = Cell({}, turns.later)
        self.applied: Cell = Cell({}, turns.later)
        # A reader that publishes what a second one reads, as the zone does for DNS.
        self.told: Cell = Cell({}, turns.later)
        self.applied.subscribe(lambda value, _changed: self.told.publish(value))
        self.told.subscribe(lambda value, _changed: self.story.append(("told", *sorted(value))))
        self.ends = 0
        self.loop = Reconciler(
            "test", self.plane, self.desired, self.applied,
            clock=clock, rng=Random(1), later=turns.later, round_ended=self.ended,
        )  # fmt: skip
        self.loop.startService()
        self.turn()

    def ended(self) -> None:
        self.ends += 1

    def turn(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def want(self, **value: int) -> None:
        self.desired.publish(value)
        self.turn()

    def stop(self) -> None:
        done = self.loop.stopService()
        self.turn()
        assert done.called


@pytest.fixture
def rig(clock, turns):
    made = Rig(clock, turns)
    yield made
    made.stop()
    assert not clock.getDelayedCalls()


def test_what_is_wanted_is_there_before_anybody_is_told(rig) -> None:
    rig.story.clear()
    rig.want(a=1, b=2)
    assert rig.plane.there == {"a": 1, "b": 2}
    assert rig.story == [("put", "a"), ("put", "b"), ("told", "a", "b")]


def test_the_last_reader_is_told_before_what_goes_is_removed(rig) -> None:
    rig.want(a=1, b=2)
    rig.story.clear()
    rig.want(b=2)
    assert rig.story == [("told", "b"), ("drop", "a")]


def test_what_comes_is_there_before_what_goes_is_removed(rig) -> None:
    """A name that moves to another address answers at one of them at every moment."""
    rig.want(old=1)
    rig.story.clear()
    rig.want(new=1)
    assert rig.story == [("put", "new"), ("told", "new"), ("drop", "old")]


def test_what_cannot_be_had_spoils_only_itself_and_is_tried_again(rig) -> None:
    rig.plane.refuses = {"bad"}
    rig.want(bad=1, good=2)
    assert rig.applied.value == {"good": 2}
    assert rig.loop.failures == 1
    assert rig.loop.problem == "put: refused"
    rig.plane.refuses = set()
    rig.clock.advance(1.0)
    rig.turn()
    assert rig.applied.value == {"bad": 1, "good": 2}
    assert rig.loop.problem is None


def test_what_others_break_is_repaired_within_a_period(rig) -> None:
    rig.want(a=1)
    rig.plane.there.clear()
    rig.clock.advance(PERIOD)
    rig.turn()
    assert rig.plane.there == {"a": 1}


def test_a_change_is_about_its_keys_and_what_failed_and_no_more(rig) -> None:
    rig.plane.refuses = {"bad"}
    rig.want(a=1, bad=1, c=1)
    rig.plane.there["a"] = 7  # as by another program
    rig.plane.asked.clear()
    rig.desired.publish({"a": 1, "bad": 1, "c": 2}, frozenset({"c"}))
    rig.turn()
    assert {key for keys in rig.plane.asked for key in keys} == {"bad", "c"}
    assert rig.applied.value == {"a": 1, "c": 2}
    rig.desired.publish({"a": 1, "bad": 1}, frozenset({"c"}))
    rig.turn()
    assert rig.applied.value == {"a": 1}
    assert rig.plane.there == {"a": 7}
    for _ in range(40):
        rig.clock.advance(1)
        rig.turn()
    assert rig.plane.there == {"a": 1}, "a round about all comes in each period, whatever fails meanwhile"


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2)),
            st.sets(st.sampled_from("abcd")),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_rounds_about_changed_keys_lead_where_rounds_about_all_do(steps) -> None:
    """Whatever is refused on the way, once nothing is any more."""
    clock = Clock()
    rig = Rig(clock, Turns(clock))
    before: dict[str, int] = {}
    for value, refuses, whole in steps:
        rig.plane.refuses = refuses
        rig.desired.publish(value, None if whole else changed_keys(before, value))
        rig.turn()
        tried = value if whole else changed_keys(before, value)
        wanted = {key: one for key, one in value.items() if key in tried and key not in refuses}
        assert wanted.items() <= rig.plane.there.items()
        before = value
        assert rig.applied.value.keys() <= value.keys()
        assert rig.applied.value.items() <= rig.plane.there.items()
    rig.plane.refuses = set()
    for _ in range(40):
        clock.advance(1)
        rig.turn()
    assert rig.plane.there == before == rig.applied.value
    rig.stop()


def test_a_round_with_nothing_to_do_tells_nobody(rig) -> None:
    rig.want(a=1)
    revision, rounds, ends = rig.applied.revision, rig.loop.rounds, rig.ends
    rig.clock.advance(PERIOD)
    rig.turn()
    assert rig.loop.rounds == rounds + 1
    assert rig.ends == ends + 1
    assert rig.applied.revision == revision


def test_changes_during_a_round_are_taken_up_by_the_next(rig) -> None:
    rig.plane.hold = Deferred()
    rig.want(a=1)
    rig.want(b=1)
    assert rig.plane.there == {"a": 1}
    rig.clock.advance(0.3)
    hold, rig.plane.hold = rig.plane.hold, None
    hold.callback(None)
    rig.turn()
    assert rig.plane.there == {"b": 1}
    assert rig.loop.seconds.count == rig.loop.rounds
    assert rig.loop.seconds.sum == pytest.approx(0.3)


def test_a_defect_is_logged_counted_and_does_not_end_the_loop(rig) -> None:
    seen = []
    globalLogPublisher.addObserver(seen.append)
    try:
        rig.plane.broken = True
        rig.want(a=1)
    finally:
        globalLogPublisher.removeObserver(seen.append)
    assert rig.loop.errors == 1
    assert not rig.loop.loop.settled, "nobody may conclude that what is not there cannot be had"
    assert any("log_failure" in event for event in seen)
    rig.plane.broken = False
    rig.clock.advance(1.0)
    rig.turn()
    assert rig.plane.there == {"a": 1}


def test_stopping_waits_for_the_round_that_runs(rig) -> None:
    rig.plane.hold = Deferred()
    rig.want(a=1)
    done = rig.loop.stopService()
    assert not done.called
    rig.plane.hold.callback(None)
    rig.turn()
    assert done.called
    rig.loop.startService()
    rig.plane.hold = None
