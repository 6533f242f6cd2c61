"""Whether a link lives: how long it takes to see that it does not, and what is no reason to think so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.probe import FIRST, LEAST, MOST, PERIOD, PROOFS, TRIES, Probe


def probe(now=0.0, pings=True, stretch=1.0, doubted=False):
    return Probe(now, pings=pings, stretch=lambda: stretch, doubted=doubted)


def lose(one, now):
    """Let nothing come from now on; when it is lost, and how many pings were sent."""
    sent = 0
    for _ in range(20):
        now = max(now, one.due)
        while one.act(now) is not None:
            sent += 1
        if one.lost:
            return now, sent
    raise AssertionError("it is never lost")


def answered(one, now, rtt, times=20):
    """Pings that are answered, each after `rtt`."""
    for _ in range(times):
        now = max(now, one.due)
        number = one.act(now)
        if number is not None:
            now += rtt
            one.heard(now)
            one.answered(number, now)
    return now


def test_without_a_round_trip_it_takes_a_second_each():
    """Nobody knows yet how far it is."""
    assert lose(probe(), 0.0) == (TRIES * FIRST, TRIES)


@given(st.floats(0.0001, 1.5), st.booleans(), st.sampled_from([1.0, 3.0, 9.0]))
def test_silence_is_seen_within_a_period_and_two_timeouts(rtt, pings, stretch):
    """However far it is, and whoever pings; stretched by this node's own health."""
    one = probe(pings=pings, stretch=stretch)
    now = answered(one, 0.0, rtt)
    assert LEAST * stretch <= one.timeout <= MOST * stretch
    lost, sent = lose(one, now)
    assert sent == TRIES
    own = PERIOD if pings else PERIOD + MOST * stretch  # reckoned before the last answer was
    assert lost - now <= own + TRIES * one.timeout + 1e-6
    assert lost - now >= TRIES * one.timeout - 1e-6


def test_any_frame_is_a_sign_of_life():
    """An answer behind much else is on its way."""
    one = probe()
    now = answered(one, 0.0, 0.01)
    for _ in range(200):
        now += 0.2
        one.act(now)
        one.heard(now)
    assert not one.lost
    assert one.tries <= 1


def test_the_end_that_was_dialled_is_silent_while_the_other_pings():
    """Half of the idle traffic of two."""
    one = probe(pings=False)
    now = answered(one, 0.0, 0.01, times=3)
    for _ in range(50):
        now += PERIOD
        one.heard(now)
        assert one.act(now + 0.01) is None


def test_a_round_trip_is_of_the_ping_that_is_answered():
    """An answer to one that is forgotten tells nothing."""
    one = probe()
    number = one.act(0.0)
    one.answered(number + 1, 5.0)
    assert one.rtt is None
    number = one.act(FIRST)
    one.answered(number, FIRST + 0.3)
    assert one.rtt == pytest.approx(0.3)


@pytest.mark.parametrize("pings", [True, False])
def test_a_round_trip_may_be_longer_than_a_period(pings):
    """While other frames come, pings go on; each answer is of one that is remembered. So it proves itself, too."""
    one = probe(pings=pings, doubted=True)
    due, now = [], 0.0
    while now < 30.0 and not one.proven:
        now += 0.1
        one.heard(now)
        number = one.act(now)
        if number is not None:
            due.append((now + 1.6, number))
        if due and due[0][0] <= now:
            one.answered(due.pop(0)[1], now)
    assert one.rtt == pytest.approx(1.6, abs=0.2)
    assert one.proven


def test_the_timeout_follows_the_round_trip():
    """RFC 6298: smoothed, and with the deviation."""
    one = probe()
    answered(one, 0.0, 0.01)
    assert one.timeout == LEAST
    answered(one, one.due, 0.4, times=3)
    assert one.timeout > 0.4
    answered(one, one.due, 0.001, times=60)
    assert one.timeout == LEAST


def test_a_pause_of_this_process_costs_the_peer_nothing():
    """It moves what is due, and gives a ping that was under way another chance."""
    one = probe()
    now = answered(one, 0.0, 0.01)
    due = one.due
    one.spare(now, 5.0)
    assert one.due == due + 5.0
    now = one.due
    one.act(now)
    one.act(one.due)
    assert one.tries == TRIES
    now = one.due + 30.0
    one.spare(now, 30.0)
    assert one.act(now) is None
    assert not one.lost
    lost, sent = lose(one, now)
    assert sent == 1
    assert lost >= now + 2 * one.timeout


def test_a_round_trip_across_a_pause_is_without_the_pause():
    """Else a pause would make all timeouts long."""
    one = probe()
    number = one.act(0.0)
    one.spare(10.0, 10.0)
    one.answered(number, 10.1)
    assert one.rtt == pytest.approx(0.1)


def test_a_hint_pings_at_once_and_only_once():
    """Somebody else has lost that peer; a ping that is under way is enough."""
    one = probe()
    now = answered(one, 0.0, 0.01) + 0.1
    assert one.act(now) is None
    one.hint(now)
    assert one.act(now) is not None
    one.hint(now)
    assert one.act(now) is None


@pytest.mark.parametrize("pings", [True, False])
def test_who_was_lost_is_believed_after_some_answers_in_a_row(pings):
    """One upon the other: a peer that is well pays some round trips. Whoever opened the link."""
    assert probe(pings=pings).proven
    one = probe(pings=pings, doubted=True)
    now = answered(one, 0.0, 0.01, times=PROOFS - 1)
    assert not one.proven
    assert answered(one, now, 0.01, times=1) == pytest.approx(PROOFS * 0.01)
    assert one.proven
    assert one.due >= PERIOD


def test_an_answer_that_is_late_proves_nothing():
    """Nor do those before it."""
    one = probe(doubted=True)
    now = answered(one, 0.0, 0.01, times=PROOFS - 1)
    now = answered(one, now, one.timeout + 0.01, times=1)
    now = answered(one, now, 0.01, times=PROOFS - 1)
    assert not one.proven
    answered(one, now, 0.01, times=1)
    assert one.proven


def test_a_lost_link_is_lost_once():
    """Whoever asks again gets no other answer."""
    one = probe()
    now, _ = lose(one, 0.0)
    assert one.act(now + 100) is None
    assert one.lost
