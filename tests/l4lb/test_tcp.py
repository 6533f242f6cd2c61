"""TCP through the proxy, end to end: real sockets, on loopback alone."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from dcosnet.errors import DataPlaneError
from dcosnet.io.epoll import READ
from dcosnet.io.pipes import SIZE
from dcosnet.l4lb.connection import KEEPALIVE, Connection
from dcosnet.l4lb.ends import BUFFER, End
from dcosnet.l4lb.idle import PERIOD
from dcosnet.l4lb.tally import Reason
from dcosnet.l4lb.tcp import PAUSE

from .rig import (
    HOME,
    VIP,
    Echo,
    FullEpoll,
    Peer,
    backend,
    free_port,
    listener,
    network,
    open_plane,
    service,
    until,
)

# How bytes may go: through our memory, through a pipe, or from one to the other with time.
MODES = {"copied": {"pipes": 0}, "spliced": {"bulk": 1}, "switched": {}}

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


@pytest.fixture(params=MODES, ids=MODES.keys())
def streams(request):
    with open_plane(**MODES[request.param]) as made:
        yield made


def target_of(plane):
    """The backends of a plane's only listener."""
    (one,) = plane.plane._open.values()
    return one.socket.schedule.targets


def idle_closed(plane) -> int:
    """Connections of the only listener that were ended for having been idle."""
    return sum(target.tally.idle_closed for target in target_of(plane))


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
async def test_what_a_client_said_early_reaches_the_backend_that_answers(plane, net) -> None:
    """It had spoken, and ended its half, before the first backend refused."""
    echo, port = net.serve(Peer)
    vip = serve(plane, backend(free_port(address=str(HOME))), backend(port))
    with socket.socket() as client:
        client.connect((str(VIP), vip))
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)
        await echo.until(1)
        await echo.peers[0].until(lambda one: one.finished)
        assert echo.peers[0].got == b"early"
    assert plane.counts.retries == 1


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


class Hollow(Peer):
    """As a proxy before nobody: takes a connection and leaves it, when it was asked something."""

    how = "loseConnection"

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        getattr(self.transport, self.how)()


class Cut(Hollow):
    how = "abortConnection"


@pytest.mark.parametrize("kind", [Hollow, Cut])
@pytest_twisted.ensureDeferred
async def test_a_backend_that_hangs_up_when_asked_is_in_trouble(plane, net, kind) -> None:
    _, port = net.serve(kind)
    vip = serve(plane, backend(port))
    client = await net.connect(vip)
    client.transport.write(b"anybody there?")
    await client.until(lambda one: one.finished or one.lost is not None)
    client.transport.loseConnection()
    await until(lambda: not plane.counts.active)
    [target] = target_of(plane)
    assert target.tally.failures[Reason.HUNG_UP] == 1
    assert target.standing is not None


