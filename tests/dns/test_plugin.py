"""The part: its settings, its readiness, and real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import dns.message
import dns.rrset
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.protocol import DatagramProtocol
from twisted.protocols.basic import Int16StringReceiver
from zope.interface.verify import verifyObject

from dcosnet.dns.plugin import Settings, build, make_part
from dcosnet.errors import ConfigErrors
from dcosnet.interfaces import IMetrics, IZone, Part
from dcosnet.io.host import route_address
from dcosnet.io.turns import Turns
from dcosnet.io.udp import CannotBind
from dcosnet.model.cell import Cell
from dcosnet.model.zone import Zone, address_record, apex_records
from dcosnet.testing.contracts.zone import zone_contract
from dcosnet.testing.memory_net import MemoryNet
from dcosnet.testing.memory_udp import MemoryUdp


class _Zone:
    def __init__(self, later: Any) -> None:
        self.apex = "test"
        web = tuple(address_record(IPv4Address(f"10.0.0.{index}")) for index in range(1, 101))
        self.zone = Cell(Zone("test", {"test": apex_records(), "web.test": web}), later)


class _Toolbox:
    def __init__(self, reactor: Any) -> None:
        import random

        self.reactor = reactor
        self.rng = random.Random(1)
        self._zone = _Zone(Turns(reactor).later)

    def all(self, interface: Any) -> list[Any]:
        return [self._zone]


def memory(**settings: Any) -> Part:
    return build(Settings(**settings), _Toolbox(MemoryNet()), MemoryUdp())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"listen": ()}, "dns.listen: is empty"),
        ({"listen": ("nonsense",)}, "dns.listen: 'nonsense' is not an IPv4 or IPv6 address"),
        ({"listen": ("127.0.0.1:65536",)}, "dns.listen: port 65536 is not between 1 and 65535"),
        ({"listen": ("127.0.0.1:53", "127.0.0.1")}, "dns.listen: 127.0.0.1:53 is named twice"),
        ({"upstreams": ("127.0.0.1:53",)}, "dns.upstreams: 127.0.0.1:53 is this server itself"),
        ({"listen": ("0.0.0.0:53",), "upstreams": ("127.0.0.9",)}, "dns.upstreams: 127.0.0.9:53 is this server itself"),
        ({"upstreams": ("0.0.0.0",)}, "dns.upstreams: 0.0.0.0:53 is no server's address"),
        ({"upstreams": ("x",)}, "dns.upstreams: 'x' is not"),
        ({"forward_zones": {"x.thisdcos.directory": ("10.0.0.1",)}}, "never forwarded"),
        ({"forward_zones": {"a..b": ("10.0.0.1",)}}, "forward_zones.a..b: 'a..b' has a label that is empty"),
        ({"forward_zones": {"a.b": ("10.0.0.1",), "A.B.": ("10.0.0.2",)}}, "a.b is named twice"),
        ({"forward_zones": {"corp": ()}}, "dns.forward_zones.corp: names no server"),
        ({"allow": ("10.0.0.1/8",)}, "dns.allow: '10.0.0.1/8' is neither 'local' nor a network"),
        ({"max_udp_size": 100}, "dns.max_udp_size: 100 is not between 512"),
    ],
)
def test_settings_that_cannot_be_met_are_told(settings, sentence) -> None:
    """Each with its key and a sentence."""
    with pytest.raises(ConfigErrors) as caught:
        memory(**settings)
    assert sentence in str(caught.value)


def test_a_wildcard_is_every_address_of_this_host() -> None:
    """An upstream that is this host's own address would be asked in circles."""
    own = route_address()
    with pytest.raises(ConfigErrors) as caught:
        memory(listen=("0.0.0.0:53", "[::]:53"), upstreams=(str(own),))
    assert "is this server itself" in str(caught.value)
    memory(listen=("0.0.0.0:53",), upstreams=("203.0.113.9", f"{own}:5353" if own.version == 4 else f"[{own}]:5353"))


def test_all_that_is_wrong_is_told_at_once() -> None:
    """People correct a file once."""
    with pytest.raises(ConfigErrors) as caught:
        memory(listen=(), upstreams=("x",), allow=("y",), max_udp_size=1)
    assert len(caught.value.problems) == 4


