"""Addresses, ports and endpoints, parsed strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.net import Address, Endpoint, check_port, parse_address, parse_endpoint, parse_port, sort_key
from dcosnet.testing.strategies import addresses, endpoints, ports


@given(address=addresses())
def test_an_address_reads_as_it_is_written(address: Address) -> None:
    """Round trip."""
    assert parse_address(str(address)) == address


@given(endpoint=endpoints)
def test_an_endpoint_reads_as_it_is_written(endpoint: Endpoint) -> None:
    """Round trip; with a default port, too, the one written wins."""
    assert parse_endpoint(str(endpoint)) == endpoint
    assert parse_endpoint(str(endpoint), default_port=9) == endpoint


@given(address=addresses(), port=ports)
def test_a_default_port_is_for_an_address_without_one(address: Address, port: int) -> None:
    """IPv6 with and without brackets."""
    assert parse_endpoint(str(address), default_port=port) == Endpoint(address, port)
    if address.version == 6:
        assert parse_endpoint(f"[{address}]", default_port=port) == Endpoint(address, port)


@given(text=st.one_of(st.text(), st.text("0123456789.:[]%", max_size=30)))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    """Never another exception, and never a port that cannot be used."""
    for default in (None, 53):
        try:
            made = parse_endpoint(text, default)
        except ValueError:
            continue
        assert 0 < made.port < 65536


@given(port=ports)
def test_a_port_reads_as_it_is_written(port: int) -> None:
    """Round trip."""
    assert parse_port(str(port)) == check_port(port) == port


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "+1", " 1", "1_0", "٣", "0x10", "1.0", "9" * 5000])
def test_what_is_no_port_is_refused(text: str) -> None:
    """Also what int() would take."""
    with pytest.raises(ValueError, match="port"):
        parse_port(text)


@pytest.mark.parametrize("text", ["", "1.2.3", "127.1", "01.2.3.4", "fe80::1%eth0", "[::1]", "localhost", " ::1"])
def test_what_is_not_strictly_an_address_is_refused(text: str) -> None:
    """A short form or a zone would mean different things to different readers."""
    with pytest.raises(ValueError, match=r"address|zone"):
        parse_address(text)


@pytest.mark.parametrize("text", ["1.2.3.4:", "[::1]:", "[::1", "[::1]53", "::1", "1.2.3.4", ":53", "1.2.3.4:53:53"])
def test_an_endpoint_without_a_port_is_refused(text: str) -> None:
    """ "::1" has no port: its last colon is its own."""
    with pytest.raises(ValueError, match=r"ADDRESS:PORT|address"):
        parse_endpoint(text)


@given(some=st.lists(addresses(), max_size=10))
def test_addresses_sort_by_family_then_number(some: list[Address]) -> None:
    """Both families in one list, which Python alone refuses to sort."""
    ordered = sorted(some, key=sort_key)
    assert [a.version for a in ordered] == sorted(a.version for a in some)
    for version in (4, 6):
        numbers = [int(a) for a in ordered if a.version == version]
        assert numbers == sorted(numbers)