@pytest.mark.parametrize("says", [b"", b"bye"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_ends_first_is_no_trouble_of_its_backend(plane, net, says) -> None:
    """Nor is a backend that ends without having been asked, or after an answer."""
    _, port = net.serve(Echo)
    vip = serve(plane, backend(port))
    client = await net.connect(vip)
    client.transport.write(says)
    client.transport.loseConnection()
    await client.until(lambda one: one.lost is not None)
    await until(lambda: not plane.counts.active)
    [target] = target_of(plane)
    assert not target.tally.failures[Reason.HUNG_UP]


@pytest_twisted.ensureDeferred
async def test_megabytes_pass_both_ways_though_the_reader_is_slow(streams, net) -> None:
    """And meanwhile the proxy holds one buffer or pipe at most for each direction."""
    plane = streams
    data = Random(3).randbytes(5_000_000)
    echo, port = net.serve(Peer)
    client = await net.connect(serve(plane, backend(port)))
    await echo.until(1)
    server = echo.peers[0]
    server.transport.pauseProducing()
    client.transport.write(data)
    for _ in range(200):
        await deferLater(reactor, 0)
    held = [end.held for one in plane.proxy.connections for end in (one.client, one.server)]
    assert 0 < sum(held) <= 2 * (SIZE if plane.proxy.limits.pipes else BUFFER)
    server.transport.resumeProducing()
    server.transport.write(data[::-1])
    await server.until(lambda one: len(one.got) == len(data))
    await client.until(lambda one: len(one.got) == len(data))
    assert server.got == data
    assert client.got == data[::-1]
    assert plane.proxy.transferred == (len(data), len(data))


@pytest_twisted.ensureDeferred
async def test_all_bytes_arrive_before_the_end_that_follows_them(streams, net) -> None:
    plane = streams
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
async def test_a_hung_up_end_that_waits_for_room_loses_nothing(streams, net) -> None:
    """The backend has closed its half and is slow; the client sends much and closes; epoll tells of that once."""
    plane = streams
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


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many more may be opened; those that are free below the highest in use are filled."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.exists())
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    while fillers[-1] < highest:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, fillers[-1]) + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


@pytest.mark.parametrize("left", range(6))
@pytest_twisted.ensureDeferred
async def test_without_descriptors_all_are_served_or_wait_and_none_is_turned_away(left) -> None:
    """Whichever call finds that there are none; and they go on once there are some again."""
    with open_plane() as plane, socket.socket() as door, ExitStack() as stack:
        door.bind((str(HOME), 0))
        door.listen()
        vip = serve(plane, backend(door.getsockname()[1]))
        clients = [stack.enter_context(socket.socket()) for _ in range(5)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((str(VIP), vip))
        with descriptors_left(left):
            await until(lambda: plane.counts.accept_errors)
            assert plane.counts.active == left // 2
            for _ in range(20):
                await deferLater(reactor, 0)
            assert plane.counts.accept_errors == 1, "it does not spin"
        await until(lambda: plane.counts.active == len(clients))
        for _ in clients:
            door.accept()[0].close()
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            await until(lambda client=client: select.select([client], [], [], 0)[0])
            assert client.recv(1) == b""


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


def test_without_sockets_for_backends_one_client_at_a_time_is_lost(monkeypatch) -> None:
    """However many listeners wait: the others keep their place in the backlog for as long as that lasts."""
    clock = Clock()
    with open_plane(clock=clock) as plane, ExitStack() as stack:
        ports = [free_port() for _ in range(2)]
        plane.apply({one: service(one, backend(free_port())) for one in map(listener, ports)})
        for port in ports * 5:
            stack.enter_context(socket.create_connection((str(VIP), port)))
        monkeypatch.setattr(plane.proxy, "socket", lambda _family: None)
        for _ in range(10):
            plane.epoll.doRead()
            clock.advance(0)
        assert plane.counts.connections == len(ports)
        clock.advance(PAUSE)
        assert plane.counts.connections == len(ports) + 1


def test_a_connection_that_outlives_its_listener_stops_nobody_else(monkeypatch) -> None:
    """The listener's descriptor may be somebody else's by then."""
    clock = Clock()
    with open_plane(clock=clock) as plane, ExitStack() as stack:
        vip = serve(plane, backend(free_port()), backend(free_port()))
        monkeypatch.setattr(Connection, "_status", lambda *_: errno.EAGAIN)
        stack.enter_context(socket.create_connection((str(VIP), vip)))
        plane.epoll.doRead()
        (connection,) = plane.proxy.connections
        number = connection.listener.fd
        plane.apply({})
        ours, theirs = map(stack.enter_context, socket.socketpair())
        if ours.fileno() != number:
            os.dup2(ours.fileno(), number)
            stack.callback(os.close, number)
        told: list[int] = []
        plane.epoll.add(number, READ, told.append)
        monkeypatch.setattr(plane.proxy, "socket", lambda _family: None)
        clock.advance(5.0)
        assert plane.counts.active == 0
        theirs.send(b"x")
        plane.epoll.doRead()
        assert told == [READ]
        plane.epoll.remove(number)
        assert not clock.getDelayedCalls()[1:], "nobody waits for descriptors"


def test_a_listener_that_epoll_refuses_leaves_its_port_free(plane) -> None:
    one = listener(free_port())
    plane.proxy.epoll = FullEpoll(plane.epoll)
    with pytest.raises(DataPlaneError):
        plane.apply({one: service(one, backend(1))})
    plane.proxy.epoll = plane.epoll
    plane.apply({one: service(one, backend(1))})
    assert plane.plane.observe().result.keys() == {one}


@pytest_twisted.ensureDeferred
async def test_both_sides_are_probed_while_they_are_idle(net) -> None:
    """A host that vanished is noticed by TCP keepalive; for backends only of connections that have come to stay."""
    _, port = net.serve(Echo, b"here")
    clock = Clock()
    with open_plane(clock=clock) as plane:
        client = await net.connect(serve(plane, backend(port)))
        await client.until(lambda one: one.got == b"here")
        (connection,) = plane.proxy.connections

        def probed(end: End) -> list[bool]:
            return [end.socket.getsockopt(level, option) == value for level, option, value in KEEPALIVE]

        assert all(probed(connection.client))
        assert not any(probed(connection.server))
        clock.advance(PERIOD)
        assert all(probed(connection.server))


@pytest_twisted.ensureDeferred
async def test_without_a_timeout_an_idle_connection_stays(net) -> None:
    _, port = net.serve(Echo, b"here")
    clock = Clock()
    with open_plane(clock=clock) as plane:
        client = await net.connect(serve(plane, backend(port)))
        await client.until(lambda one: one.got == b"here")
        clock.pump([PERIOD] * 1000)
        client.transport.write(b" still")
        await client.until(lambda one: one.got == b"here still")


@pytest_twisted.ensureDeferred
async def test_a_connection_that_moves_nothing_for_the_timeout_is_reset_and_counted(net) -> None:
    """And one that moves something, in whichever direction, stays."""
    echo, port = net.serve(Peer)
    clock = Clock()
    with open_plane(clock=clock, idle_timeout=40.0) as plane:
        vip = serve(plane, backend(port))
        idle, says, hears = [await net.connect(vip) for _ in range(3)]
        await echo.until(3)
        for turn in range(1, 5):
            says.transport.write(b".")
            await echo.peers[1].until(lambda one, turn=turn: len(one.got) == turn)
            echo.peers[2].transport.write(b".")
            await hears.until(lambda one, turn=turn: len(one.got) == turn)
            assert idle_closed(plane) == 0
            clock.advance(10)
        clock.advance(10)
        await idle.until(lambda one: one.lost is not None)
        assert idle.lost == "ConnectionLost"
        assert idle_closed(plane) == 1
        (target,) = target_of(plane)
        assert target.tally.idle_closed == 1
        assert plane.counts.active == 2
        for _ in range(3):
            clock.advance(10)
        assert plane.counts.active == 0


@pytest_twisted.ensureDeferred
async def test_many_connections_are_looked_at_a_few_at_a_time(net, monkeypatch) -> None:
    monkeypatch.setattr("dcosnet.l4lb.idle._BATCH", 2)
    delays = []

    class Noted(Clock):
        def callLater(self, delay, *args, **options):
            delays.append(delay)
            return super().callLater(delay, *args, **options)

    echo, port = net.serve(Peer)
    clock = Noted()
    with open_plane(clock=clock, idle_timeout=4.0) as plane:
        vip = serve(plane, backend(port))
        for _ in range(5):
            await net.connect(vip)
        await echo.until(5)
        delays.clear()
        clock.advance(1.0)
        assert delays == [0, 0, 1.0]
        clock.pump([1.0] * 4)
        assert idle_closed(plane) == 5


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
        kinds = (Connection, End)
        assert [one for one in gc.get_objects() if isinstance(one, kinds)] == []
    finally:
        gc.enable()


async def held_back(plane, times: int = 1) -> None:
    await until(lambda: plane.counts.accept_paused >= times)


@pytest.mark.parametrize("limit", [{"connections": 1}, {"per_vip": 1}], ids=str)
@pytest_twisted.ensureDeferred
async def test_at_a_limit_newcomers_wait_until_somebody_leaves(net, limit) -> None:
    """Which is when they go on: no timer runs meanwhile, and nobody asks in vain."""
    _, port = net.serve(Echo, b"here")
    with open_plane(**limit) as plane:
        vip = serve(plane, backend(port))
        first = await net.connect(vip)
        await first.until(lambda one: one.got == b"here")
        second = await net.connect(vip)
        await held_back(plane)
        for _ in range(20):
            await deferLater(reactor, 0)
        assert plane.counts.accept_paused == 1
        assert plane.proxy._resume is None
        assert second.got == b""
        first.transport.loseConnection()
        await second.until(lambda one: one.got == b"here")


@pytest_twisted.ensureDeferred
async def test_who_waits_goes_on_when_more_are_allowed(net) -> None:
    """And with less allowed nobody is ended."""
    _, port = net.serve(Echo, b"here")
    with open_plane(connections=2) as plane:
        vip = serve(plane, backend(port))
        plane.proxy.allow(1)
        first = await net.connect(vip)
        await first.until(lambda one: one.got == b"here")
        second = await net.connect(vip)
        await held_back(plane)
        plane.proxy.allow(9)
        assert plane.proxy.most == 2, "the setting's limit holds"
        await second.until(lambda one: one.got == b"here")
        plane.proxy.allow(1)
        first.transport.write(b"more")
        await first.until(lambda one: one.got == b"heremore")


@pytest_twisted.ensureDeferred
async def test_the_limit_of_a_vip_is_no_other_vips_business(net) -> None:
    _, port = net.serve(Echo, b"here")
    with open_plane(per_vip=1) as plane:
        one, other = listener(free_port()), listener(free_port())
        plane.apply({one: service(one, backend(port)), other: service(other, backend(port))})
        await net.connect(one.port)
        await net.connect(one.port)
        await held_back(plane)
        client = await net.connect(other.port)
        await client.until(lambda peer: peer.got == b"here")
        client.transport.loseConnection()
        client = await net.connect(other.port)
        await client.until(lambda peer: peer.got == b"here")


@pytest_twisted.ensureDeferred
async def test_at_the_limit_of_all_each_listener_gets_its_turn(net) -> None:
    """Who leaves makes room for whoever waited longest, also when a listener goes that waited before."""
    _, port = net.serve(Echo, b"here")
    with open_plane(connections=1) as plane:
        first, gone, last = (listener(free_port()) for _ in range(3))
        served = {one: service(one, backend(port)) for one in (first, gone, last)}
        plane.apply(served)
        client = await net.connect(first.port)
        await client.until(lambda peer: peer.got == b"here")
        waiting = []
        for times, one in enumerate((gone, last, first), start=1):
            waiting.append(await net.connect(one.port))
            await held_back(plane, times)
        del served[gone]
        plane.apply(served)
        client.transport.loseConnection()
        await waiting[1].until(lambda peer: peer.got == b"here")
        assert waiting[2].got == b""
        waiting[1].transport.loseConnection()
        await waiting[2].until(lambda peer: peer.got == b"here")


@pytest_twisted.ensureDeferred
async def test_closing_the_plane_resets_what_is_open(net) -> None:
    _, port = net.serve(Echo, b"here")
    with open_plane() as plane:
        client = await net.connect(serve(plane, backend(port)))
        await client.until(lambda one: one.got == b"here")
    await client.until(lambda one: one.lost is not None)
    assert client.lost == "ConnectionLost"
    assert plane.counts.active == 0
