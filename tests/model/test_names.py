"""Labels made of anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.names import LABEL_MAX, fragment, label, usable
from dcosnet.testing.strategies import labels, names

CHARACTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(text=names)
def test_a_label_is_one_that_dns_takes_or_nothing(text: str) -> None:
    """Length, characters and both ends, whatever somebody named a task."""
    made = label(text)
    assert len(made) <= LABEL_MAX
    assert set(made) <= CHARACTERS
    assert not made.startswith("-")
    assert not made.endswith("-")


@given(text=names)
def test_a_label_of_a_label_is_itself(text: str) -> None:
    """A name that went through the rule twice is still found."""
    assert label(label(text)) == label(text)


@given(text=labels)
def test_a_good_label_is_left_alone(text: str) -> None:
    """The rule repairs; it does not rewrite."""
    assert label(text) == text


@given(text=names)
def test_nothing_usable_gives_nothing_and_only_that(text: str) -> None:
    """A name is lost only when it has no ASCII letter and no digit."""
    assert bool(label(text)) == any(c.isascii() and c.isalnum() for c in text)


@given(text=names)
def test_a_fragment_has_no_empty_part(text: str) -> None:
    """Two dots in a row would make a name that no resolver takes."""
    made = fragment(text)
    assert made == "" or all(part and label(part) == part for part in made.split("."))


@given(text=names)
def test_a_fragment_of_a_fragment_is_itself(text: str) -> None:
    """As for labels."""
    assert fragment(fragment(text)) == fragment(text)


@given(first=names, second=names)
def test_a_fragment_is_made_part_by_part(first: str, second: str) -> None:
    """Joining names at a dot joins what is made of them."""
    assert fragment(f"{first}.{second}") == ".".join(part for part in (fragment(first), fragment(second)) if part)


def test_dashes_at_the_cut_make_room_for_what_follows() -> None:
    """dcos-net's rule; Mesos-DNS would leave a dash at the end."""
    assert label("a" * 60 + "---" + "b-c" + "d" * 9) == "a" * 60 + "bcd"
    assert label("a" * 63 + "b") == "a" * 63


def test_only_ascii_is_folded() -> None:
    """The Kelvin sign lower-cases to k in Unicode; it is dropped here, as all that is not ASCII."""
    assert label("\N{KELVIN SIGN}a") == "a"
    assert label("WEB") == "web"


@given(parts=st.lists(labels, min_size=1, max_size=6))
def test_a_name_is_usable_up_to_253_characters(parts: list[str]) -> None:
    """The wire form has two octets more."""
    name = ".".join(parts)
    assert usable(name) == (len(name) <= 253)


def test_empty_and_long_labels_are_not_usable() -> None:
    """What a zone must not hold."""
    assert not usable("")
    assert not usable("a..b")
    assert not usable(".a")
    assert not usable("a" * 64)
    assert usable("a" * 63)
