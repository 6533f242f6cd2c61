"""Connections and flows fit beside the listeners into the limit of open files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.descriptors import RESERVED, share


@pytest.mark.parametrize(
    ("files", "listeners", "flows", "fit"),
    [
        (1384, 0, 4096, (375, 250)),
        (1384, 0, 50, (475, 50)),
        (100_000, 0, 4096, (16384, 4096)),
        (None, 10_000, 9, (16384, 9)),
        (20_000, 10_000, 4096, (3606, 2404)),
    ],
)
def test_listeners_and_flows_take_one_and_connections_two(files, listeners, flows, fit) -> None:
    """What flows may not have is for connections."""
    room = share(files, listeners, 16384, flows)
    assert (room.connections, room.flows) == fit
    assert (room.reason is None) == (fit == (16384, flows))


@given(st.integers(RESERVED + 64, 200_000), st.integers(0, 50_000))
def test_all_together_stay_within_the_limit_and_some_traffic_always_passes(files, listeners) -> None:
    room = share(files, listeners, 16384, 4096)
    assert room.connections > 0
    assert room.flows > 0
    if listeners <= files - RESERVED - 64:
        assert RESERVED + listeners + 2 * room.connections + room.flows <= files
