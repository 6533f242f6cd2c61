"""What became of the flows to one backend."""

from __future__ import annotations

import pytest

from dcosnet.l4lb.tally import CONNECT_BOUNDS, Reason, Tally


def test_connects_are_counted_by_their_time() -> None:
    tally = Tally()
    for seconds in (0.00005, 0.0001, 0.003, 99.0):
        tally.took(seconds)
    assert tally.flows == 4
    assert sum(tally.connects) == 4
    assert (tally.connects[0], tally.connects[CONNECT_BOUNDS.index(0.005)], tally.connects[-1]) == (2, 1, 1)
    assert tally.connect_seconds == pytest.approx(99.00315)


def test_tallies_without_anything_do_not_share_what_one_counts() -> None:
    one, other = Tally(), Tally()
    one.took(0.1)
    one.failed(Reason.REFUSED)
    assert sum(other.connects) == sum(other.failures.values()) == 0
    assert one.failures == {**dict.fromkeys(Reason, 0), Reason.REFUSED: 1}


def test_failures_cannot_be_counted_past_it() -> None:
    """All tallies without any have the same empty ones."""
    with pytest.raises(TypeError):
        Tally().failures[Reason.REFUSED] += 1


def test_the_sum_has_all_of_both() -> None:
    one, other, both = Tally(), Tally(), Tally()
    for tally in (one, other):
        tally.took(0.2)
        tally.failed(Reason.HUNG_UP)
        tally.retries += 1
        tally.to_backend += 2
        tally.to_client += 3
        tally.idle_closed += 4
        both.add(tally)
    assert (both.flows, both.retries, both.to_backend, both.to_client, both.idle_closed) == (2, 2, 4, 6, 8)
    assert (sum(both.connects), both.failures[Reason.HUNG_UP], both.connect_seconds) == (2, 2, 0.4)
    assert one.flows == 1
