"""TCP through the proxy, end to end: real sockets, on loopback alone."""

from __future__ import annotations

import gc
import resource
import socket
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from dcosnet.errors import DataPlaneError
from dcosnet.l4lb import tcp

from .rig import HOME, VIP, Echo, FullEpoll, Peer, backend, free_port, listener, network, open_plane, service

# Twisted's names for a reset, after the connection was made and before it knew.
RESET = {"ConnectionLost", "ConnectError"}


@pytest.fixture
def net():
    with network() as made:
        yield made


@pytest.fixture
def plane():
    with open_plane() as made:
        yield made


def serve(plane, *backends) -> int:
    one = listener(free_port())
    plane.apply({one: service(one, *backends)})
    return one.port


@pytest_twisted.ensureDeferred
async def test_a_client_talks_to_a_backend(plane, net) -> None:
    _, port = net.serve(Echo, b"hello ")
    client = await net.connect(serve(plane, backend(port)))
    client.transport.write(b"world")
    await client.until(lambda one: one.got == b"hello world")
    assert plane.counts.active == 1
    assert plane.proxy.transferred == (5, 11)


@pytest_twisted.ensureDeferred
async def test_a_dead_backend_costs_the_client_nothing(plane, net) -> None:
    """Every connection is answered, though one of two backends refuses."""
    _, port = net.serve(Echo, b"here")
    vip = serve(plane, backend(free_port(address=str(HOME))), backend(port))
    for _ in range(4):
        client = await net.connect(vip)
        await client.until(lambda one: one.got == b"here")
    assert plane.counts.connect_refused == 1, "once is enough: it is tried last from then on"
    assert plane.counts.retries == 1
    assert plane.counts.refused == 0


@pytest_twisted.ensureDeferred
async def test_without_a_backend_that_answers_the_client_is_reset(plane, net) -> None:
    dead = [backend(free_port(address=str(HOME))) for _ in range(2)]
    assert await net.end(serve(plane, *dead)) in RESET
    assert plane.counts.refused == 1
    assert plane.counts.active == 0


@pytest_twisted.ensureDeferred
async def test_when_all_weights_are_zero_clients_are_reset_at_once(plane, net) -> None:
    echo, port = net.serve(Echo)
    assert await net.end(serve(plane, backend(port, weight=0))) in RESET
    assert not echo.peers


@pytest_twisted.ensureDeferred
async def test_a_backend_that_does_not_answer_in_time_is_left_for_the_next(net) -> None:
    """A full accept queue drops the handshake, which looks like a host that is gone."""
    _, port = net.serve(Echo, b"here")
    with open_plane(connect_timeout=0.05) as plane, socket.socket() as deaf:
        deaf.bind((str(HOME), 0))
        deaf.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            client = await net.connect(serve(plane, backend(deaf.getsockname()[1]), backend(port)))
            await client.until(lambda one: one.got == b"here")
            assert plane.counts.connect_timeout == 1
        finally:
            for filler in fillers:
                filler.close()


@pytest_twisted.ensureDeferred
async def test_an_end_travels_while_the_other_direction_goes_on(plane, net) -> None:
    """A client that has sent its request and closed its half still gets the answer."""
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    client.transport.write(b"request")
    client.transport.loseWriteConnection()
    await echo.until(1)
    peer = echo.peers[0]
    await peer.until(lambda one: one.finished)
    assert peer.got == b"request"
    peer.transport.write(b"answer")
    await client.until(lambda one: one.got == b"answer")
    peer.transport.loseConnection()
    await client.until(lambda one: one.finished)
    assert plane.counts.active == 0


@pytest_twisted.ensureDeferred
async def test_a_reset_of_one_side_resets_the_other(plane, net) -> None:
    """A stream that was cut is not taken for one that ended."""
    echo, port = net.serve(Echo, b"hello")
    vip = serve(plane, backend(port))
    client = await net.connect(vip)
    await client.until(lambda one: one.got == b"hello")
    echo.peers[0].transport.abortConnection()
    await client.until(lambda one: one.lost is not None)
    assert client.lost == "ConnectionLost"
    assert not client.finished

    client = await net.connect(vip)
    await client.until(lambda one: one.got == b"hello")
    client.transport.abortConnection()
    await echo.peers[1].until(lambda one: one.lost is not None)
    assert echo.peers[1].lost == "ConnectionLost"
    assert plane.counts.active == 0


