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
    yield
    gc.unfreeze()


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
