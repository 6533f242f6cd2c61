"""Neighbours: both ends agree without a word, everybody is reached, and nobody has too many."""

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.rings import MESH, RINGS, Rings

names = st.sets(st.text(min_size=1, max_size=6) | st.from_regex(r"host-[0-9]{1,3}", fullmatch=True), max_size=40)

UNIVERSE = [f"n{n}" for n in range(24)]


@given(names)
def test_neighbours_are_mutual(some):
    """Else one would dial and the other hang up."""
    rings = Rings(some)
    for name in some:
        assert name not in rings.neighbours(name)
        assert all(name in rings.neighbours(other) for other in rings.neighbours(name))


@given(names)
def test_all_are_reached_over_neighbours(some):
    """News goes along them."""
    rings = Rings(some)
    reached, frontier = set(), sorted(some)[:1]
    while frontier:
        here = frontier.pop()
        reached.add(here)
        frontier += rings.neighbours(here) - reached
    assert reached == some


@given(names)
def test_nobody_has_more_than_two_on_each_ring(some):
    """The cost of a node does not grow with the cluster; and each has all others where they are few."""
    rings = Rings(some)
    for name in some:
        if len(some) <= MESH:
            assert rings.neighbours(name) == some - {name}
        else:
            assert 2 <= len(rings.neighbours(name)) <= 2 * RINGS


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(UNIVERSE)), max_size=60))
def test_only_the_set_counts_and_not_how_it_came_to_be(steps):
    """Nodes hear of each other in any order."""
    some = set(UNIVERSE[:MESH])
    rings = Rings(some)
    for add, name in steps:
        assert (rings.add if add else rings.discard)(name) is ((name in some) is not add)
        (some.add if add else some.discard)(name)
        fresh = Rings(some)
        assert all(rings.neighbours(other) == fresh.neighbours(other) for other in UNIVERSE)
    assert set(rings) == some
    assert len(rings) == len(some)


@given(names, st.text(min_size=1, max_size=6))
def test_one_that_is_not_there_has_the_neighbours_that_it_would_have(some, name):
    """The dead keep observers, who go on trying."""
    some.discard(name)
    assert Rings(some).neighbours(name) == Rings(some | {name}).neighbours(name)
