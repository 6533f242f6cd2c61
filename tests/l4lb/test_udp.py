"""
UDP through the plane, end to end: flows, replies from the VIP's address, backends that refuse.

Loopback delivers, and refuses, before `send` returns. So most of it is told by
sockets that are read in turn with the plane, which the reactor does not see.
Everything holds for both kinds of batch.
"""

from __future__ import annotations

import errno
import select
import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from dcosnet.io.epoll import ERROR
from dcosnet.io.mmsg import PlainBatch, SystemBatch
from dcosnet.l4lb import udp
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.tally import Reason
from dcosnet.l4lb.udp import KEPT, KEPT_SECONDS, KEPT_SIZE
from dcosnet.model.net import Protocol
from dcosnet.model.vip import Backend

from .rig import HOME, LARGEST, VIP, FullEpoll, backend, free_port, listener, network, open_plane, service, until

UDP = Protocol.UDP
KINDS = [SystemBatch, PlainBatch]


@pytest.fixture
def net():
    with network() as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def plane(kind):
    with open_plane(make_batch=kind) as made:
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
    await until(lambda: plane.counts.refused)
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
    """By the reactor's own clock."""
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
    client = net.udp_client()
    dead = [Backend(ip_address("127.99.0.1") + number, 9, HOME) for number in range(700)]
    one = serve(plane, *dead)
    for _ in range(2):
        client.transport.write(b"?", (str(VIP), one.port))
    await until(lambda: plane.counts.refused)
    assert plane.epoll.errors == 0
    plane.apply({one: service(one, backend(net.serve_udp(b"b:")))})
    assert await client.ask(b"!", one.port) == b"b:!"


@pytest_twisted.ensureDeferred
async def test_an_epoll_that_is_full_costs_the_datagram_and_not_the_listener(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"a:")))
    client = net.udp_client()
    plane.relay.epoll = FullEpoll(plane.epoll)
    client.transport.write(b"lost", (str(VIP), one.port))
    await until(lambda: plane.counts.udp_dropped)
    plane.relay.epoll = plane.epoll
    assert len(plane.relay.flows) == 0
    assert await client.ask(b"1", one.port) == b"a:1"


@pytest_twisted.ensureDeferred
async def test_the_largest_datagram_passes_both_ways(plane, net) -> None:
    one = serve(plane, backend(net.serve_udp(b"")))
    data = bytes(LARGEST)
    assert await net.udp_client().ask(data, one.port) == data


class World:
    """A plane with a clock of ours, backends and clients; `pump` lets everything happen that is under way."""

    def __init__(self, stack: ExitStack, kind=SystemBatch, **limits) -> None:
        self._stack = stack
        self.clock = Clock()
        self.plane = stack.enter_context(open_plane(clock=self.clock, make_batch=kind, **limits))
        self.counts = self.plane.counts
        self.backends: dict[socket.socket, bytes | None] = {}
        self._desired: dict[Listener, Service] = {}

    def socket(self, address: str = str(HOME)) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self._stack.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((address, 0))
        return made

    def backend(self, prefix: bytes | None = b"") -> socket.socket:
        """It answers with its prefix and what it got, or never."""
        made = self.socket()
        self.backends[made] = prefix
        return made

    def serve(self, *sockets: socket.socket) -> Listener:
        made = listener(free_port(socket.SOCK_DGRAM), UDP)
        self._desired[made] = service(made, *(backend(one.getsockname()[1]) for one in sockets))
        self.plane.apply(self._desired)
        return made

    def client(self, one: Listener) -> socket.socket:
        made = self.socket()
        made.connect((str(one.address), one.port))
        return made

    def pump(self) -> dict[socket.socket, list[bytes]]:
        """What came to each backend."""
        got: dict[socket.socket, list[bytes]] = {one: [] for one in self.backends}
        while select.select([self.plane.epoll, *self.alive()], [], [], 0)[0]:
            self.plane.epoll.doRead()
            for one in self.alive():
                for data, client in drained(one):
                    got[one].append(data)
                    prefix = self.backends[one]
                    if prefix is not None:
                        one.sendto(prefix + data, client)
        return got

    def alive(self) -> list[socket.socket]:
        return [one for one in self.backends if one.fileno() >= 0]

    def targets(self, one: Listener) -> dict[int, object]:
        """By port."""
        schedule = self.plane.plane._open[one].socket.schedule
        return {target.backend.port: target for target in schedule.targets}


def drained(sock: socket.socket):
    while True:
        try:
            yield sock.recvfrom(65535)
        except BlockingIOError:
            return


def heard(client: socket.socket) -> list[bytes]:
    return [data for data, _ in drained(client)]


@pytest.fixture
def world(kind):
    with ExitStack() as stack:
        yield World(stack, kind)


