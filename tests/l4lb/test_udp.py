"""UDP through the plane, end to end: flows, replies from the VIP's address, backends that refuse."""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from dcosnet.model.net import Protocol

from .rig import HOME, LARGEST, VIP, FullEpoll, backend, free_port, listener, network, open_plane, service

UDP = Protocol.UDP


@pytest.fixture
def net():
    with network() as made:
        yield made


@pytest.fixture
def plane():
    with open_plane() as made:
        yield made


def serve(plane, *backends):
    one = listener(free_port(socket.SOCK_DGRAM), UDP)
    plane.apply({one: service(one, *backends)})
    return one


@pytest_twisted.ensureDeferred
async def test_an_answer_comes_from_the_address_that_was_asked(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"a:")))
    client = net.udp_client()
    assert await client.ask(b"1", one.port) == b"a:1"
    assert await client.ask(b"2", one.port) == b"a:2"
    assert len(plane.relay.flows) == 1
    assert plane.proxy.transferred == (2, 6)


@pytest_twisted.ensureDeferred
async def test_a_client_stays_with_its_backend(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"a:")), backend(net.serve_udp(b"b:")))
    clients = [net.udp_client(), net.udp_client()]
    firsts = [await client.ask(b"", one.port) for client in clients]
    assert set(firsts) == {b"a:", b"b:"}
    for client, first in zip(clients, firsts, strict=True):
        assert await client.ask(b"x", one.port) == first + b"x"


@pytest_twisted.ensureDeferred
async def test_a_refusal_moves_the_flow_with_the_datagram_that_was_lost(plane, net) -> None:
    """The client asks once and is answered, though the first backend has no such port."""
    dead = free_port(socket.SOCK_DGRAM, str(HOME))
    one = serve(plane, backend(dead), backend(net.serve_udp(b"b:")))
    clients = [net.udp_client() for _ in range(2)]
    assert [await client.ask(b"?", one.port) for client in clients] == [b"b:?", b"b:?"]
    assert plane.counts.connect_refused == 1
    assert plane.counts.retries == 1


@pytest_twisted.ensureDeferred
async def test_a_flow_whose_backends_all_refuse_ends(plane, net) -> None:
    one = serve(plane, *(backend(free_port(socket.SOCK_DGRAM, str(HOME))) for _ in range(2)))
    net.udp_client().transport.write(b"?", (str(VIP), one.port))
    while not plane.counts.refused:
        await deferLater(reactor, 0)
    assert plane.counts.connect_refused == 2
    assert len(plane.relay.flows) == 0


@pytest_twisted.ensureDeferred
async def test_a_draining_backend_keeps_its_flows_and_one_that_is_gone_does_not(plane, net) -> None:
    old, new = net.serve_udp(b"old:"), net.serve_udp(b"new:")
    one = serve(plane, backend(old))
    client = net.udp_client()
    assert await client.ask(b"1", one.port) == b"old:1"
    plane.apply({one: service(one, backend(old, weight=0), backend(new))})
    assert await client.ask(b"2", one.port) == b"old:2"
    assert await net.udp_client().ask(b"3", one.port) == b"new:3"
    plane.apply({one: service(one, backend(new))})
    assert await client.ask(b"4", one.port) == b"new:4"


@pytest_twisted.ensureDeferred
async def test_an_idle_flow_ends(net) -> None:
    with open_plane(udp_idle=0.01) as plane:
        one = serve(plane, backend(net.serve_udp(b"a:")))
        assert await net.udp_client().ask(b"1", one.port) == b"a:1"
        while len(plane.relay.flows):
            await deferLater(reactor, 0.005)
        assert len(plane.epoll) == 1, "the listener alone is left"


@pytest_twisted.ensureDeferred
async def test_one_flow_too_many_takes_the_place_of_the_idlest(net) -> None:
    with open_plane(udp_flows=1) as plane:
        one = serve(plane, backend(net.serve_udp(b"a:")))
        first, second = net.udp_client(), net.udp_client()
        assert await first.ask(b"1", one.port) == b"a:1"
        assert await second.ask(b"2", one.port) == b"a:2"
        assert len(plane.relay.flows) == 1
        assert plane.relay.flows.evicted == 1
        assert await first.ask(b"3", one.port) == b"a:3"


@pytest_twisted.ensureDeferred
async def test_flows_end_with_their_listener(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"a:")))
    await net.udp_client().ask(b"1", one.port)
    plane.apply({})
    assert len(plane.relay.flows) == 0
    assert len(plane.epoll) == 0


@pytest_twisted.ensureDeferred
async def test_any_number_of_backends_may_refuse_before_one_answers(plane, net) -> None:
    """Two datagrams are on their way, so that each refusal is seen at once; the listener lives on."""
    dead = [backend(port) for port in {free_port(socket.SOCK_DGRAM, str(HOME)) for _ in range(700)}]
    one = serve(plane, *dead)
    client = net.udp_client()
    for _ in range(2):
        client.transport.write(b"?", (str(VIP), one.port))
    while not plane.counts.refused:
        await deferLater(reactor, 0)
    assert plane.epoll.errors == 0
    plane.apply({one: service(one, backend(net.serve_udp(b"b:")))})
    assert await client.ask(b"!", one.port) == b"b:!"


@pytest_twisted.ensureDeferred
async def test_an_epoll_that_is_full_costs_the_datagram_and_not_the_listener(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"a:")))
    client = net.udp_client()
    plane.relay.epoll = FullEpoll(plane.epoll)
    client.transport.write(b"lost", (str(VIP), one.port))
    while not plane.counts.udp_dropped:
        await deferLater(reactor, 0)
    plane.relay.epoll = plane.epoll
    assert len(plane.relay.flows) == 0
    assert await client.ask(b"1", one.port) == b"a:1"


@pytest_twisted.ensureDeferred
async def test_the_largest_datagram_passes_both_ways(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"")))
    data = bytes(LARGEST)
    assert await net.udp_client().ask(data, one.port) == data
