"""What lasts is out of the collector's sight, and goes all the same when nobody has it."""

from __future__ import annotations

import gc
import weakref

import pytest

from dcosnet.io import heap


class Thing:
    pass


@pytest.fixture(autouse=True)
def _as_before():
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_the_collector_is_not_called_for_every_few_tasks():
    """It finds nothing in what a document leaves behind: that goes by itself."""
    heap.begin()
    calls = []
    gc.callbacks.append(lambda phase, _: calls.append(phase))
    try:
        made = [[] for _ in range(4000)]
    finally:
        gc.callbacks.pop()
    assert made
    assert not calls


def test_what_is_kept_is_not_walked_again():
    thing = Thing()
    heap.keep()
    assert all(each is not thing for each in gc.get_objects())


def test_what_is_kept_goes_when_nothing_refers_to_it():
    thing = Thing()
    heap.keep()
    gone = weakref.ref(thing)
    del thing
    assert gone() is None


def test_cycles_that_are_garbage_are_not_kept():
    thing = Thing()
    thing.itself = thing
    gc.collect()  # old by now
    gone = weakref.ref(thing)
    del thing
    heap.keep()
    assert gone() is None