@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(
        st.one_of(st.none(), st.tuples(st.integers(0, 2), st.integers(0, 1), st.binary(max_size=20))), max_size=150
    ),
)
def test_each_datagram_arrives_once_and_unchanged_whoever_sends_when(kind, steps) -> None:
    """
    Three clients send to two VIPs, each of them from one and the same port, in any order and any bursts.

    Datagrams of one flow stay in order, and all go to one backend.
    """
    with ExitStack() as stack:
        world = World(stack, kind)
        vips = [world.serve(world.backend(), world.backend()) for _ in range(2)]
        clients = [world.socket() for _ in range(3)]
        got: dict[socket.socket, list[bytes]] = {one: [] for one in world.backends}
        sent: dict[tuple[int, int], list[bytes]] = {}
        answers: dict[int, list[tuple[bytes, int]]] = {who: [] for who in range(3)}
        for step in [*steps, None]:
            if step is None:
                for one, datagrams in world.pump().items():
                    got[one] += datagrams
                for who, client in enumerate(clients):
                    answers[who] += [(data, address[1]) for data, address in drained(client)]
                continue
            who, where, text = step
            data = b"%d%d:" % (who, where) + text
            clients[who].sendto(data, (str(VIP), vips[where].port))
            sent.setdefault((who, where), []).append(data)
        for (who, where), datagrams in sent.items():
            mark = b"%d%d:" % (who, where)
            places = [[data for data in found if data.startswith(mark)] for found in got.values()]
            assert [found for found in places if found] == [datagrams]
            assert [data for data, port in answers[who] if port == vips[where].port] == datagrams
        assert sum(map(len, got.values())) == sum(map(len, sent.values())) == sum(map(len, answers.values()))
        assert len(world.plane.relay.flows) == len(sent)
        assert (world.counts.udp_dropped, world.counts.retries) == (0, 0)
        size = sum(len(data) for datagrams in sent.values() for data in datagrams)
        assert (world.counts.to_backend, world.counts.to_client) == (size, size)


def test_each_backend_counts_what_it_took_and_gave(world) -> None:
    one = world.backend(b"+")
    vip = world.serve(one)
    client = world.client(vip)
    client.send(b"12")
    client.send(b"345")
    world.pump()
    (target,) = world.targets(vip).values()
    tally = target.tally
    assert (tally.flows, tally.to_backend, tally.to_client, tally.idle_closed, target.active) == (1, 5, 7, 0, 1)
    world.clock.advance(59)
    assert target.active == 1
    world.clock.advance(1)
    assert (tally.idle_closed, target.active) == (1, 0)
    assert len(world.plane.relay.flows) == 0
    assert not world.clock.getDelayedCalls()


@pytest.mark.parametrize("to_client", [False, True])
def test_datagrams_of_either_direction_keep_a_flow(world, to_client) -> None:
    one = world.backend(None)
    vip = world.serve(one)
    client = world.client(vip)
    client.send(b"x")
    world.plane.epoll.doRead()
    ((_, flow),) = drained(one)
    for _ in range(5):
        world.clock.advance(50)
        if to_client:
            one.sendto(b"y", flow)
        else:
            client.send(b"y")
        world.pump()
    assert len(world.plane.relay.flows) == 1
    assert world.targets(vip)[one.getsockname()[1]].tally.flows == 1


def test_a_burst_to_a_backend_that_is_gone_reaches_another_whole_and_in_order(world) -> None:
    gone, there = world.backend(), world.backend(None)
    vip = world.serve(gone, there)
    gone.close()
    sent = [b"%d" % number for number in range(50)]
    clients = [world.client(vip) for _ in range(2)]
    for client in clients:
        for data in sent:
            client.send(data)
    assert world.pump()[there] == 2 * sent
    assert world.counts.retries == 1
    assert [client.recv for client in clients if heard(client)] == []
    assert world.targets(vip)[there.getsockname()[1]].tally.retries == 1


def test_a_backend_that_ends_between_two_requests_costs_none(world) -> None:
    """It had answered before; what it does not answer any more another one does."""
    one, other = world.backend(b"a:"), world.backend(b"b:")
    vip = world.serve(one, other)
    clients = [world.client(vip) for _ in range(2)]
    for client in clients:
        client.send(b"1")
    world.pump()
    assert sorted(heard(client)[0] for client in clients) == [b"a:1", b"b:1"]
    one.close()
    for client in clients:
        client.send(b"2")
    world.pump()
    assert [heard(client) for client in clients] == [[b"b:2"], [b"b:2"]]


