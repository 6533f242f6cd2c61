"""Ranges of virtual addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.addressing import AddressRange, parse_range
from dcosnet.model.net import Address
from dcosnet.testing.strategies import addresses, names, ranges


@given(range_=ranges(), text=names)
def test_the_first_choice_is_in_the_range(range_: AddressRange, text: str) -> None:
    """Whatever the name, whatever the family."""
    assert range_.start(text) in range_
    assert range_.free(text, ()) == range_.start(text)


@given(range_=ranges(longest=40), text=names, data=st.data())
def test_a_taken_address_is_never_given_and_only_a_full_range_gives_none(
    range_: AddressRange, text: str, data: st.DataObject
) -> None:
    """None only after as many taken addresses as there are tries."""
    everything = [type(range_.first)(number) for number in range(int(range_.first), int(range_.last) + 1)]
    taken = data.draw(st.sets(st.sampled_from(everything)))
    free = range_.free(text, taken)
    if free is None:
        assert len(taken) >= max(1, len(everything) - 1)
    else:
        assert free in range_
        assert free not in taken


def test_after_the_last_address_comes_the_first() -> None:
    """All but the first are taken, so each name goes round the end."""
    range_ = parse_range("127.11.0.0-127.11.0.9")
    taken = {range_.first + step for step in range(1, 10)}
    given_ = {range_.free(name, taken) for name in ("a", "b", "c", "d")}
    assert given_ <= {range_.first, None}
    assert range_.first in given_


def test_a_full_range_has_nothing_to_give() -> None:
    """Not an error, and not an endless search."""
    range_ = parse_range("127.11.0.0-127.11.0.3")
    assert range_.free("web", {range_.first + step for step in range(4)}) is None


def test_a_range_of_one_address_gives_it_once() -> None:
    """The distance of its ends is zero, which is no modulus."""
    range_ = parse_range("127.11.0.7-127.11.0.7")
    assert range_.free("web", ()) == range_.first
    assert range_.free("web", {range_.first}) is None


@given(range_=ranges())
def test_a_range_reads_as_it_is_written(range_: AddressRange) -> None:
    """Round trip."""
    assert parse_range(str(range_)) == range_


@given(range_=ranges(), address=addresses())
def test_a_range_holds_its_ends_and_one_family(range_: AddressRange, address: Address) -> None:
    """Both ends are included; an address of the other family never is."""
    assert range_.first in range_
    assert range_.last in range_
    if address.version != range_.first.version:
        assert address not in range_


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1", "not FIRST-LAST"),
        ("10.0.0.2-10.0.0.1", "ends before it begins"),
        ("10.0.0.1-fd01::1", "mixes IPv4 and IPv6"),
        ("10.0.0-10.0.0.9", "not an IPv4 or IPv6 address"),
    ],
)
def test_a_bad_range_says_why(text: str, reason: str) -> None:
    """For the person who wrote it into the configuration."""
    with pytest.raises(ValueError, match=reason):
        parse_range(text)
