"""When a backend rests, and how it returns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.outliers import (
    FIRST_SHARE,
    FORGIVENESS,
    LONGEST_REST,
    RAMP,
    REST,
    ROW,
    SUSPICION,
    Standing,
)
from dcosnet.l4lb.tally import Reason

reasons = st.sampled_from(Reason)


def fail(standing: Standing, now: float, times: int, reason: Reason = Reason.REFUSED) -> None:
    for _ in range(times):
        standing.failed(now, reason)


def test_five_in_a_row_are_due_and_four_are_not() -> None:
    standing = Standing()
    fail(standing, 1.0, ROW - 1)
    assert not standing.due
    fail(standing, 1.0, 1)
    assert standing.due
    assert standing.why == "5 in a row: refused"


def test_one_success_begins_the_row_anew() -> None:
    standing = Standing()
    fail(standing, 1.0, ROW - 1)
    standing.worked()
    fail(standing, 1.0, ROW - 1)
    assert not standing.due


def test_taking_a_connection_does_not_excuse_hanging_up() -> None:
    """What stands before a dead program takes them all."""
    standing = Standing()
    for _ in range(ROW):
        standing.worked()
        standing.failed(1.0, Reason.HUNG_UP)
    assert standing.due
    assert standing.why == "5 in a row: took a connection and hung up without an answer"


def test_an_answer_excuses_hanging_up() -> None:
    standing = Standing()
    fail(standing, 1.0, ROW - 1, Reason.HUNG_UP)
    standing.served()
    fail(standing, 1.0, ROW - 1, Reason.HUNG_UP)
    assert not standing.due


def test_slow_and_failed_count_together() -> None:
    standing = Standing()
    fail(standing, 1.0, 2)
    for _ in range(ROW - 2):
        standing.slow(1.0, 0.24, 0.003)
    assert standing.due
    assert standing.why == "slow: 240 ms against 3 ms"


@given(reasons)
def test_a_single_failure_makes_it_the_last_choice_for_a_second(reason) -> None:
    standing = Standing()
    standing.failed(10.0, reason)
    assert (standing.rank(10.0), standing.rank(10.0 + SUSPICION)) == (1, 0)
    assert standing.changes(10.0) == 10.0 + SUSPICION


@given(reasons, st.integers(1, 30))
def test_rests_grow_up_to_the_longest(reason, times) -> None:
    standing = Standing()
    now, lengths = 100.0, []
    for _ in range(times):
        while not standing.due:
            standing.failed(now, reason)
        lengths.append(standing.rest(now))
        assert standing.rank(now) == 2
        now = standing.until
        assert standing.rank(now) == 0
    assert lengths == [min(REST * (i + 1), LONGEST_REST) for i in range(times)]


def test_soon_after_a_rest_one_failure_is_enough_and_later_it_is_not() -> None:
    standing = Standing()
    standing.rest(0.0)
    standing.failed(REST + RAMP, Reason.REFUSED)
    assert not standing.due
    standing = Standing()
    standing.rest(0.0)
    standing.failed(REST + RAMP - 0.1, Reason.REFUSED)
    assert standing.due


def test_each_minute_without_trouble_forgets_one_rest() -> None:
    standing = Standing()
    standing.rest(0.0)
    standing.rest(REST)
    end = standing.until
    assert [standing.rests(end + FORGIVENESS * i) for i in range(4)] == [2, 1, 0, 0]
    fail(standing, end + FORGIVENESS, ROW)
    assert standing.rest(end + FORGIVENESS) == 2 * REST, "one was forgotten"


@given(st.lists(st.floats(0, 2 * RAMP), min_size=2).map(sorted))
def test_the_share_grows_from_the_first_to_all(ages) -> None:
    standing = Standing()
    standing.grow(50.0)
    shares = [standing.share(50.0 + age) for age in ages]
    assert shares == sorted(shares)
    assert all(FIRST_SHARE <= share <= 1.0 for share in shares)
    assert standing.share(50.0) == FIRST_SHARE
    assert standing.share(50.0 + RAMP) == 1.0
    assert standing.grown == 50.0 + RAMP


def test_growing_ends_a_rest() -> None:
    standing = Standing()
    standing.rest(0.0)
    standing.grow(5.0)
    assert standing.rank(5.0) == 0
    assert standing.share(5.0) == FIRST_SHARE


@given(st.lists(st.tuples(st.sampled_from(["fail", "slow", "worked", "served", "rest", "grow"]), st.floats(0, 40))))
def test_nothing_changes_before_it_says_so(steps) -> None:
    """A pool that is made anew at these times only is never out of date; shares may lag by one step."""
    standing, now = Standing(), 0.0
    for step, wait in steps:
        until = standing.changes(now)
        between = (min(until, now + wait) + now) / 2
        if between < until:
            assert standing.rank(between) == standing.rank(now)
            assert standing.share(between) == pytest.approx(standing.share(now), abs=1 / 20)
        now += wait
        if step in {"fail", "slow", "rest"} and now < standing.until:
            continue
        match step:
            case "fail":
                standing.failed(now, Reason.TIMEOUT)
            case "slow":
                standing.slow(now, 1.0, 0.001)
            case "rest":
                standing.rest(now)
            case "grow":
                standing.grow(now)
            case _:
                getattr(standing, step)()
        if standing.settled(now):
            assert (standing.rank(now), standing.share(now), standing.due) == (0, 1.0, False)
