"""Digests: equal where the same is known, and different only where it is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.gossip.digest import LEAVES, Digest, leaf_of, root

names = st.sampled_from([f"n{n}" for n in range(30)]) | st.text(max_size=5)
numbers = st.integers(0, 3) | st.integers(0, (1 << 63) - 1)
contents = st.dictionaries(names, st.tuples(numbers, numbers), max_size=20)


def digest(content):
    made = Digest()
    for name, known in content.items():
        made.put(name, known)
    return made


@given(contents, st.randoms())
def test_the_order_does_not_matter(content, rng):
    """Nor what was there before."""
    steps = [(name, (1, 1)) for name in content] + [(name, None) for name in ("n1", "n2", "x")]
    rng.shuffle(steps)
    other = Digest()
    for name, known in steps:
        other.put(name, known)
    for name in {name for name, _ in steps}:
        other.put(name, None)
    assert other.leaves() == Digest().leaves()
    for name in rng.sample(sorted(content), len(content)):
        other.put(name, content[name])
    assert other.leaves() == digest(content).leaves()


@given(contents, contents)
def test_the_leaves_that_differ_are_those_of_names_that_differ(one, other):
    """No more is told than has to be, and no less."""
    differing = {leaf_of(name) for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    assert set(digest(one).differing(digest(other).told())) == differing
    empty = Digest()
    assert (root(digest(one), empty) == root(digest(other), empty)) is (one == other)
    assert (root(empty, digest(one)) == root(empty, digest(other))) is (one == other)


@given(contents, names, numbers, numbers)
def test_each_number_counts(content, name, generation, version):
    """A version more is something that somebody lacks."""
    content[name] = (generation, version)
    before = digest(content).leaves()
    assert digest({**content, name: (generation + 1, version)}).leaves() != before
    assert digest({**content, name: (generation, version + 1)}).leaves() != before


@given(contents)
def test_what_is_in_the_leaves_is_told(content):
    """All of a leaf, once, however often it is named."""
    made = digest(content)
    assert made.within(bytes(range(LEAVES)) * 2) == content
    for name, known in content.items():
        assert made.within(bytes((leaf_of(name),)))[name] == known


def test_members_and_keys_are_not_mixed_up():
    """The same of the one is something else of the other."""
    some, empty = digest({"a": (1, 1)}), Digest()
    assert root(some, empty) != root(empty, some)


@given(contents)
def test_only_leaves_that_are_not_zero_are_told(content):
    """Ten nodes cost as much as they are, and not as much as a thousand would."""
    told = digest(content).told()
    assert set(told[::9]) == {leaf_of(name) for name in content}
    assert len(told) == 9 * len({leaf_of(name) for name in content})
    assert Digest().told() == b""


@pytest.mark.parametrize(
    "octets",
    [
        b"1",
        bytes(2048),
        bytes([3, *bytes(8), 2, *bytes(8)]),
        bytes([2, *bytes(8)]) * 2,
    ],
    ids=["too_few", "no_whole_leaves", "out_of_order", "twice"],
)
def test_what_are_no_leaves_is_refused(octets):
    """A peer may send anything."""
    with pytest.raises(ValueError, match="leaves"):
        Digest().differing(octets)
