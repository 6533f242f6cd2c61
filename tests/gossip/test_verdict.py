"""Who is unreachable, from who accuses whom: the three rules, and whom they must not hit."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.rings import Rings
from dcosnet.gossip.verdict import QUORUM, Court, agreement

FIVE = "abcde"


def court(name, names, accusers, peers=(), juries=None):
    """Who is unreachable for `name`; `accusers` as {"b": "acd"}: a, c and d accuse b."""
    found = {accused: set(by) for accused, by in accusers.items()}
    return Court(name, Rings(names), found, juries or {}, peers).verdicts()


@pytest.mark.parametrize(("accusers", "observers", "agreed"), [
    (0, 0, None), (0, 1, None), (1, 1, 1.0), (1, 2, None), (2, 2, 1.0), (2, 3, 0.0), (3, 3, 1.0), (2, 4, None),
    (3, 4, 0.0), (2, 5, None), (3, 5, 0.0), (4, 5, 0.5), (5, 8, 0.0), (4, 8, None), (8, 8, 1.0),
])  # fmt: skip
def test_three_fifths_are_enough(accusers, observers, agreed):
    """Rounded up, and at least one."""
    assert agreement(accusers, observers) == agreed


def test_enough_observers_that_accuse_make_one_unreachable():
    """Rule 1; the others are as they were."""
    assert court("a", FIVE, {"b": "acd"}) == {"b": 0.0 if agreement(3, 4) == 0.0 else 1.0}
    assert court("a", FIVE, {"b": "acde"}) == {"b": 1.0}
    assert court("a", FIVE, {"b": "ac"}) == {}


def test_one_who_hears_nobody_is_as_gone_as_one_who_is_not_heard():
    """Rule 2: it accuses all others, and no other accuses it."""
    assert court("a", FIVE, dict.fromkeys("acde", "b")) == {"b": 1.0}
    assert court("b", FIVE, dict.fromkeys("acde", "b")) != {}


def test_a_survivor_is_not_condemned_for_accusing_the_dead():
    """Rule 1 goes first: of ten many die at once, and each survivor accuses them."""
    names = [f"n{n}" for n in range(10)]
    dead, living = set(names[:6]), set(names[6:])
    ring = Rings(names)
    accusers = {name: living & ring.neighbours(name) for name in dead}
    assert all(accusers.values())
    for name in living:
        found = court(name, names, accusers, living - {name})
        assert found.keys() == dead


def test_the_dead_do_not_condemn_who_accuses_them():
    """Though somebody has not accused them yet, so that they are still heard: they are no observers any more."""
    names = [f"n{n:02}" for n in range(30)]
    ring, tried = Rings(names), 0
    for survivor in names[1:]:
        near = sorted(ring.neighbours(survivor) - {names[0]})
        dead = set(near[: ceil(QUORUM * len(near)) + 1])
        accusers = {}
        for name in dead:
            others = sorted(ring.neighbours(name) - dead - {survivor})
            accusers[name] = {survivor, *others[: ceil(QUORUM * len(ring.neighbours(name))) - 1]}
        heard = all(len(by) < len(ring.neighbours(name) - dead) for name, by in accusers.items())
        enough = all(len(by) >= QUORUM * len(ring.neighbours(name)) for name, by in accusers.items())
        if heard and enough:
            tried += 1
            assert court(names[0], names, accusers).keys() == dead
    assert tried


def test_both_halves_of_a_split_agree_about_the_other():
    """Though the other half says nothing: only those who are heard are counted."""
    names = [f"n{n}" for n in range(10)]
    ring = Rings(names)
    halves = set(names[::2]), set(names[1::2])
    for mine, other in (halves, halves[::-1]):
        accusers = {name: found for name in other if (found := mine & ring.neighbours(name))}
        for name in mine:
            assert court(name, names, accusers, mine & ring.neighbours(name)).keys() == other


def test_one_that_nobody_here_observes_is_lost_with_its_observers():
    """Rule 3: no way leads to it."""
    names = [f"n{n:02}" for n in range(40)]
    ring = Rings(names)
    me = "n00"
    near = ring.neighbours(me)
    far = set(names) - near - {me}
    accusers = {name: {me} for name in near}
    found = court(me, names, accusers)
    assert far <= found.keys()


def test_one_whose_own_word_came_here_is_on_this_side():
    """It lost its observers as this node did; an orphan is no dead."""
    names = [f"n{n:02}" for n in range(40)]
    ring = Rings(names)
    me = "n00"
    near = ring.neighbours(me)
    orphan = min(set(names) - near - {me})
    accusers = {name: {me} for name in near}
    for name in ring.neighbours(orphan):
        accusers.setdefault(name, set()).add(orphan)
    found = court(me, names, accusers)
    assert orphan not in found


def test_nobody_judges_itself():
    """It would have to believe that it is gone."""
    assert "a" not in court("a", FIVE, {"a": "bcde"})


@given(st.data())
def test_what_is_found_are_others_that_are_there(data):
    """Whatever is said; and who is not accused and accuses nobody, and has a way to here, is not found."""
    names = data.draw(st.lists(st.sampled_from([f"n{n}" for n in range(16)]), unique=True, min_size=1))
    some = st.sampled_from([*names, "x"])
    accusers = data.draw(st.dictionaries(some, st.sets(some, min_size=1), max_size=8))
    peers = data.draw(st.sets(st.sampled_from(names)))
    juries = {name: Rings(names).neighbours(name) for name in data.draw(st.sets(st.sampled_from(names), max_size=3))}
    ring = Rings(names)
    found = Court(names[0], ring, accusers, juries, peers).verdicts()
    assert found.keys() <= set(names) - {names[0]}
    assert all(0.0 <= agreed <= 1.0 for agreed in found.values())
    if not accusers:
        assert found == {}
    again = Court(names[0], Rings(reversed(names)), dict(reversed(accusers.items())), juries, peers).verdicts()
    assert again == found
