"""Hashes that other systems chose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.hashing import phash2, zbase32

ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"


@pytest.mark.parametrize(
    ("data", "expected"),
    # Computed by Erlang; the long list is in the recorded fixtures.
    [(b"", 147926629), (b"t", 4098008088), (b"the", 3555087351), (b"the quic", 1944575521)],
)
def test_phash2_is_erlangs(data: bytes, expected: int) -> None:
    """An address that a name had under dcos-net is the one it has here."""
    assert phash2(data) == expected


@given(data=st.binary(max_size=64), limit=st.integers(1, 1 << 32))
def test_a_limit_takes_the_remainder(data: bytes, limit: int) -> None:
    """As `erlang:phash2/2`."""
    assert phash2(data, limit) == phash2(data) % limit


def test_zbase32_of_the_check_value() -> None:
    """The value that the cluster names of DC/OS were checked with."""
    assert zbase32(b"foobar") == "c3zs6aubqe"
    assert zbase32(b"") == ""
    assert len(zbase32(bytes(32))) == 52


@given(data=st.binary(max_size=40))
def test_zbase32_can_be_read_back(data: bytes) -> None:
    """No bit is lost, and what pads is zero."""
    text = zbase32(data)
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    padding = len(text) * 5 - len(data) * 8
    assert 0 <= padding < 5
    assert number & ((1 << padding) - 1) == 0
    assert (number >> padding).to_bytes(len(data), "big") == data