@pytest_twisted.ensureDeferred
async def test_megabytes_pass_both_ways_though_the_reader_is_slow(plane, net) -> None:
    """And meanwhile the proxy holds one buffer at most for each direction."""
    data = Random(3).randbytes(5_000_000)
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    await echo.until(1)
    server = echo.peers[0]
    server.transport.pauseProducing()
    client.transport.write(data)
    for _ in range(200):
        await deferLater(reactor, 0)
    held = [end.pending or b"" for one in plane.proxy.connections for end in (one.client, one.server)]
    assert 0 < sum(map(len, held)) <= 2 * tcp.BUFFER
    server.transport.resumeProducing()
    server.transport.write(data[::-1])
    await server.until(lambda one: len(one.got) == len(data))
    await client.until(lambda one: len(one.got) == len(data))
    assert server.got == data
    assert client.got == data[::-1]
    assert plane.proxy.transferred == (len(data), len(data))


@pytest_twisted.ensureDeferred
async def test_all_bytes_arrive_before_the_end_that_follows_them(plane, net) -> None:
    data = Random(4).randbytes(3_000_000)
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    await echo.until(1)
    server = echo.peers[0]
    client.transport.pauseProducing()
    server.transport.write(data)
    server.transport.loseConnection()
    for _ in range(100):
        await deferLater(reactor, 0)
    client.transport.resumeProducing()
    await client.until(lambda one: one.finished or one.lost)
    assert client.got == data


@pytest_twisted.ensureDeferred
async def test_a_hung_up_end_that_waits_for_room_does_not_spin(plane, net) -> None:
    """
    The backend has closed its half; the client fills the pipe, closes and is told of by epoll for ever.

    The proxy stops watching that end until the backend reads again, and loses nothing.
    """
    data = Random(5).randbytes(5_000_000)
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    await echo.until(1)
    server = echo.peers[0]
    server.transport.pauseProducing()
    server.transport.loseWriteConnection()
    await client.until(lambda one: one.finished)
    client.transport.write(data)
    for _ in range(100):
        await deferLater(reactor, 0)
    server.transport.resumeProducing()
    client.transport.loseWriteConnection()
    await server.until(lambda one: one.finished or one.lost)
    assert server.got == data


@pytest_twisted.ensureDeferred
async def test_a_draining_backend_keeps_its_connections_and_gets_no_new_ones(plane, net) -> None:
    """A task that is being killed keeps its flows."""
    _, old = net.serve(Echo, b"old ")
    _, new = net.serve(Echo, b"new ")
    one = listener(free_port())
    plane.apply({one: service(one, backend(old))})
    first = await net.connect(one.port)
    await first.until(lambda peer: peer.got == b"old ")
    plane.apply({one: service(one, backend(old, weight=0), backend(new))})
    for _ in range(3):
        other = await net.connect(one.port)
        await other.until(lambda peer: peer.got == b"new ")
    first.transport.write(b"still here")
    await first.until(lambda peer: peer.got == b"old still here")


@pytest_twisted.ensureDeferred
async def test_a_listener_goes_and_its_connections_go_on(plane, net) -> None:
    _, port = net.serve(Echo, b"hello ")
    vip = serve(plane, backend(port))
    client = await net.connect(vip)
    await client.until(lambda one: one.got == b"hello ")
    plane.apply({})
    with socket.socket() as probe:
        assert probe.connect_ex((str(VIP), vip)) != 0, "nobody listens any more"
    client.transport.write(b"again")
    await client.until(lambda one: one.got == b"hello again")


