"""Long replies take several turns."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from dcosnet.ops.slices import gather


class Queue:
    """Turns that a test takes one by one."""

    def __init__(self) -> None:
        self.waiting = []

    def later(self, run) -> None:
        self.waiting.append(run)

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for run in waiting:
            run()


def test_what_is_short_is_there_at_once() -> None:
    queue = Queue()
    assert gather(iter("ab"), 3, queue.later) == ["a", "b"]
    assert not queue.waiting


def test_what_is_long_gives_others_a_turn_after_each_slice() -> None:
    queue, taken, got = Queue(), [], []
    gather((taken.append(n) or n for n in range(7)), 3, queue.later).addCallback(got.append)
    for seen in (3, 6):
        assert len(taken) == seen
        assert not got
        queue.turn()
    assert got == [list(range(7))]
    assert not queue.waiting


def test_an_error_on_the_way_is_the_callers() -> None:
    def parts():
        yield 1
        raise ValueError("broken")

    queue, failures = Queue(), []
    gather(parts(), 1, queue.later).addErrback(failures.append)
    queue.turn()
    assert failures[0].check(ValueError)
    assert not queue.waiting


def test_nothing_more_is_made_for_who_has_left() -> None:
    queue, taken, failures = Queue(), [], []
    done = gather((taken.append(n) or n for n in range(9)), 2, queue.later)
    done.addErrback(failures.append)
    done.cancel()
    assert failures[0].check(CancelledError)
    queue.turn()
    assert len(taken) == 2
    assert not queue.waiting
