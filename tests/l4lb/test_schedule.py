"""Which backend gets the next flow."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.health import SUSPICION
from dcosnet.l4lb.schedule import Pick, Schedule
from dcosnet.l4lb.tally import Reason
from dcosnet.model.vip import Backend

every_rule = pytest.mark.parametrize("rule", list(Pick))


def backends(*weights: int) -> tuple[Backend, ...]:
    home = ip_address("10.0.0.1")
    return tuple(Backend(home, 8000 + i, home, weight) for i, weight in enumerate(weights))


def schedule(rule: Pick, *weights: int) -> Schedule:
    made = Schedule(rule, Random(7))
    made.update(backends(*weights))
    return made


@given(st.sampled_from(Pick), st.lists(st.integers(0, 3), max_size=6), st.randoms(use_true_random=False))
def test_each_open_backend_is_tried_once_and_draining_ones_never(rule, weights, rng) -> None:
    made = Schedule(rule, rng)
    made.update(backends(*weights))
    tried = []
    while (target := made.pick(0.0, tried)) is not None:
        assert target not in tried
        made.failed(target, 0.0, Reason.REFUSED)
        tried.append(target)
    assert {one.backend for one in tried} == {one for one in backends(*weights) if one.weight}


@every_rule
def test_one_that_failed_lately_is_tried_last_and_comes_back(rule) -> None:
    made = schedule(rule, 1, 1, 1)
    bad = made.pick(100.0)
    made.failed(bad, 100.0, Reason.REFUSED)
    assert all(made.pick(100.0 + i / 10) is not bad for i in range(90))
    assert bad in {made.pick(100.0 + SUSPICION) for _ in range(100)}


@every_rule
def test_when_all_failed_lately_they_are_used_all_the_same(rule) -> None:
    made = schedule(rule, 1, 1)
    for _ in range(2):
        made.failed(made.pick(1.0), 1.0, Reason.REFUSED)
    assert made.pick(1.5) is not None


def test_round_robin_goes_by_weight_and_mixes() -> None:
    made = schedule(Pick.ROUND_ROBIN, 3, 1)
    ports = [made.pick(0.0).backend.port for _ in range(8)]
    assert Counter(ports) == {8000: 6, 8001: 2}
    assert ports[:4] != [8000, 8000, 8000, 8001], "not in one run"


def test_random_goes_by_weight() -> None:
    made = schedule(Pick.RANDOM, 9, 1)
    counts = Counter(made.pick(0.0).backend.port for _ in range(2000))
    assert 1600 < counts[8000] < 2000


def test_least_takes_the_one_with_fewer_flows_for_its_weight() -> None:
    made = schedule(Pick.LEAST, 1, 2)
    for _ in range(300):
        made.pick(0.0).active += 1
    flows = {target.backend.port: target.active for target in made._open}
    assert abs(flows[8001] - 2 * flows[8000]) <= 2


def test_least_breaks_ties_by_chance() -> None:
    made = schedule(Pick.LEAST, 1, 1)
    assert {made.pick(0.0).backend.port for _ in range(50)} == {8000, 8001}


def test_flows_are_kept_when_the_weight_changes() -> None:
    """What drains still counts, and counts on when it returns."""
    made = schedule(Pick.LEAST, 1)
    target = made.pick(0.0)
    target.active = 5
    made.update(backends(0))
    assert made.pick(0.0) is None
    assert target in made
    made.update(backends(1))
    assert made.pick(0.0) is target
    assert target.active == 5


def test_what_a_backend_counted_stays_when_it_goes() -> None:
    """Also what it counts while its last flow ends: a sum that falls would look like a restart."""
    made = schedule(Pick.ROUND_ROBIN, 1, 1)
    first, second = made.targets
    for target in (first, second):
        target.active += 1
        made.worked(target, 0.0, 0.002)
    first.active -= 1
    made.update(())
    assert made.former.flows == 1
    assert list(made.leaving) == [second]
    second.tally.to_client += 7
    second.active -= 1
    assert (made.former.flows, made.former.to_client) == (2, 7)
    assert not made.leaving