@pytest_twisted.ensureDeferred
async def test_without_descriptors_those_in_the_queue_are_left_there(plane, net) -> None:
    """One client pays for finding out; the others are served once there are some again."""
    _, port = net.serve(Echo, b"here")
    vip = serve(plane, backend(port))
    clients = [socket.socket() for _ in range(5)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex((str(VIP), vip))
        with socket.socket() as probe:
            # One past the lowest free number: an accept still fits, the connection to a backend does not.
            resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 1, hard))
        while not plane.counts.accept_errors:
            await deferLater(reactor, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert plane.counts.accept_errors == 1
    while plane.counts.connections < len(clients):
        await deferLater(reactor, 0)
    late = await net.connect(vip)
    await late.until(lambda one: one.got == b"here")
    for client in clients:
        client.close()


@pytest.mark.parametrize("takes", [0, 1])
@pytest_twisted.ensureDeferred
async def test_an_epoll_that_is_full_costs_the_client_and_not_the_listener(plane, net, takes) -> None:
    """Whether it is full before the backend is tried or once it was reached."""
    _, port = net.serve(Echo, b"here")
    vip = serve(plane, backend(port))
    plane.proxy.epoll = FullEpoll(plane.epoll, takes)
    assert await net.end(vip) in RESET
    assert plane.counts.accept_errors == 1
    assert plane.counts.active == 0
    plane.proxy.epoll = plane.epoll
    late = await net.connect(vip)
    await late.until(lambda one: one.got == b"here")


def test_a_listener_that_epoll_refuses_leaves_its_port_free(plane) -> None:
    one = listener(free_port())
    plane.proxy.epoll = FullEpoll(plane.epoll)
    with pytest.raises(DataPlaneError):
        plane.apply({one: service(one, backend(1))})
    plane.proxy.epoll = plane.epoll
    plane.apply({one: service(one, backend(1))})
    assert plane.plane.observe().result.keys() == {one}


@pytest_twisted.ensureDeferred
async def test_both_sides_are_probed_while_they_are_idle(plane, net) -> None:
    """A host that vanished is noticed by TCP keepalive; nothing else ends an idle connection."""
    _, port = net.serve(Echo, b"here")
    client = await net.connect(serve(plane, backend(port)))
    await client.until(lambda one: one.got == b"here")
    (connection,) = plane.proxy.connections
    for end in (connection.client, connection.server):
        assert end.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest_twisted.ensureDeferred
async def test_connections_leave_nothing_for_the_garbage_collector(plane, net) -> None:
    """Those that were served, and those that were refused after backends had been tried."""
    _, port = net.serve(Echo, b"here")
    served = serve(plane, backend(port))
    refused = listener(free_port())
    there = plane.plane.observe().result
    plane.apply(there | {refused: service(refused, backend(free_port(address=str(HOME))))})
    gc.collect()
    gc.disable()
    try:
        client = await net.connect(served)
        await client.until(lambda one: one.got == b"here")
        client.transport.loseConnection()
        await net.end(refused.port)
        while plane.counts.active:
            await deferLater(reactor, 0)
        kinds = (tcp.Connection, tcp.End)
        assert [one for one in gc.get_objects() if isinstance(one, kinds)] == []
    finally:
        gc.enable()


@pytest_twisted.ensureDeferred
async def test_at_the_limit_newcomers_wait_until_somebody_leaves(net) -> None:
    _, port = net.serve(Echo, b"here")
    with open_plane(connections=1) as plane:
        vip = serve(plane, backend(port))
        first = await net.connect(vip)
        await first.until(lambda one: one.got == b"here")
        second = await net.connect(vip)
        while not plane.counts.accept_paused:
            await deferLater(reactor, 0)
        assert second.got == b""
        first.transport.loseConnection()
        await second.until(lambda one: one.got == b"here")


@pytest_twisted.ensureDeferred
async def test_closing_the_plane_resets_what_is_open(net) -> None:
    _, port = net.serve(Echo, b"here")
    with open_plane() as plane:
        client = await net.connect(serve(plane, backend(port)))
        await client.until(lambda one: one.got == b"here")
    await client.until(lambda one: one.lost is not None)
    assert client.lost == "ConnectionLost"
    assert plane.counts.active == 0


@pytest.mark.parametrize("seed", range(10))
@pytest_twisted.ensureDeferred
async def test_bytes_in_equal_bytes_out_however_they_are_cut(plane, net, seed) -> None:
    """In both directions at once, with both ends closed in the midst, and readers that stall."""
    rng = Random(seed)
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    await echo.until(1)
    server = echo.peers[0]
    said = {client: b"", server: b""}
    open_ends = [client, server]
    while open_ends:
        end = rng.choice(open_ends)
        what = rng.random()
        if what < 0.6:
            piece = rng.randbytes(rng.choice([0, 1, 1000, tcp.BUFFER, 300_000]))
            said[end] += piece
            end.transport.write(piece)
        elif what < 0.7:
            end.transport.pauseProducing()
        elif what < 0.8:
            end.transport.resumeProducing()
        elif what < 0.9:
            await deferLater(reactor, 0)
        else:
            end.transport.loseWriteConnection()
            open_ends.remove(end)
    for end in (client, server):
        end.transport.resumeProducing()
    for end in (client, server):
        await end.until(lambda one: one.finished or one.lost)
    assert server.got == said[client]
    assert client.got == said[server]
