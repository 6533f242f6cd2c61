"""One value that changes, with its readers."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from dcosnet.io.turns import Turns
from dcosnet.model.cell import Cell, Changed

changes = st.none() | st.frozensets(st.sampled_from("abc"))


class Reader:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Changed]] = []

    def __call__(self, value: int, changed: Changed) -> None:
        self.seen.append((value, changed))


def test_a_reader_gets_everything_on_the_next_turn(clock: Clock, turns: Turns) -> None:
    """Not at once: who subscribes may not be ready yet."""
    cell, reader = Cell(7, turns.later), Reader()
    cell.subscribe(reader)
    assert reader.seen == []
    clock.advance(0)
    assert reader.seen == [(7, None)]


def test_publications_of_one_turn_arrive_as_one(clock: Clock, turns: Turns) -> None:
    """With the last value and the union of the keys."""
    cell, reader = Cell(0, turns.later), Reader()
    cell.subscribe(reader)
    clock.advance(0)
    cell.publish(1, frozenset("a"))
    cell.publish(2, frozenset("b"))
    clock.advance(0)
    assert reader.seen[1:] == [(2, frozenset("ab"))]
    assert cell.revision == 2


def test_a_publication_that_names_no_key_is_none(clock: Clock, turns: Turns) -> None:
    """Live views change in place; readers are called only for what changed."""
    cell, reader = Cell(0, turns.later), Reader()
    cell.subscribe(reader)
    clock.advance(0)
    cell.publish(1, frozenset())
    clock.advance(0)
    assert reader.seen == [(0, None)]
    assert (cell.value, cell.revision) == (1, 0)


def test_a_reader_that_left_is_not_called_by_what_was_due(clock: Clock, turns: Turns) -> None:
    """The delivery was already on its way when the subscription ended."""
    cell, reader = Cell(0, turns.later), Reader()
    leave = cell.subscribe(reader)
    leave()
    leave()
    clock.advance(0)
    cell.publish(1)
    clock.advance(0)
    assert reader.seen == []


def test_a_reader_may_end_another_ones_subscription(clock: Clock, turns: Turns) -> None:
    """In the very turn in which both are due."""
    cell, second = Cell(0, turns.later), Reader()
    ends: list[object] = []

    def first(_value: int, _changed: Changed) -> None:
        ends.append(leave_second())

    cell.subscribe(first)
    leave_second = cell.subscribe(second)
    clock.advance(0)
    assert ends == [None]
    assert second.seen == []


def test_a_reader_that_publishes_is_not_entered_again() -> None:
    """It sees its own publication on the turn after, however often it publishes."""
    due: list[Callable[[], None]] = []
    cell = Cell(0, due.append)
    inside, depths, values = 0, [], []

    def receive(value: int, _changed: Changed) -> None:
        nonlocal inside
        inside += 1
        depths.append(inside)
        values.append(value)
        if value < 3:
            cell.publish(value + 1)
        inside -= 1

    cell.subscribe(receive)
    for turn in range(1, 5):
        assert len(due) == 1
        due.pop()()
        assert values == list(range(turn))
    assert due == []
    assert depths == [1, 1, 1, 1]


def test_a_reader_that_fails_keeps_nobody_from_reading(clock: Clock, turns: Turns) -> None:
    """The reactor logs it; the readers after it are called on a turn that follows."""
    cell, reader = Cell(0, turns.later), Reader()

    def fail(_value: int, _changed: Changed) -> None:
        raise ZeroDivisionError

    cell.subscribe(fail)
    cell.subscribe(reader)
    try:
        clock.advance(0)
    except ZeroDivisionError:
        clock.advance(0)
    assert reader.seen == [(0, None)]


@given(steps=st.lists(st.tuples(changes, st.booleans()), max_size=20))
def test_no_change_is_ever_lost(steps: list[tuple[Changed, bool]]) -> None:
    """However publications and turns interleave, a reader hears of each changed key and of the last value."""
    clock = Clock()
    cell, reader = Cell(0, Turns(clock).later), Reader()
    cell.subscribe(reader)
    clock.advance(0)
    pending: Changed = frozenset()
    for number, (changed, turn) in enumerate(steps, 1):
        cell.publish(number, changed)
        pending = None if pending is None or changed is None else pending | changed
        if turn:
            before = len(reader.seen)
            clock.advance(0)
            expected = [] if pending == frozenset() else [(number, pending)]
            assert reader.seen[before:] == expected
            pending = frozenset()
    assert cell.value == len(steps)
