"""Batches of datagrams: both kinds keep the same contract, on loopback sockets."""

from __future__ import annotations

import errno
import select
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.io import mmsg
from dcosnet.io.mmsg import SIZE, SLOTS, PlainBatch, SystemBatch

HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
KINDS = [PlainBatch, SystemBatch]


def ipv6_works() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


FAMILIES = [
    socket.AF_INET,
    pytest.param(socket.AF_INET6, marks=pytest.mark.skipif(not ipv6_works(), reason="no ::1 here")),
]


class Sockets:
    """A server's socket and connected clients; all closed at the end."""

    def __init__(self, stack: ExitStack, family: int = socket.AF_INET) -> None:
        self._stack = stack
        self.family = family
        self.server = self.bound()
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def bound(self) -> socket.socket:
        made = self._stack.enter_context(socket.socket(self.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        made.bind((HOSTS[self.family], 0))
        return made

    def client(self) -> socket.socket:
        made = self.bound()
        made.connect(self.server.getsockname())
        return made


@pytest.fixture(params=FAMILIES)
def sockets(request):
    with ExitStack() as stack:
        yield Sockets(stack, request.param)


@pytest.fixture(params=KINDS)
def batch(request, sockets):
    return request.param(sockets.family)


def received(batch, sock) -> list[bytes]:
    return [bytes(batch.data(slot)) for slot in range(batch.receive(sock))]


def test_nothing_is_no_error(batch, sockets) -> None:
    assert batch.receive(sockets.server) == 0


def test_datagrams_come_in_order_with_their_senders(batch, sockets) -> None:
    one, other = sockets.client(), sockets.client()
    for sock, data in ((one, b"1"), (other, b""), (one, b"333")):
        sock.send(data)
    assert received(batch, sockets.server) == [b"1", b"", b"333"]
    first, second, third = batch.senders(3)
    assert first == third
    assert first != second
    assert hash(first) == hash(third)
    assert [batch.size(slots) for slots in (range(3), [0], range(1, 2), [2, 1])] == [4, 1, 0, 3]


def test_an_answer_goes_to_the_sender_and_no_other(batch, sockets) -> None:
    one, other = sockets.client(), sockets.client()
    one.send(b"to one")
    other.send(b"to other")
    assert batch.receive(sockets.server) == 2
    senders = batch.senders(2)
    assert batch.send(sockets.server, range(1, 2), senders[1]) == 1
    assert batch.send(sockets.server, range(1), senders[0]) == 1
    assert one.recv(100) == b"to one"
    assert other.recv(100) == b"to other"
    with pytest.raises(BlockingIOError):
        one.recv(100)


def test_a_sender_is_good_for_later_batches(batch, sockets) -> None:
    """That is how replies of a backend get to a client: received on another socket than the one that answers."""
    client, backend, flow = sockets.client(), sockets.bound(), sockets.bound()
    flow.connect(backend.getsockname())
    client.send(b"hello")
    assert batch.receive(sockets.server) == 1
    (sender,) = batch.senders(1)
    for data in (b"a", b"bb", b"ccc"):
        backend.sendto(data, flow.getsockname())
    assert batch.receive(flow) == 3
    assert batch.send(sockets.server, range(3), sender) == 3
    assert [client.recv(100) for _ in range(3)] == [b"a", b"bb", b"ccc"]
    client.send(b"again")
    assert batch.receive(sockets.server) == 1
    assert list(batch.senders(1)) == [sender]


def test_slots_go_to_the_peer_of_a_connected_socket(batch, sockets) -> None:
    client, backend, flow = sockets.client(), sockets.bound(), sockets.bound()
    flow.connect(backend.getsockname())
    for data in (b"a", b"bb", b"ccc", b"dddd"):
        client.send(data)
    assert batch.receive(sockets.server) == 4
    assert batch.send(flow, range(1, 4)) == 3
    assert batch.send(flow, [3, 0]) == 2
    assert batch.send(flow, [1]) == 1
    assert [backend.recv(100) for _ in range(6)] == [b"bb", b"ccc", b"dddd", b"dddd", b"a", b"bb"]


def test_more_than_the_slots_wait_for_the_next_call(batch, sockets) -> None:
    client = sockets.client()
    sent = [b"%d" % number for number in range(SLOTS + 3)]
    for data in sent:
        client.send(data)
    assert received(batch, sockets.server) == sent[:SLOTS]
    assert received(batch, sockets.server) == sent[SLOTS:]


def test_the_longest_datagram_is_whole_in_any_slot(batch, sockets) -> None:
    client = sockets.client()
    longest = bytes(range(256)) * 256
    longest = longest[: SIZE - 28] if sockets.family == socket.AF_INET else longest[: SIZE - 8]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.send(b"x")
    client.send(longest)
    client.send(b"y")
    assert received(batch, sockets.server) == [b"x", longest, b"y"]


def test_a_refusal_is_told_once(batch, sockets) -> None:
    """ICMP of the host itself is there when `send` returns."""
    backend, flow = sockets.bound(), sockets.bound()
    flow.connect(backend.getsockname())
    backend.close()
    flow.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        batch.receive(flow)
    assert batch.receive(flow) == 0


def test_sending_stops_at_the_first_that_is_not_taken(batch, sockets) -> None:
    """The first datagram is taken and refused by the peer's host, which the second is told."""
    client, backend, flow = sockets.client(), sockets.bound(), sockets.bound()
    flow.connect(backend.getsockname())
    backend.close()
    for data in (b"a", b"b", b"c"):
        client.send(data)
    assert batch.receive(sockets.server) == 3
    assert batch.send(flow, range(3)) == 1
    flow.send(b"refused, too")
    with pytest.raises(ConnectionRefusedError):
        batch.send(flow, range(2, 3))


def test_an_error_without_a_datagram_is_raised(batch, sockets) -> None:
    """A socket that has no peer cannot send to it."""
    sockets.client().send(b"x")
    assert batch.receive(sockets.server) == 1
    with pytest.raises(OSError, match="estination") as caught:
        batch.send(sockets.server, range(1))
    assert caught.value.errno == errno.EDESTADDRREQ


@given(
    kind=st.sampled_from(KINDS),
    sent=st.lists(
        st.tuples(st.integers(0, 2), st.one_of(st.binary(max_size=40), st.integers(0, 20_000).map(bytes))), max_size=80
    ),
)
def test_what_is_sent_arrives_unchanged_and_goes_back_to_whom_it_came_from(kind, sent) -> None:
    """Any datagrams of three clients, answered in runs of one sender, as the balancer does."""
    with ExitStack() as stack:
        sockets = Sockets(stack)
        clients = [sockets.client() for _ in range(3)]
        batch = kind(sockets.family)
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        expected: list[list[bytes]] = [[], [], []]
        for who, data in sent:
            clients[who].send(data)
            expected[who].append(data)
            if len(data) % 3 == 0:  # or they wait, some together
                echo(batch, sockets.server)
        while echo(batch, sockets.server):
            continue
        for client, datagrams in zip(clients, expected, strict=True):
            assert [client.recv(SIZE) for _ in datagrams] == datagrams
            assert not select.select([client], [], [], 0)[0]


def echo(batch, server) -> int:
    count = batch.receive(server)
    senders = batch.senders(count)
    first = 0
    while first < count:
        end = first + 1
        while end < count and senders[end] == senders[first]:
            end += 1
        assert batch.send(server, range(first, end), senders[first]) == end - first
        first = end
    return count


def test_a_library_without_the_calls_is_noticed(monkeypatch) -> None:
    class Library:
        def __init__(self, *_args, **_options) -> None:
            pass

    mmsg._available.cache_clear()
    monkeypatch.setattr(mmsg.ctypes, "CDLL", Library)
    try:
        assert isinstance(mmsg.batch(socket.AF_INET), PlainBatch)
    finally:
        mmsg._available.cache_clear()


def test_the_systems_calls_are_used_where_they_work() -> None:
    assert isinstance(mmsg.batch(socket.AF_INET), SystemBatch)
