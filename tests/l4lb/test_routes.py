"""Which addresses become local, and what that would cut off."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.l4lb.routes import Known, covering, hides, is_local, networks
from dcosnet.model.addressing import AddressRange, parse_range

UNICAST, LOCAL, BROADCAST, MULTICAST = 1, 2, 3, 5
V4 = st.integers(1 << 24, (224 << 24) - 1).map(ip_address)
RANGES = st.tuples(V4, V4).map(lambda ends: AddressRange(min(ends), max(ends)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("11.0.0.0-11.255.255.254", ["11.0.0.0/8"]),
        ("10.1.0.1-10.1.255.254", ["10.1.0.0/16"]),
        ("fd01:c::-fd01:c::ffff:ffff:ffff:ffff", ["fd01:c::/64"]),
        ("10.0.0.7-10.0.0.7", ["10.0.0.7/32"]),
        ("10.0.0.0-10.0.0.12", ["10.0.0.0/29", "10.0.0.8/30", "10.0.0.12/32"]),
        ("127.11.0.0-127.11.255.254", []),
        ("::1-::1", []),
    ],
)
def test_a_range_is_as_few_networks_as_cover_it(text, expected) -> None:
    assert list(map(str, networks(parse_range(text)))) == expected


@given(RANGES, V4)
def test_networks_cover_the_range_and_at_most_two_addresses_more(given_range, address) -> None:
    found = networks(given_range)
    covered = sum(one.num_addresses for one in found)
    loopback = ip_network("127.0.0.0/8")
    if not loopback.overlaps(ip_network(given_range.first)) and not any(one.overlaps(loopback) for one in found):
        inside = given_range.first <= loopback[0] <= given_range.last
        assert inside or given_range.size <= covered <= given_range.size + 2
    if address in given_range and not address.is_loopback:
        assert any(address in one for one in found)
        assert covering(address, [given_range]) in found


LAN = Known(ip_network("10.0.0.0/24"), UNICAST, on_link=True)
FAR = Known(ip_network("10.8.0.0/16"), UNICAST, on_link=False)
DEFAULT = Known(ip_network("0.0.0.0/0"), UNICAST, on_link=False)
WIRE = Known(ip_network("0.0.0.0/0"), UNICAST, on_link=True)


@pytest.mark.parametrize(
    ("network", "route", "why"),
    [
        ("10.0.0.7/32", LAN, "connected"),
        ("10.0.0.0/8", LAN, "connected"),
        ("10.0.0.0/8", FAR, "routed elsewhere"),
        ("10.8.0.0/16", FAR, "routed elsewhere"),
        ("10.0.0.255/32", Known(ip_network("10.0.0.255/32"), BROADCAST, on_link=True), "broadcast"),
        ("224.0.0.5/32", Known(ip_network("224.0.0.0/4"), MULTICAST, on_link=True), "multicast"),
        ("10.8.1.1/32", FAR, None),  # a piece that whoever has the whole gave us
        ("11.0.0.0/8", LAN, None),
        ("11.0.0.0/8", DEFAULT, None),
        ("11.0.0.7/32", WIRE, None),
        ("fd01:c::/64", LAN, None),
    ],
)
def test_what_others_have_is_not_cut_off(network, route, why) -> None:
    found = hides(ip_network(network), [DEFAULT, route])
    assert found is None if why is None else why in found


@given(RANGES, V4)
def test_a_neighbour_is_never_cut_off(given_range, neighbour) -> None:
    """Whatever the range: where the networks have the neighbour's address, one of them is refused."""
    lan = Known(ip_network((neighbour, 24), strict=False), UNICAST, on_link=True)
    for network in networks(given_range):
        if neighbour in network:
            assert hides(network, [lan]) is not None


def test_a_network_is_local_when_the_route_covers_all_of_it() -> None:
    eight = Known(ip_network("11.0.0.0/8"), LOCAL, on_link=True)
    assert is_local(ip_network("11.1.0.0/16"), eight)
    assert not is_local(ip_network("10.0.0.0/7"), eight)
    assert not is_local(ip_network("11.1.0.0/16"), Known(eight.network, UNICAST, on_link=True))
    assert not is_local(ip_network("11.1.0.0/16"), None)
