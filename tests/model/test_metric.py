"""Metrics as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.metric import Histogram


@given(values=st.lists(st.floats(0, 10)), bounds=st.lists(st.floats(0, 10), unique=True).map(sorted))
def test_each_observation_is_counted_once_at_the_first_bound_that_holds_it(
    values: list[float], bounds: list[float]
) -> None:
    """A bound includes its own value, as Prometheus has it (`le`); the last count is of all beyond."""
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    for place, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in values)
