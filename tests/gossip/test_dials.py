"""Whom to dial and when: waits that grow, endpoints in turn, and never too many at a time."""

from random import Random

import pytest

from dcosnet.gossip.dials import AT_ONCE, LEAST, MOST, TIMEOUT, Dials


@pytest.fixture
def dials():
    return Dials(Random(1))


def begin(dials, now, first=1):
    """All that begin now, by link."""
    found = []
    while (dial := dials.begin(now, first + len(found), 1.0)) is not None:
        found.append(dial)
        assert len(found) < 100
    return found


def test_a_dial_begins_when_its_time_has_come(dials):
    """And is under way until something is heard of it."""
    dials.aim("b", "b", ("b:1",), 5.0)
    assert dials.due() == 5.0
    assert begin(dials, 4.9) == []
    (dial,) = begin(dials, 5.0)
    assert (dial.endpoint, dial.name, dial.timeout) == ("b:1", "b", TIMEOUT)
    assert dials.due() is None
    assert begin(dials, 99.0) == []
    assert dials.of(dial.link).key == "b"


def test_waits_double_up_to_a_bound_with_jitter(dials):
    """Between half and all; else all would call at once who comes back."""
    dials.aim("b", "b", ("b:1",), 0.0)
    now, waits = 0.0, []
    for _ in range(12):
        (dial,) = begin(dials, now)
        dials.failed(dial.link, now)
        waits.append(dials.due() - now)
        now = dials.due()
    bounds = [min(MOST, LEAST * 2**n) for n in range(12)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len({round(wait / bound, 6) for wait, bound in zip(waits, bounds, strict=True)}) > 3


def test_endpoints_are_tried_in_turn(dials):
    """One of two networks may be down."""
    dials.aim("b", "b", ("b:1", "b:2"), 0.0)
    tried, now = [], 0.0
    for _ in range(4):
        (dial,) = begin(dials, now)
        tried.append(dial.endpoint)
        dials.failed(dial.link, now)
        now = dials.due()
    assert tried == ["b:1", "b:2", "b:1", "b:2"]


def test_only_so_many_are_under_way(dials):
    """A whole half of a cluster may be gone; who has waited longest goes first."""
    for n in range(AT_ONCE + 5):
        dials.aim(f"n{n:02}", None, (f"n{n:02}:1",), float(100 - n))
    found = begin(dials, 200.0)
    assert len(found) == AT_ONCE
    assert found[0].endpoint == f"n{AT_ONCE + 4:02}:1"
    assert dials.due() is None
    dials.failed(found[0].link, 200.0)
    assert dials.due() is not None
    assert len(begin(dials, 200.0, first=500)) == 1


def test_a_hurry_and_a_reason_to_wait(dials):
    """A link was lost; or one was refused, and is not to be called for minutes."""
    dials.aim("b", "b", ("b:1",), 50.0)
    dials.hurry("b", 1.0)
    assert dials.due() == 1.0
    dials.postpone("b", 70.0)
    assert dials.due() == 70.0
    (dial,) = begin(dials, 70.0)
    dials.failed(dial.link, 70.0, 300.0)
    assert dials.due() >= 370.0
    for key in ("nobody",):
        dials.hurry(key, 1.0)
        dials.postpone(key, 1.0)
        dials.drop(key)


def test_an_aim_twice_is_one_with_the_new_endpoints(dials):
    """It has moved."""
    dials.aim("b", "b", ("b:1",), 5.0)
    dials.aim("b", "b", ("b:2",), 1.0)
    assert dials.due() == 5.0
    (dial,) = begin(dials, 5.0)
    assert dial.endpoint == "b:2"


def test_who_has_no_endpoint_is_not_dialled(dials):
    """Nor does it make anybody wake up."""
    dials.aim("b", "b", (), 0.0)
    assert dials.due() is None
    assert begin(dials, 1.0) == []


@pytest.mark.parametrize("how", ["settled", "dropped", "once"])
def test_what_is_over_is_over(dials, how):
    """And what was under way frees its place."""
    dials.aim("b", "b", ("b:1",), 0.0, once=how == "once")
    (dial,) = begin(dials, 0.0)
    if how == "settled":
        dials.settled(dial.link)
    else:
        if how == "dropped":
            dials.drop("b")
        assert dials.failed(dial.link, 1.0).name == "b"
    assert "b" not in dials
    assert dials.of(dial.link) is None
    assert dials.failed(dial.link, 2.0) is None
    assert dials._of_link == {}
