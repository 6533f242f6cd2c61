"""DNS over TCP: pipelining, framing, backpressure, limits."""

from __future__ import annotations

import struct

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Factory, Protocol

from dcosnet.dns.server import AT_A_TIME, CONNECTIONS, IDLE, UNDER_WAY
from dcosnet.model.net import parse_endpoint


class Client(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason=None) -> None:
        self.lost = True

    def messages(self) -> list[dns.message.Message]:
        found, rest = [], self.heard
        while rest:
            size = int.from_bytes(rest[:2], "big")
            assert len(rest) >= 2 + size
            found.append(dns.message.from_wire(rest[2 : 2 + size]))
            rest = rest[2 + size :]
        return found


class ClientFactory(Factory):
    noisy = False

    def __init__(self, client: Client) -> None:
        self.client = client

    def buildProtocol(self, addr):
        return self.client

    def startedConnecting(self, connector): ...
    def clientConnectionFailed(self, connector, reason): ...


def connect(server) -> Client:
    client = Client()
    server.net.connectTCP("127.0.0.1", 53, ClientFactory(client))
    server.net.settle()
    return client


def framed(*names: str) -> bytes:
    wires = [dns.message.make_query(name, "A", id=index).to_wire() for index, name in enumerate(names)]
    return b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)


def test_several_questions_on_one_connection_are_all_answered(server) -> None:
    """Without waiting for one another."""
    client = connect(server)
    client.transport.write(framed("web.test", "one.test", "nothing.test"))
    server.net.settle()
    assert [message.id for message in client.messages()] == [0, 1, 2]
    assert client.messages()[2].rcode() == dns.rcode.NXDOMAIN
    assert server.count("dcosnet_dns_queries_total", protocol="tcp") == 3


def test_a_long_answer_is_whole(server) -> None:
    """120 addresses, also without EDNS; a client comes here because UDP was cut."""
    client = connect(server)
    client.transport.write(framed("many.test"))
    server.net.settle()
    assert len(client.messages()[0].answer[0]) == 120


STREAM = framed("web.test", "one.test", "gap.test", "nothing.test")


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_framing_does_not_depend_on_segments(packets, cuts) -> None:
    """Wherever the stream is cut, the replies are the same."""
    client = connect(packets)
    for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        client.transport.write(STREAM[start:end])
        packets.net.settle()
    assert [(message.id, message.rcode()) for message in client.messages()] == [(0, 0), (1, 0), (2, 0), (3, 3)]
    client.transport.loseConnection()
    packets.net.settle()
    assert client.lost


def test_many_questions_at_once_are_not_served_in_one_go(server) -> None:
    """One segment holds thousands; who comes after it does not wait for all of them."""
    greedy, other = connect(server), connect(server)
    seen = []
    other.dataReceived = lambda _data: seen.append(len(greedy.messages()))
    greedy.transport.write(framed(*["web.test"] * 1000))
    other.transport.write(framed("web.test"))
    server.net.settle()
    assert seen[0] <= 2 * AT_A_TIME
    assert [reply.id for reply in greedy.messages()] == list(range(1000))


def test_a_client_that_asks_much_and_half_closes_gets_all(server) -> None:
    """The end of the connection does not overtake questions that wait their turn."""
    client = connect(server)
    client.transport.write(framed(*["web.test"] * 1000))
    client.transport.loseWriteConnection()
    server.net.settle()
    assert len(client.messages()) == 1000
    assert client.lost


def test_a_client_that_half_closes_still_gets_its_replies(serve) -> None:
    """It has said all; what is under way is answered, then the connection ends."""
    server = serve(upstreams=("10.0.0.1",))
    client = connect(server)
    client.transport.write(framed("web.test"))
    client.transport.loseWriteConnection()
    server.net.settle()
    assert len(client.messages()) == 1
    assert client.lost


def test_an_idle_connection_ends(server) -> None:
    """After IDLE seconds without a whole question."""
    client = connect(server)
    client.transport.write(framed("web.test")[:-1])
    server.net.settle()
    server.net.advance(IDLE)
    server.net.settle()
    assert client.lost
    assert server.count("dcosnet_dns_dropped_total", reason="tcp_idle") == 1


def test_a_client_that_does_not_read_is_not_read_from(server) -> None:
    """Its questions wait at its own side, other clients are served, and at last it is gone."""
    slow, quick = connect(server), connect(server)
    slow.transport.pauseProducing()
    for _ in range(100):
        slow.transport.write(framed(*["many.test"] * 100))
        server.net.settle()
    assert slow.transport.unread < 10_000_000 / 4
    assert slow.transport.peer.unread > 100_000
    quick.transport.write(framed("web.test"))
    server.net.settle()
    assert len(quick.messages()) == 1
    server.net.advance(IDLE)
    server.net.settle()
    assert server.count("dcosnet_dns_dropped_total", reason="tcp_idle") == 2


