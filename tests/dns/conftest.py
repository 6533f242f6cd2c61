"""A DNS server on networks in memory, asked with dnspython."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import attrs
import dns.flags
import dns.message
import pytest
from zope.interface import implementer

from dcosnet.dns.chain import AnswerOrder
from dcosnet.dns.plugin import Settings, build
from dcosnet.interfaces import IMetrics, IZone
from dcosnet.io.turns import Turns
from dcosnet.model.cell import Cell
from dcosnet.model.net import Endpoint, parse_endpoint
from dcosnet.model.zone import Record, RecordType, Srv, Zone, address_record, apex_records
from dcosnet.testing.memory_net import MemoryNet
from dcosnet.testing.memory_udp import MemoryUdp

CLIENT = parse_endpoint("127.0.0.1:1234")
SERVER = parse_endpoint("127.0.0.1:53")


def a(text: str, ttl: int = 5) -> Record:
    return address_record(ip_address(text), ttl)


def alias(target: str) -> Record:
    return Record(RecordType.CNAME, target)


def records() -> dict[str, tuple[Record, ...]]:
    return {
        "test": apex_records(),
        "web.test": (a("10.0.0.1"), a("10.0.0.2"), a("10.0.0.3")),
        "one.test": (a("10.0.0.9"), a("fd00::9")),
        "deep.below.gap.test": (a("10.0.0.4"),),
        "alias.test": (alias("www.test"),),
        "www.test": (alias("web.test"),),
        "dangling.test": (alias("nothing.test"),),
        "loop.test": (alias("pool.test"),),
        "pool.test": (alias("loop.test"),),
        "away.test": (alias("host.example"),),
        "_web._tcp.test": (Record(RecordType.SRV, Srv("one.test", 80)),),
        "many.test": tuple(a(f"10.1.0.{index}") for index in range(1, 121)),
    }


@implementer(IZone)
class FakeZone:
    def __init__(self, zone: Zone, later: Any) -> None:
        self.apex = zone.apex
        self.zone = Cell(zone, later)


class Toolbox:
    def __init__(self, reactor: Any, zones: Sequence[IZone]) -> None:
        self.reactor = reactor
        self.rng = random.Random(7)
        self._zones = zones

    def all(self, interface: Any) -> Sequence[Any]:
        assert interface is IZone
        return self._zones


class Server:
    """The part, its networks, and a client."""

    def __init__(self, zones: Sequence[Zone], settings: Settings) -> None:
        self.net = MemoryNet()
        self.udp = MemoryUdp()
        self.zones = [FakeZone(zone, Turns(self.net).later) for zone in zones]
        self.part = build(settings, Toolbox(self.net, self.zones), self.udp)
        self.part.service.privilegedStartService()
        self.part.service.startService()
        self.net.settle()
        self.inbox: list[bytes] = []

    def send(self, wire: bytes, client: Endpoint = CLIENT) -> None:
        if client not in self.udp.sockets:
            self.udp.bind(client).start(lambda data, _: self.inbox.append(data))
        self.udp.sockets[client].send(wire, (str(SERVER.address), SERVER.port, SERVER))
        self.udp.deliver()

    def raw(self, wire: bytes, client: Endpoint = CLIENT) -> bytes | None:
        """The reply to a datagram that needs no upstream."""
        self.inbox.clear()
        self.send(wire, client)
        return self.inbox.pop() if self.inbox else None

    def ask(self, name: str, type_: str = "A", **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, type_, **options)
        reply = self.raw(query.to_wire())
        assert reply is not None
        parsed = dns.message.from_wire(reply)
        assert query.is_response(parsed)
        assert parsed.flags & dns.flags.RA
        return parsed

    def count(self, name: str, **labels: str) -> float:
        metrics = next(one for kind, one in self.part.contributes if kind is IMetrics)
        families = {metric.name: metric for metric in metrics.collect()}
        return sum(sample.value for sample in families[name].samples if sample.labels == labels)

    def publish(self, changed: frozenset[str] | None, **fields: Any) -> None:
        cell = self.zones[0].zone
        cell.publish(attrs.evolve(cell.value, **fields), changed)
        self.net.settle()

    def close(self) -> None:
        self.part.service.stopService()
        self.net.settle()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve(zones, upstreams=...)` is a server with the zone `test`, or those given."""
    made: list[Server] = []

    def make(zones: Sequence[Zone] | None = None, **settings: Any) -> Server:
        settings.setdefault("listen", (str(SERVER),))
        settings["answer_order"] = AnswerOrder(settings.get("answer_order", "round_robin"))
        server = Server([Zone("test", records())] if zones is None else zones, Settings(**settings))
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()
        assert server.net.getDelayedCalls() == []
        assert SERVER not in server.udp.sockets
        assert [sock for sock in server.udp.sockets.values() if sock.peer is not None] == []


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """A server with the zone `test` and no upstream."""
    return serve()


@pytest.fixture(scope="module")
def packets() -> Iterator[Server]:
    """A server that lives as long as its module, for laws over many packets."""
    server = Server([Zone("test", records())], Settings(listen=(str(SERVER),)))
    yield server
    server.close()
