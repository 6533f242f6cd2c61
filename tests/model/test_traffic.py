"""Counts of flows add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.traffic import Flows

counts = st.integers(0, 1000)
flows = st.builds(
    Flows,
    taken=counts,
    active=counts,
    failures=st.dictionaries(st.sampled_from(["refused", "timeout"]), counts),
    retries=counts,
    to_backend=counts,
    to_client=counts,
    idle_closed=counts,
    bounds=st.just((0.1, 1.0)),
    connects=st.tuples(counts, counts, counts),
    connect_seconds=counts.map(float),
)


@given(flows, flows, flows)
def test_sums_do_not_depend_on_the_order(one: Flows, two: Flows, three: Flows) -> None:
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one


@given(flows)
def test_nothing_adds_nothing(one: Flows) -> None:
    """Also no bounds to one who has some, and none to nobody."""
    assert one + Flows() == Flows() + one == one
    assert Flows() + Flows() == Flows()
    assert not Flows().used


@given(flows)
def test_the_histogram_has_the_connects(one: Flows) -> None:
    histogram = one.histogram
    assert (histogram.bounds, tuple(histogram.counts), histogram.sum) == (one.bounds, one.connects, one.connect_seconds)
    assert histogram.count == sum(one.connects)