def test_a_client_that_reads_late_gets_everything(server) -> None:
    """Pausing loses nothing."""
    client = connect(server)
    client.transport.pauseProducing()
    for _ in range(10):
        client.transport.write(framed(*["many.test"] * 20))
        server.net.settle()
    client.transport.resumeProducing()
    server.net.settle()
    assert len(client.messages()) == 200


def test_connections_are_limited(server) -> None:
    """One more is closed at once and counted; a place that is freed is free."""
    clients = [connect(server) for _ in range(CONNECTIONS)]
    extra = connect(server)
    assert extra.lost
    assert server.count("dcosnet_dns_dropped_total", reason="tcp_connections") == 1
    clients[0].transport.loseConnection()
    server.net.settle()
    again = connect(server)
    again.transport.write(framed("web.test"))
    server.net.settle()
    assert len(again.messages()) == 1


class UpstreamServer(Protocol):
    """Answers what it is asked, when told to."""

    def __init__(self, factory) -> None:
        self.factory = factory
        self.buffer = b""

    def dataReceived(self, data):
        self.buffer += data
        size = int.from_bytes(self.buffer[:2], "big")
        if len(self.buffer) < 2 + size:
            return
        query = dns.message.from_wire(self.buffer[2 : 2 + size])
        self.buffer = b""
        self.factory.asked.append((self, query))
        if self.factory.prompt:
            self.answer(query)

    def answer(self, query):
        wire = dns.message.make_response(query, recursion_available=True).to_wire()
        self.transport.write(struct.pack("!H", len(wire)) + wire)


class UpstreamFactory(Factory):
    noisy = False

    def __init__(self, prompt=True) -> None:
        self.prompt = prompt
        self.asked: list = []

    def buildProtocol(self, addr):
        return UpstreamServer(self)


@pytest.fixture
def forwarding(serve):
    server = serve(upstreams=("10.0.0.1",))
    up = UpstreamFactory()
    server.net.listenTCP(53, up, interface="10.0.0.1")
    return server, up


def test_who_came_by_tcp_is_forwarded_by_tcp(forwarding) -> None:
    """The answer may be longer than UDP carries."""
    server, up = forwarding
    client = connect(server)
    client.transport.write(framed("host.example"))
    server.net.settle()
    assert len(client.messages()) == 1
    assert str(up.asked[0][1].question[0].name) == "host.example."
    assert server.udp.sent == []
    assert server.net.getDelayedCalls() != []
    server.net.advance(3)


def test_a_slow_upstream_does_not_hold_up_local_answers(forwarding) -> None:
    """Replies come as they are ready (RFC 7766 7)."""
    server, up = forwarding
    up.prompt = False
    client = connect(server)
    client.transport.write(framed("host.example", "web.test"))
    server.net.settle()
    assert [message.id for message in client.messages()] == [1]
    protocol, query = up.asked[0]
    protocol.answer(query)
    server.net.settle()
    assert [message.id for message in client.messages()] == [1, 0]


def test_what_one_client_has_under_way_is_bounded(forwarding) -> None:
    """Beyond that it is not read until something is answered."""
    server, up = forwarding
    up.prompt = False
    client = connect(server)
    client.transport.write(framed(*(f"h{index}.example" for index in range(3 * UNDER_WAY))))
    server.net.settle()
    assert len(up.asked) == UNDER_WAY
    up.prompt = True
    for protocol, query in up.asked[:]:
        protocol.answer(query)
    server.net.settle()
    assert len(client.messages()) == 3 * UNDER_WAY


def test_an_upstream_that_refuses_tcp_is_told(serve) -> None:
    """SERVFAIL at once."""
    server = serve(upstreams=("10.0.0.1",))
    client = connect(server)
    client.transport.write(framed("host.example"))
    server.net.settle()
    assert client.messages()[0].rcode() == dns.rcode.SERVFAIL
    assert server.count("dcosnet_dns_upstream_failures_total", reason="tcp") == 1


def test_a_server_that_stops_lets_go_of_its_clients(serve) -> None:
    """Also of those that wait for an upstream."""
    server = serve(upstreams=("10.0.0.1",))
    up = UpstreamFactory(prompt=False)
    server.net.listenTCP(53, up, interface="10.0.0.1")
    client = connect(server)
    client.transport.write(framed("host.example"))
    server.net.settle()
    server.close()
    assert client.lost
    assert server.net.getDelayedCalls() == []


def test_a_stranger_is_refused_over_tcp(serve) -> None:
    """As over UDP."""
    server = serve(allow=("10.0.0.0/8",))
    client = connect(server)
    client.transport.write(framed("web.test"))
    server.net.settle()
    assert client.messages()[0].rcode() == dns.rcode.REFUSED
    assert parse_endpoint("127.0.0.1:53") in server.udp.sockets
