"""The userspace plane keeps the contract, on real sockets; and says why it cannot have a listener."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import succeed
from twisted.logger import formatEvent, globalLogPublisher
from zope.interface import implementer

from dcosnet.errors import DataPlaneError
from dcosnet.interfaces import IDataPlane
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.plan import Listen, Serve, Unlisten, plan
from dcosnet.l4lb.userspace import explain
from dcosnet.model.net import Protocol
from dcosnet.model.vip import VipKey
from dcosnet.testing.contracts.dataplane import Rig, data_plane_contract

from .rig import HOME, VIP, backend, free_port, listener, network, open_plane, service


def states():
    one, two = listener(free_port()), listener(free_port())
    three = listener(free_port(socket.SOCK_DGRAM), Protocol.UDP)
    return (
        {one: service(one, backend(1)), three: service(three, backend(1))},
        {one: service(one, backend(1), backend(2)), two: service(two, backend(3)), three: service(three, backend(2))},
        {two: service(two, backend(3, weight=0), backend(4))},
        {one: service(one, backend(2)), two: service(two, backend(4))},
    )


def live(value):
    return frozenset(
        (one, back.endpoint) for one, found in value.items() for back in found.backends if not back.draining
    )


@contextmanager
def real():
    with open_plane() as opened:
        yield Rig(opened.plane, states(), live)


@implementer(IDataPlane)
class FakePlane:
    """Listeners in a dict, with the planner of the real one."""

    able = frozenset({"tcp", "udp"})

    def __init__(self) -> None:
        self.there = {}

    def observe(self, keys=None):
        return succeed({key: value for key, value in self.there.items() if keys is None or key in keys})

    def plan(self, desired, actual):
        return plan(desired, actual)

    def apply(self, changes):
        for change in changes:
            if isinstance(change, Listen | Serve):
                self.there[change.listener] = change.service
            else:
                self.there.pop(change.listener, None)
        return succeed(None)


@contextmanager
def fake():
    yield Rig(FakePlane(), states(), live)


class TestUserspace(data_plane_contract(real, pytest_twisted.ensureDeferred)):
    pass


class TestFake(data_plane_contract(fake, pytest_twisted.ensureDeferred)):
    pass


def test_a_port_in_use_spoils_only_itself_and_is_had_once_it_is_free() -> None:
    with open_plane() as opened, socket.socket() as squatter:
        squatter.bind((str(VIP), 0))
        squatter.listen()
        taken, free = listener(squatter.getsockname()[1]), listener(free_port())
        desired = {taken: service(taken, backend(1)), free: service(free, backend(1))}
        with pytest.raises(DataPlaneError, match="Another program has this port"):
            opened.apply(desired)
        assert opened.plane.observe().result.keys() == {free}
        assert opened.plane.problems.keys() == {taken}
        squatter.close()
        opened.apply(desired)
        assert opened.plane.observe().result.keys() == desired.keys()
        assert not opened.plane.problems


@pytest.fixture
def net():
    with network() as made:
        yield made


@pytest_twisted.ensureDeferred
async def test_that_a_backend_rests_is_logged_once_with_the_reason(net) -> None:
    """And clients notice nothing of it."""
    dead = free_port(address=str(HOME))
    events: list[str] = []
    with open_plane() as plane:
        _, alive = net.serve(greeting=b"hello")
        one = listener(free_port())
        plane.apply({one: service(one, backend(dead), backend(alive))})
        schedule = plane.plane._open[one].socket.schedule
        globalLogPublisher.addObserver(observe := lambda event: events.append(formatEvent(event)))
        try:
            for _ in range(20):
                client = await net.connect(one.port)
                await client.until(lambda peer: peer.got == b"hello")
                # As if a second had passed, after which it is tried again.
                for target in schedule.targets:
                    if target.standing is not None:
                        target.standing.suspected = 0.0
                        schedule._stale = 0.0
        finally:
            globalLogPublisher.removeObserver(observe)
    assert [event for event in events if "rests" in event] == [
        f"{HOME}:{dead} of {service(one).vip} rests for 30 s: 5 in a row: refused"
    ]


def test_an_address_of_another_host_is_refused_with_the_remedy() -> None:
    # 203.0.113.0/24 is for documentation (RFC 5737): no host has it, and nothing is sent.
    with open_plane() as opened:
        away = Listener(Protocol.TCP, ip_address("203.0.113.9"), 80)
        with pytest.raises(DataPlaneError, match=r"127\.11\.0\.0-127\.11\.255\.254"):
            opened.apply({away: service(away, backend(1))})
        opened.plane.forget({})
        assert not opened.plane.problems


@pytest.mark.parametrize(
    ("number", "address", "remedy"),
    [
        (errno.EACCES, "127.11.0.1", "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "fd01:c::1", "`ip -6 route add local fd01:c::1 dev lo`"),
        (errno.EADDRNOTAVAIL, "11.0.0.1", "`ip route add local 11.0.0.1 dev lo`"),
        (errno.EAFNOSUPPORT, "fd01:c::1", "no IPv6"),
        (errno.EMFILE, "127.11.0.1", "LimitNOFILE"),
        (errno.EIO, "127.11.0.1", "tried again"),
    ],
)
def test_each_reason_comes_with_what_to_do(number, address, remedy) -> None:
    text = explain(OSError(number, os.strerror(number)), ip_network(address))
    assert remedy in text
    assert "\n" not in text


def test_listeners_come_before_backends_change_before_listeners_go() -> None:
    old, kept, new = listener(1), listener(2), listener(3)
    before = {old: service(old, backend(1)), kept: service(kept, backend(1))}
    after = {kept: service(kept, backend(2)), new: service(new, backend(1))}
    assert plan(after, before) == (Listen(new, after[new]), Serve(kept, after[kept]), Unlisten(old))


def test_ipv6_vips_do_not_take_the_ipv4_port() -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this host has no ::1")
        port = probe.getsockname()[1]
    with open_plane() as opened:
        six, four = Listener(Protocol.TCP, ip_address("::1"), port), listener(port)
        opened.apply({six: service(six), four: service(four)})
        assert opened.plane.observe().result.keys() == {six, four}


@pytest_twisted.ensureDeferred
async def test_a_listener_that_changes_its_vip_counts_anew(net) -> None:
    """An address may go from one name to another in one change: neither's clients or counts are the other's."""
    first, second = net.serve_udp(b"a"), net.serve_udp(b"b")
    with open_plane() as made:
        home = listener(free_port(socket.SOCK_DGRAM), Protocol.UDP)
        one = Service(VipKey(Protocol.UDP, home.port, name="one", framework="x"), (backend(first),))
        other = Service(VipKey(Protocol.UDP, home.port, name="other", framework="x"), (backend(second),))
        made.apply({home: one})
        client = net.udp_client()
        assert await client.ask(b"?", home.port) == b"a?"
        made.apply({home: other})
        assert list(made.ledger.vips) == [str(other.vip)]
        assert list(made.ledger.used()) == []
        assert await client.ask(b"?", home.port) == b"b?"
        assert list(made.ledger.used()) == [str(other.vip)]
        assert made.ledger[str(other.vip)].sum({})[0].flows == 1
