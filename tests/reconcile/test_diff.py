"""What stays, comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.reconcile.diff import beside, changed_keys, part, patched, present

mappings = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


@given(mappings, mappings)
def test_the_first_half_removes_nothing_and_the_second_adds_nothing(desired, actual) -> None:
    both = beside(desired, actual)
    assert both.keys() == desired.keys() | actual.keys()
    assert desired.items() <= both.items()
    there = present(desired, actual)
    assert there.items() <= actual.items()
    assert there.keys() == desired.keys() & actual.keys()


@given(mappings, mappings)
def test_changed_keys_are_those_whose_value_differs(before, after) -> None:
    same = dict(before.items() & after.items())
    assert changed_keys(before, after) == (before.keys() | after.keys()) - same.keys()


@given(mappings, mappings, st.sets(st.sampled_from("abcd")))
def test_a_part_and_a_patch_are_about_their_keys_alone(one, other, keys) -> None:
    assert part(one, keys) == {key: value for key, value in one.items() if key in keys}
    new = patched(one, keys, other)
    assert part(new, keys) == part(other, keys)
    rest = set("abcd") - keys
    assert part(new, rest) == part(one, rest)
