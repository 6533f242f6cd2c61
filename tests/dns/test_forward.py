"""Which upstreams are asked, when, and whose reply is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.dns.forward import AT_ONCE, DEADLINE, HEDGE, HOLD, Race, Routes, Score
from dcosnet.model.net import parse_endpoint

ONE, TWO, THREE = (parse_endpoint(f"10.0.0.{index}:53") for index in (1, 2, 3))


def reply(rcode: int) -> bytes:
    return bytes((0, 0, 0x80, rcode)) + bytes(8)


def test_two_are_asked_at_once() -> None:
    """And no third while nothing is late."""
    race = Race("abc", 0.0)
    assert race.take_output() == ["a", "b"]
    race.tick(HEDGE / 2)
    assert race.take_output() == []


@pytest.mark.parametrize("rcode", [0, 3])
def test_a_real_answer_wins_at_once(rcode) -> None:
    """That a name does not exist is an answer, too."""
    race = Race("ab", 0.0)
    race.feed("b", reply(rcode), 0.01)
    assert race.over
    assert race.winner == reply(rcode)


@pytest.mark.parametrize("rcode", [1, 2, 5])
def test_a_refusal_is_held_back_while_another_may_do_better(rcode) -> None:
    """One broken upstream does not cost the answer of the other."""
    race = Race("ab", 0.0)
    race.feed("a", reply(rcode), 0.01)
    assert not race.over
    race.feed("b", reply(0), 0.2)
    assert race.winner == reply(0)


def test_refusals_of_all_are_told_when_the_last_came() -> None:
    """Nobody waits for nothing."""
    race = Race("ab", 0.0)
    race.feed("a", reply(5), 0.01)
    race.feed("b", None, 0.02)
    assert race.over
    assert race.winner == reply(5)


def test_a_refusal_is_told_before_the_asker_gives_up() -> None:
    """When the other one is silent."""
    race = Race("ab", 0.0)
    race.feed("a", reply(2), 0.01)
    now = 0.0
    while not race.over:
        now = max(now, race.due())
        race.tick(now)
    assert race.winner == reply(2)
    assert now == pytest.approx(HOLD)


def test_a_failure_brings_in_the_next_at_once() -> None:
    """A closed port is known at once."""
    race = Race("abc", 0.0)
    race.take_output()
    race.feed("a", None, 0.001)
    assert race.take_output() == ["c"]


def test_silence_brings_in_the_next() -> None:
    """After HEDGE."""
    race = Race("abc", 0.0)
    race.take_output()
    race.tick(HEDGE)
    assert race.take_output() == ["c"]


def test_the_only_one_is_asked_again() -> None:
    """A datagram may be lost."""
    race = Race("a", 0.0)
    assert race.take_output() == ["a"]
    race.tick(HEDGE)
    assert race.take_output() == ["a"]


def test_silence_of_all_ends_at_the_deadline() -> None:
    """Without a winner."""
    race, now = Race("abc", 0.0), 0.0
    while not race.over:
        now = max(now, race.due())
        race.tick(now)
    assert now == pytest.approx(DEADLINE)
    assert race.winner is None


events = st.tuples(st.sampled_from("abcd"), st.sampled_from([None, 0, 2, 3, 5]), st.floats(0, 1))


@given(candidates=st.lists(st.sampled_from("abcd"), max_size=4, unique=True), happenings=st.lists(events, max_size=12))
def test_a_race_always_ends_with_the_best_it_heard(candidates, happenings) -> None:
    """By the deadline; never with a refusal if an answer came before the end."""
    race, now, asked, best = Race(candidates, 0.0), 0.0, set(), None
    for upstream, rcode, passed in happenings:
        asked.update(race.take_output())
        now += passed
        while not race.over and race.due() <= now:
            race.tick(race.due())
        if upstream in asked and not race.over:
            answer = None if rcode is None else reply(rcode)
            if answer is not None and (best is None or rcode in (0, 3)):
                best = answer
            race.feed(upstream, answer, now)
    steps = 0
    while not race.over:
        steps += 1
        now = max(now, race.due())
        race.tick(now)
        assert steps < 20
    assert race.winner == best
    assert race.take_output() == []
    assert len(asked) >= min(AT_ONCE, len(candidates)) or not happenings


def test_the_longest_suffix_routes() -> None:
    """At any nesting; the root is a suffix of all."""
    routes = Routes({"corp.example": [ONE], "deep.corp.example": [TWO]}, [THREE])
    assert routes.find("a.corp.example") == (ONE,)
    assert routes.find("deep.corp.example") == (TWO,)
    assert routes.find("a.b.deep.corp.example") == (TWO,)
    assert routes.find("xcorp.example") == (THREE,)
    assert routes.find("") == (THREE,)
    assert Routes({"": [ONE]}, [THREE]).find("any.where") == (ONE,)


@pytest.mark.parametrize(
    "name",
    [
        "x.thisdcos.directory",
        "thisdcos.directory",
        "a.b.thisdcos.global",
        "mesos",
        "leader.mesos",
        "zk-1.zk",
        "x.localhost",
    ],
)
def test_private_names_never_leave(name) -> None:
    """They would leak, and come back as absent; also with a catch-all."""
    assert Routes({}, [ONE]).find(name) is None
    assert Routes({"": [TWO]}, [ONE]).find(name) is None


def test_mesos_is_forwarded_where_a_zone_says_so() -> None:
    """To those who hold it."""
    routes = Routes({"mesos": [TWO]}, [ONE])
    assert routes.find("leader.mesos") == (TWO,)
    assert routes.find("mesos.example") == (ONE,)


def test_nothing_is_held_against_an_upstream_for_ever() -> None:
    """A failure fades; many weigh more than one; an answer redeems."""
    score = Score()
    assert score.value(100.0) == 0
    score.failed(100.0)
    once = score.value(100.0)
    score.failed(100.0)
    assert score.value(100.0) > once
    assert score.value(200.0) < 0.01
    before = score.value(110.0)
    score.answered(0.01, 110.0)
    assert score.value(110.0) < before