def test_what_is_sent_again_is_bounded_in_number_size_and_age(world) -> None:
    """What was answered is not sent again, either."""
    one, other = world.backend(b"a:"), world.backend(None)
    vip = world.serve(one, other)
    port, clients = one.getsockname()[1], [world.client(vip) for _ in range(2)]
    for client in clients:
        client.send(b"answered by one, for ever unanswered by the other")
    world.pump()
    (client,) = (client for client in clients if heard(client))
    world.backends[one] = None
    client.send(b"old")
    world.pump()
    world.clock.advance(KEPT_SECONDS + 1)
    client.send(bytes(KEPT_SIZE + 1))
    for number in range(KEPT + 2):
        client.send(b"%d" % number)
    world.pump()
    one.close()
    client.send(b"last")
    assert world.pump()[other] == [b"%d" % number for number in range(3, KEPT + 2)] + [b"last"]
    assert port in world.targets(vip)


def test_what_is_old_is_not_sent_again(world) -> None:
    one, other = world.backend(None), world.backend(None)
    client = world.client(world.serve(one, other))
    client.send(b"old")
    world.pump()
    world.clock.advance(KEPT_SECONDS / 2)
    client.send(b"young")
    (first,) = (found for found, data in world.pump().items() if data)
    world.clock.advance(KEPT_SECONDS / 2 + 1)
    first.close()
    client.send(b"new")
    (got,) = (data for data in world.pump().values() if data)
    assert got == [b"young", b"new"]


def test_silence_moves_no_flow(world) -> None:
    """There are services that never answer, such as syslog."""
    one, other = world.backend(None), world.backend(None)
    client = world.client(world.serve(one, other))
    got: list[bytes] = []
    for number in range(20):
        client.send(b"%d" % number)
        world.clock.advance(30)
        got += [data for found in world.pump().values() for data in found]
    assert got == [b"%d" % number for number in range(20)]
    assert (world.counts.retries, len(world.plane.relay.flows)) == (0, 1)


def test_a_flood_of_new_clients_is_served_in_the_room_that_there_is(kind) -> None:
    with ExitStack() as stack:
        world = World(stack, kind, udp_flows=5)
        vip = world.serve(world.backend())
        faithful = world.client(vip)
        for number in range(30):
            client = world.client(vip)
            for one in (client, faithful):
                one.send(b"%d" % number)
            world.pump()
            assert heard(client) == heard(faithful) == [b"%d" % number]
        assert len(world.plane.relay.flows) == 5
        assert world.plane.relay.flows.evicted == 26
        (target,) = world.targets(vip).values()
        assert (target.active, target.tally.flows) == (5, 31), "the faithful client kept its flow"
        assert len(world.plane.epoll) == 6


def test_without_descriptors_a_datagram_is_lost_and_no_more(world, monkeypatch) -> None:
    vip = world.serve(world.backend())
    first, second = world.client(vip), world.client(vip)
    first.send(b"1")
    world.pump()

    def none_left(*_arguments):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(udp, "SocketType", none_left)
    second.send(b"lost")
    first.send(b"2")
    world.pump()
    monkeypatch.undo()
    second.send(b"3")
    world.pump()
    assert (heard(first), heard(second)) == ([b"1", b"2"], [b"3"])
    assert world.counts.udp_dropped == 1


class Failing:
    """A flow's socket that tells an error when it is to send."""

    def __init__(self, sock, number: int, times: int = 1) -> None:
        self._sock = sock
        self._number = number
        self.times = times

    def __getattr__(self, name: str):
        return getattr(self._sock, name)

    def send(self, data) -> int:
        if self.times:
            self.times -= 1
            raise OSError(self._number, "as told")
        return self._sock.send(data)


def fail(world, number: int, times: int = 1) -> None:
    """Let the next sends of the only flow fail."""
    (flow,) = world.plane.relay.flows._order
    flow._socket = Failing(flow._socket, number, times)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
def test_an_unreachable_backend_is_left_for_another(world, number) -> None:
    one, other = world.backend(b"a:"), world.backend(b"b:")
    vip = world.serve(one, other)
    client = world.client(vip)
    client.send(b"1")
    world.pump()
    (first,) = heard(client)
    fail(world, number)
    client.send(b"2")
    world.pump()
    assert heard(client) == [b"b:2" if first == b"a:1" else b"a:2"]
    assert (world.counts.connect_unreachable, world.counts.retries) == (1, 1)
    assert sum(target.tally.failures[Reason.UNREACHABLE] for target in world.targets(vip).values()) == 1


def test_an_unreachable_backend_is_kept_where_no_other_is(world) -> None:
    """It may pass, and the backend would take another port for another client."""
    one = world.backend()
    vip = world.serve(one)
    client = world.client(vip)
    client.send(b"1")
    world.pump()
    fail(world, errno.EHOSTUNREACH)
    client.send(b"lost")
    world.pump()
    client.send(b"2")
    assert world.pump()[one] == [b"2"]
    assert world.targets(vip)[one.getsockname()[1]].tally.flows == 1


