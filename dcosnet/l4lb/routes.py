"""
Which addresses become this host's own, and which must not.

Pure. All addresses of 127/8 are local on Linux; any other VIP takes a route in
the table `local`, which the kernel looks at first. So such a route hides
whatever else has the address, and what it would hide decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network, summarize_address_range

import attrs

from dcosnet.model.addressing import AddressRange
from dcosnet.model.net import Address

Network = IPv4Network | IPv6Network

PROTOCOL = 111
"""Marks our routes (rtm_protocol); free in iproute2's list, above what the kernel keeps for itself."""

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_UNICAST, _LOCAL, _BROADCAST, _MULTICAST = 1, 2, 3, 5  # RTN_*


@attrs.frozen
class Known:
    """A route that the kernel has: its destination, its type (RTN_*), and whether no gateway is between."""

    network: Network
    kind: int
    on_link: bool


def networks(given: AddressRange) -> tuple[Network, ...]:
    """
    The networks that make up a range; none for loopback.

    A network without its first or last address counts as the whole of it: nobody
    else can have those two, and 11.0.0.0-11.255.255.254 would be 24 routes.
    """
    first, last = int(given.first), int(given.last)
    length = given.first.max_prefixlen - (first ^ last).bit_length()
    whole: Network = ip_network((given.first, length), strict=False)
    if first - int(whole.network_address) <= 1 and int(whole.broadcast_address) - last <= 1:
        parts: tuple[Network, ...] = (whole,)
    else:
        parts = tuple(summarize_address_range(given.first, given.last))
    return tuple(part for part in parts if not _within(part, _LOOPBACK))


def single(address: Address) -> Network:
    """The network of one address."""
    return ip_network(address)


def covering(address: Address, ranges: Iterable[AddressRange]) -> Network:
    """The network to make local for an address: that of its range, or its own."""
    for given in ranges:
        for network in networks(given):
            if network.version == address.version and address in network:
                return network
    return single(address)


def hides(network: Network, routes: Iterable[Known]) -> str | None:
    """Why a network may not become local, given routes of its family; None when it may."""
    for route in routes:
        there = route.network
        if not there.prefixlen or there.version != network.version:
            continue  # a default route leads to what nobody nearer has
        inside, around = _within(network, (there,)), _within(there, (network,))
        if route.kind == _UNICAST and (around or (route.on_link and inside)):
            what = "a network that this host is connected to" if route.on_link else "a network that is routed elsewhere"
            return f"{there} is {what}, and a local route for {_text(network)} would cut it off"
        if route.kind in (_BROADCAST, _MULTICAST) and inside:
            return f"{_text(network)} is in {there}, which is for broadcast or multicast"
    return None


def is_local(network: Network, route: Known | None) -> bool:
    """Whether the route that its first address falls under makes all of a network local."""
    return route is not None and route.kind == _LOCAL and _within(network, (route.network,))


def _text(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _within(network: Network, others: Sequence[Network]) -> bool:
    return any(
        network.version == other.version and other.prefixlen <= network.prefixlen and network.network_address in other
        for other in others
    )
