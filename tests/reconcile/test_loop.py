"""When a round begins: at once on changes, later after failures, now and then anyway."""

from __future__ import annotations

import pytest

from dcosnet.reconcile.loop import LONGEST_WAIT, PERIOD, Loop


def test_the_first_round_is_due_at_once_and_settles_what_was_wanted() -> None:
    loop = Loop()
    assert loop.due() == 0.0
    assert not loop.settled
    assert loop.begin(100.0) is None
    assert loop.due() is None
    loop.succeeded(100.0)
    assert loop.settled
    assert loop.due() == 100.0 + PERIOD


def test_a_change_while_a_round_runs_makes_another() -> None:
    """The round that runs may have read the old value."""
    loop = Loop()
    loop.begin(0.0)
    loop.wanted()
    loop.succeeded(1.0)
    assert not loop.settled
    assert loop.due() == 0.0


def test_the_wait_doubles_with_each_failure_up_to_a_bound() -> None:
    loop = Loop()
    waits = []
    for _ in range(20):
        loop.begin(0.0)
        loop.failed(0.0, 1.0, tried=True)
        waits.append(loop.due())
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == LONGEST_WAIT
    loop.begin(0.0)
    loop.succeeded(0.0)
    loop.begin(0.0)
    loop.failed(0.0, 0.0, tried=True)
    assert loop.due() == 0.5, "a success forgets the failures, and chance takes up to half"


def test_a_change_does_not_wait_for_the_end_of_a_wait() -> None:
    loop = Loop()
    loop.begin(0.0)
    loop.failed(0.0, 1.0, tried=True)
    loop.wanted()
    assert loop.due() == 0.0


def test_two_rounds_at_a_time_are_an_error_of_ours() -> None:
    loop = Loop()
    loop.begin(0.0)
    with pytest.raises(AssertionError):
        loop.begin(0.0)


def test_a_round_that_broke_has_settled_nothing() -> None:
    """What was not even tried must not be taken for what cannot be had."""
    loop = Loop()
    loop.begin(0.0)
    loop.failed(0.0, 1.0, tried=False)
    assert not loop.settled
    loop.begin(0.0)
    loop.failed(0.0, 1.0, tried=True)
    assert loop.settled


def test_rounds_between_two_about_all_are_about_what_changed_and_what_is_owed() -> None:
    loop = Loop()
    loop.wanted(frozenset("a"))
    assert loop.begin(0.0) is None, "the first is about all, whatever changed"
    loop.wanted(frozenset("a"))
    loop.wanted(frozenset("b"))
    loop.succeeded(0.0)
    assert loop.begin(1.0) == {"a", "b"}
    loop.failed(1.0, 0.0, tried=True, owed=frozenset("b"))
    loop.wanted(frozenset("c"))
    assert loop.begin(1.1) == {"b", "c"}
    loop.succeeded(1.1)
    assert loop.due() == PERIOD, "changes do not put off the next round about all"
    loop.wanted(frozenset("c"))
    assert loop.begin(PERIOD) is None


def test_what_is_owed_and_not_known_takes_a_round_about_all() -> None:
    loop = Loop()
    loop.begin(0.0)
    loop.succeeded(0.0)
    loop.wanted(frozenset("a"))
    loop.begin(1.0)
    loop.failed(1.0, 0.0, tried=False)
    assert loop.begin(1.5) is None