def test_what_no_backend_can_be_sent_is_tried_with_each_once(world, monkeypatch) -> None:
    """A router tells of each datagram by itself, and each time the flow goes back to the other one."""
    monkeypatch.setattr(udp, "_queued", lambda _: errno.EHOSTUNREACH)
    one, other = world.backend(None), world.backend(None)
    client = world.client(world.serve(one, other))
    client.send(b"1")
    client.send(b"2")
    sent = [world.pump()]
    (flow,) = world.plane.relay.flows._order
    for _ in range(8):
        flow.ready(ERROR)
        sent.append(world.pump())
    for each in (one, other):
        assert [data for got in sent for data in got[each]] == [b"1", b"2"]


def test_a_datagram_that_hears_of_another_ones_size_is_sent_all_the_same(world) -> None:
    """A router tells of a datagram that was too long, once; the system takes the next in pieces."""
    one = world.backend()
    client = world.client(world.serve(one))
    client.send(b"1")
    world.pump()
    fail(world, errno.EMSGSIZE)
    client.send(b"2")
    assert world.pump()[one] == [b"2"]
    assert world.counts.udp_dropped == 0
    fail(world, errno.EMSGSIZE, times=2)
    client.send(b"too long itself")
    assert world.pump()[one] == []
    assert world.counts.udp_dropped == 1


def test_a_reply_that_cannot_be_sent_costs_only_itself(world) -> None:
    """An empty port of the client: nobody hears of it, and the listener least of all."""
    one = world.backend(None)
    vip = world.serve(one)
    client = world.client(vip)
    client.send(b"x")
    world.plane.epoll.doRead()
    ((_, flow),) = drained(one)
    client.close()
    for _ in range(3):
        one.sendto(b"y", flow)
        world.pump()
    other = world.client(vip)
    other.send(b"z")
    assert world.pump()[one] == [b"z"]


def test_the_queue_of_errors_is_emptied(kind) -> None:
    """Or epoll would tell of it for ever."""
    with ExitStack() as stack:
        world = World(stack, kind)
        gone = world.socket()
        gone.close()
        sock = world.socket()
        sock.setsockopt(*udp._RECVERR[socket.AF_INET], 1)
        sock.connect((str(HOME), free_port(socket.SOCK_DGRAM, str(HOME))))
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                for _ in range(2):
                    sock.send(b"x")
        assert udp._queued(sock) == errno.ECONNREFUSED
        assert udp._queued(sock) is None
        assert not select.select([sock], [], [], 0)[0]


def test_an_error_that_only_the_queue_still_tells_moves_a_flow(world) -> None:
    """As when a call for several datagrams took it without telling; epoll would tell of it for ever."""
    one, other = world.backend(None), world.backend(None)
    client = world.client(world.serve(one, other))
    client.send(b"1")
    (first,) = (found for found, data in world.pump().items() if data)
    (second,) = {one, other} - {first}
    (flow,) = world.plane.relay.flows._order
    first.close()
    flow._socket.send(b"taken")
    assert flow._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    for _ in range(3):
        world.plane.epoll.doRead()
    assert [data for data, _ in drained(second)] == [b"1"]
    assert world.counts.retries == 1


def test_a_removed_backend_is_left_at_the_next_datagram_and_its_last_replies_pass(world) -> None:
    old, new = world.backend(b"old:"), world.backend(b"new:")
    vip = world.serve(old)
    client = world.client(vip)
    client.send(b"1")
    world.plane.epoll.doRead()
    world.plane.apply({vip: service(vip, backend(new.getsockname()[1]))})
    world.pump()
    assert heard(client) == [b"old:1"]
    client.send(b"2")
    world.pump()
    assert heard(client) == [b"new:2"]
    assert len(world.plane.relay.flows) == 1


def test_replies_come_from_the_vip_over_ipv6(world) -> None:
    home = ip_address("::1")
    try:
        one = world.socket("::1")
    except OSError:
        pytest.skip("no ::1 here")
    world.backends[one] = b"six:"
    vip = Listener(UDP, home, free_port(socket.SOCK_DGRAM, "::1"))
    world.plane.apply({vip: service(vip, Backend(home, one.getsockname()[1], home, 1))})
    client = world.socket("::1")
    for number in range(3):
        client.sendto(b"%d" % number, ("::1", vip.port))
    world.pump()
    assert [(data, address[:2]) for data, address in drained(client)] == [
        (b"six:%d" % number, ("::1", vip.port)) for number in range(3)
    ]
