"""Next-turn delivery."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.task import Clock

from dcosnet.io.turns import BUDGET, Turns


def test_nothing_runs_before_the_turn_and_all_in_order(clock, turns):
    ran = []
    for each in range(5):
        turns.later(lambda each=each: ran.append(each))
    assert ran == []
    clock.advance(0)
    assert ran == [0, 1, 2, 3, 4]


class Reactor:
    """Calls what is due a turn at a time; `Clock` would go on until nothing is due."""

    def __init__(self):
        self.due = []
        self.now = 0.0

    def seconds(self):
        return self.now

    def callLater(self, delay, run):
        assert delay == 0
        self.due.append(run)

    def turn(self):
        due, self.due = self.due, []
        for run in due:
            run()


def test_what_is_added_in_a_turn_waits_for_the_next():
    """A loop of cells shows as load, not as a reactor that hangs."""
    reactor, ran = Reactor(), []
    turns = Turns(reactor)

    def again():
        ran.append(len(ran))
        turns.later(again)

    turns.later(again)
    for turn in range(1, 4):
        reactor.turn()
        assert len(ran) == turn
    assert len(reactor.due) == 1


def test_a_long_turn_leaves_the_rest_to_the_next():
    """Between them sockets have their turn; the order stays."""
    reactor, ran = Reactor(), []
    turns = Turns(reactor)

    def long(name):
        ran.append(name)
        reactor.now += BUDGET * 0.6

    for name in "abcde":
        turns.later(partial(long, name))
    seen = []
    while reactor.due:
        reactor.turn()
        seen.append("".join(ran))
    assert seen == ["ab", "abcd", "abcde"]


def test_one_that_raises_does_not_hold_up_the_rest():
    clock = Clock()
    turns, ran = Turns(clock), []

    def broken():
        raise ZeroDivisionError

    turns.later(broken)
    turns.later(lambda: ran.append("after"))
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)
    clock.advance(0)
    assert ran == ["after"]