def test_the_metrics_provide_their_interface() -> None:
    """And every family has the part's prefix."""
    part = memory()
    metrics = dict(part.contributes)[IMetrics]
    verifyObject(IMetrics, metrics)
    families = list(metrics.collect())
    assert all(family.name.startswith("dcosnet_dns_") for family in families)
    assert len({family.name for family in families}) == 8


def test_a_part_that_does_not_listen_is_not_ready() -> None:
    """It says so."""
    assert memory().ready() == "not listening yet"


def _zone() -> IZone:
    from zope.interface import directlyProvides

    zone = _Zone(lambda run: run())
    directlyProvides(zone, IZone)
    return zone


TestTheZoneOfTheseTests = zone_contract(_zone)


class _Udp(DatagramProtocol):
    def __init__(self) -> None:
        self.reply: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.reply.callback(datagram)


class _Tcp(Int16StringReceiver):
    def __init__(self) -> None:
        self.reply: Deferred[bytes] = Deferred()

    def stringReceived(self, string: bytes) -> None:
        self.reply.callback(string)


@pytest.fixture
def real() -> Iterator[Any]:
    from twisted.internet import reactor

    started: list[Part] = []

    def start(*listen: str, **settings: Any) -> Part:
        part = make_part(Settings(listen=listen, **settings), _Toolbox(reactor))
        part.service.privilegedStartService()
        part.service.startService()
        started.append(part)
        return part

    yield start
    for part in started:
        pytest_twisted.blockon(maybeDeferred(part.service.stopService))


def endpoint_of(part: Part, index: int = 0) -> tuple[str, int]:
    host, _, port = part.describe()["listen"][index].rpartition(":")
    return host.strip("[]"), int(port)


async def over_udp(
    address: tuple[str, int], query: dns.message.Message, source: str = "127.0.0.1"
) -> dns.message.Message:
    from twisted.internet import reactor

    protocol = _Udp()
    port = reactor.listenUDP(0, protocol, interface=source)
    try:
        port.write(query.to_wire(), address)
        return dns.message.from_wire(await protocol.reply.addTimeout(5, reactor))
    finally:
        await port.stopListening()


async def over_tcp(address: tuple[str, int], query: dns.message.Message) -> dns.message.Message:
    from twisted.internet import reactor

    kind = TCP6ClientEndpoint if ":" in address[0] else TCP4ClientEndpoint
    protocol = await connectProtocol(kind(reactor, *address), _Tcp())
    protocol.sendString(query.to_wire())
    try:
        return dns.message.from_wire(await protocol.reply.addTimeout(5, reactor))
    finally:
        protocol.transport.abortConnection()


@pytest_twisted.ensureDeferred
async def test_udp_and_tcp_answer_on_one_port(real) -> None:
    """Cut over UDP, whole over TCP."""
    part = real("127.0.0.1:0")
    assert part.ready() is None
    query = dns.message.make_query("web.test", "A")
    assert len((await over_udp(endpoint_of(part), query)).answer[0]) < 100
    assert len((await over_tcp(endpoint_of(part), query)).answer[0]) == 100


@pytest_twisted.ensureDeferred
async def test_ipv6_answers(real) -> None:
    """On ::1."""
    try:
        part = real("[::1]:0")
    except CannotBind:
        pytest.skip("this host has no IPv6 loopback")
    assert (await over_udp(endpoint_of(part), dns.message.make_query("web.test", "A"), "::1")).answer


