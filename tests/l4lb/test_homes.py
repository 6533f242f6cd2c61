"""Addresses stay local, also when what made them so goes; against a kernel that is a dict."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from dcosnet.io.rtnetlink import LOCAL, TABLE_LOCAL, Route
from dcosnet.l4lb import homes
from dcosnet.l4lb.homes import Homes
from dcosnet.l4lb.routes import PROTOCOL
from dcosnet.model.addressing import parse_range

RANGE = parse_range("12.0.0.0-12.255.255.254")
INSIDE = ip_network("12.0.0.0/8")
HOME = ip_address("11.1.2.3")
OWN = ip_network("11.1.2.3")
FORMER = ip_network("11.0.0.0/8")


class Kernel:
    """Local routes with the number of who added them."""

    def __init__(self) -> None:
        self.local = {}

    def match(self, address):
        found = [network for network in self.local if address in network]
        if not found:
            return None
        network = max(found, key=lambda one: one.prefixlen)
        return Route(network, LOCAL, self.local[network], on_link=True)

    def routes(self, version, table, kind, protocol=0):
        if table != TABLE_LOCAL:
            return []
        return [
            Route(network, kind, by, on_link=True)
            for network, by in self.local.items()
            if network.version == version and protocol in (0, by)
        ]

    def add_local(self, network, protocol):
        self.local.setdefault(network, protocol)

    def remove_local(self, network, protocol):
        if self.local.get(network) == protocol:
            del self.local[network]

    def close(self):
        pass


@pytest.fixture
def kernel(monkeypatch):
    made = Kernel()
    monkeypatch.setattr(homes, "Rtnetlink", lambda: made)
    monkeypatch.setattr(homes, "capable", lambda _capability: True)
    return made


def test_an_address_of_a_former_range_gets_a_route_of_its_own(kernel) -> None:
    kernel.local[FORMER] = PROTOCOL
    made = Homes((RANGE,), change=True)
    made.keep()
    assert made.prepare(HOME)
    made.sweep()
    assert kernel.local == {INSIDE: PROTOCOL, OWN: PROTOCOL}
    made.release(HOME)
    assert kernel.local == {INSIDE: PROTOCOL}


def test_what_others_made_local_and_take_away_is_made_so_again(kernel) -> None:
    """At the next look; a route of theirs is never removed."""
    kernel.local[FORMER] = 3
    made = Homes((RANGE,), change=True)
    assert made.prepare(HOME)
    made.keep()
    made.sweep()
    assert kernel.local == {FORMER: 3, INSIDE: PROTOCOL}
    del kernel.local[FORMER]
    made.keep()
    assert kernel.local == {INSIDE: PROTOCOL, OWN: PROTOCOL}
    del kernel.local[OWN]
    made.keep()
    assert OWN in kernel.local
    made.release(HOME)
    made.keep()
    assert kernel.local == {INSIDE: PROTOCOL}


def test_who_may_change_nothing_changes_nothing(kernel) -> None:
    kernel.local[FORMER] = 3
    made = Homes((RANGE,), change=False)
    assert made.prepare(HOME)
    del kernel.local[FORMER]
    made.keep()
    made.sweep()
    assert kernel.local == {}
