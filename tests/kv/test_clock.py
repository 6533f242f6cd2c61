"""Laws of the hybrid logical clock."""

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.kv.clock import COUNTER_LIMIT, LEAP_MS, Clock
from dcosnet.model.stamp import Stamp

times = st.integers(0, 50_000)
stamps = st.builds(Stamp, times, st.integers(0, COUNTER_LIMIT - 1), st.sampled_from(["b", "c"]))
steps = st.lists(st.tuples(times, st.none() | stamps))


@given(steps=steps)
def test_stamps_grow_whatever_the_host_clock_does(steps):
    """It may stand, go back, or leap; each stamp is greater than all before, and fits 48 + 16 bits."""
    clock, last = Clock("a"), Stamp(-1, 0, "a")
    for physical, heard in steps:
        if heard is not None:
            clock.observe(heard, physical)
        stamp = clock.now(physical)
        assert stamp > last
        assert stamp.milliseconds >= physical
        assert stamp.counter < COUNTER_LIMIT
        last = stamp


@given(physical=times, heard=stamps)
def test_what_is_written_after_reading_is_later(physical, heard):
    """Unless what was read is more than 10 s ahead, and then it moves nothing."""
    clock = Clock("a")
    clock.observe(heard, physical)
    stamp = clock.now(physical)
    if heard.milliseconds <= physical + LEAP_MS:
        assert (stamp.milliseconds, stamp.counter) > (heard.milliseconds, heard.counter)
        assert clock.leaps == 0
    else:
        assert stamp == Stamp(physical, 0, "a") or physical == 0
        assert clock.leaps == 1


def test_a_full_counter_goes_over_into_the_next_millisecond():
    """65 536 stamps in a millisecond do not wrap."""
    clock = Clock("a")
    clock.observe(Stamp(7, COUNTER_LIMIT - 1, "b"), 7)
    assert clock.now(7) == Stamp(8, 0, "a")