@pytest_twisted.ensureDeferred
async def test_a_wildcard_socket_replies_from_the_address_that_was_asked(real) -> None:
    """Else a client with a connected socket never hears it. Also when the reply takes time."""
    part = real("0.0.0.0:0", upstreams=("127.0.0.1:9",))
    _, port = endpoint_of(part)
    for name in ("web.test", "host.example"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.77", port))
            client.setblocking(False)
            heard: Deferred[None] = Deferred()
            reader = _Reader(client, heard)
            from twisted.internet import reactor

            reactor.addReader(reader)
            client.send(dns.message.make_query(name, "A").to_wire())
            try:
                await heard.addTimeout(5, reactor)
            finally:
                reactor.removeReader(reader)
            assert dns.message.from_wire(client.recv(4096)).id


class _Reader:
    def __init__(self, sock: socket.socket, heard: Deferred[None]) -> None:
        from twisted.internet.interfaces import IReadDescriptor
        from zope.interface import directlyProvides

        directlyProvides(self, IReadDescriptor)
        self._sock = sock
        self._heard = heard

    def fileno(self) -> int:
        return self._sock.fileno()

    def doRead(self) -> None:
        if not self._heard.called:
            self._heard.callback(None)

    def connectionLost(self, reason: object) -> None: ...

    def logPrefix(self) -> str:
        return "test"


class _Upstream(DatagramProtocol):
    """Answers every question with one address."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = dns.message.make_response(dns.message.from_wire(datagram))
        message.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", "A", "192.0.2.7"))
        self.transport.write(message.to_wire(), addr)


@pytest_twisted.ensureDeferred
async def test_a_reply_that_cannot_be_sent_is_counted(real) -> None:
    """Some senders forge port 0, to which nothing can be sent."""
    part = real("127.0.0.1:0")
    (listener,) = part.service._listeners
    assert listener._socket.send(b"x", ("127.0.0.1", 0)) is False
    (metrics,) = [one for kind, one in part.contributes if kind is IMetrics]
    dropped = next(metric for metric in metrics.collect() if metric.name == "dcosnet_dns_dropped_total")
    assert [sample.value for sample in dropped.samples if sample.labels == {"reason": "unsent"}] == [1]


@pytest_twisted.ensureDeferred
async def test_both_wildcards_can_be_listened_on(real) -> None:
    """The IPv6 one is IPv6 alone, over TCP as over UDP."""
    _, port = endpoint_of(real("0.0.0.0:0"))
    try:
        both = real(f"[::]:{port}")
    except CannotBind as error:
        if "in use" in str(error):
            raise
        pytest.skip("this host has no IPv6")
    query = dns.message.make_query("web.test", "A", use_edns=0, payload=1232)
    for address, source in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        assert (await over_udp((address, port), query, source)).answer
        assert len((await over_tcp((address, port), query)).answer[0]) == 100
    assert both.ready() is None


@pytest_twisted.ensureDeferred
async def test_foreign_names_are_forwarded(real) -> None:
    """To the one that answers; the other's port is closed."""
    from twisted.internet import reactor

    port = reactor.listenUDP(0, _Upstream(), interface="127.0.0.1")
    closed = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
    gone = closed.getHost().port
    await closed.stopListening()
    try:
        part = real("127.0.0.1:0", upstreams=(f"127.0.0.1:{gone}", f"127.0.0.1:{port.getHost().port}"))
        for name in ("a.example", "b.example"):
            reply = await over_udp(endpoint_of(part), dns.message.make_query(name, "A"))
            assert reply.answer[0][0].address == "192.0.2.7"
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_port_in_use_stops_the_start(real) -> None:
    """One line: address, why, remedy; and nothing stays bound."""
    from twisted.internet import reactor

    part = real("127.0.0.1:0")
    taken = part.describe()["listen"][0]
    second = make_part(Settings(listen=("127.0.0.1:0", taken)), _Toolbox(reactor))
    with pytest.raises(CannotBind) as caught:
        second.service.privilegedStartService()
    assert str(caught.value) == (
        f"cannot listen on UDP {taken}: Address already in use; "
        "stop what listens there (ss -lunpt shows it) or configure another port"
    )
    assert second.ready() == "not listening yet"


@pytest_twisted.ensureDeferred
async def test_a_tcp_port_in_use_stops_the_start() -> None:
    """Also when UDP was free; UDP is given back."""
    from twisted.internet import reactor

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = f"127.0.0.1:{busy.getsockname()[1]}"
        part = make_part(Settings(listen=(taken,)), _Toolbox(reactor))
        with pytest.raises(CannotBind, match=f"cannot listen on TCP {taken}: Address already in use"):
            part.service.privilegedStartService()


@pytest_twisted.ensureDeferred
async def test_an_address_that_this_host_lacks_stops_the_start() -> None:
    """192.0.2.0/24 is nobody's."""
    from twisted.internet import reactor

    part = make_part(Settings(listen=("192.0.2.1:0",)), _Toolbox(reactor))
    with pytest.raises(CannotBind, match="this host does not have the address"):
        part.service.privilegedStartService()
