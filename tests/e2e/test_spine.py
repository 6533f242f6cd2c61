"""From a service file to an answered name and an open connection, and back to nothing."""

from __future__ import annotations

import json

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.names.error import DNSNameError, DNSServerError

L4LB = "l4lb.thisdcos.directory"
WEB = f"web.shop.{L4LB}"


class Greeter(Protocol):
    """Tells its name and closes."""

    def connectionMade(self):
        self.transport.write(self.factory.greeting)
        self.transport.loseConnection()


class Reader(Protocol):
    """Collects until the other side closes."""

    def __init__(self):
        self.data, self.done = b"", Deferred()

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.done.callback(self.data)


class Backend:
    """A TCP service on a free port, for as long as the block lasts."""

    def __init__(self, reactor, greeting):
        factory = Factory.forProtocol(Greeter)
        factory.greeting, factory.noisy = greeting, False
        self._listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port = self._listening.getHost().port

    async def stop(self):
        await self._listening.stopListening()


async def get(reactor, host, port):
    protocol = await connectProtocol(HostnameEndpoint(reactor, host, port), Reader())
    return await protocol.done.addTimeout(10, reactor)


def service(port, vip="/web:8000", instance="", more=""):
    return (
        f'[[service]]\nname = "web"\ngroup = "shop"\ninstance = "{instance}"\naddress = "127.0.0.1"\n'
        f'ports = [{{ port = {port}, vip = "{vip}" }}]\n{more}\n'
    )


def address_of(zone, name=WEB):
    return [str(record.data) for record in zone.records.get(name, ())]


@pytest_twisted.ensureDeferred
async def test_a_service_file_becomes_a_name_and_a_connection_and_goes_with_it(make_node):
    """The whole idea, in one test."""
    node = make_node()
    backend = Backend(node.reactor, b"hello")
    try:
        with pytest.raises((DNSNameError, DNSServerError)):
            await node.addresses(WEB)
        node.write("web.toml", service(backend.port))
        zone = await node.until(node.zone(L4LB), address_of)
        (vip,) = address_of(zone)
        assert await node.addresses(WEB) == [vip]
        assert await node.addresses("web.shop.autoip.dcos.thisdcos.directory") == ["127.0.0.1"]
        assert await get(node.reactor, vip, 8000) == b"hello"

        (node.services / "web.toml").unlink()
        await node.until(node.zone(L4LB), lambda zone: not address_of(zone))
        with pytest.raises(DNSNameError):
            await node.addresses(WEB)
        with pytest.raises(Exception, match="refused"):
            await get(node.reactor, vip, 8000)
    finally:
        await backend.stop()


@pytest_twisted.ensureDeferred
async def test_a_dead_backend_costs_the_client_nothing(make_node):
    node = make_node()
    living, dead = Backend(node.reactor, b"alive"), Backend(node.reactor, b"dead")
    await dead.stop()
    try:
        node.write("web.toml", service(living.port, instance="1") + service(dead.port, instance="2"))
        await node.until(node.vips, lambda vips: any(len(vip.backends) == 2 for vip in vips.values()))
        (vip,) = address_of(await node.until(node.zone(L4LB), address_of))
        for _ in range(6):
            assert await get(node.reactor, vip, 8000) == b"alive"
    finally:
        await living.stop()


@pytest_twisted.ensureDeferred
async def test_weight_zero_drains(make_node):
    node = make_node()
    first, second = Backend(node.reactor, b"first"), Backend(node.reactor, b"second")
    try:
        node.write(
            "web.toml", service(first.port, instance="1") + service(second.port, instance="2", more="weight = 0")
        )
        (vip,) = address_of(await node.until(node.zone(L4LB), address_of))
        for _ in range(6):
            assert await get(node.reactor, vip, 8000) == b"first"
    finally:
        await first.stop()
        await second.stop()


@pytest_twisted.ensureDeferred
async def test_a_broken_edit_keeps_the_last_good_content(make_node):
    node = make_node()
    backend = Backend(node.reactor, b"hello")
    try:
        node.write("web.toml", service(backend.port))
        (vip,) = address_of(await node.until(node.zone(L4LB), address_of))
        node.write("web.toml", "[[service]]\nname = ")
        _, body = await ask(node, "/v1/sources", lambda reply: any(each["problems"] for each in reply))
        assert "web.toml" in json.dumps(body)
        assert await get(node.reactor, vip, 8000) == b"hello"
    finally:
        await backend.stop()


class Echo(DatagramProtocol):
    def datagramReceived(self, data, address):
        self.transport.write(data.upper(), address)


class Asker(DatagramProtocol):
    def __init__(self):
        self.reply = Deferred()

    def datagramReceived(self, data, address):
        self.reply.callback((data, address))


@pytest_twisted.ensureDeferred
async def test_a_udp_service_answers_from_its_vip(make_node):
    node = make_node()
    echo = node.reactor.listenUDP(0, Echo(), interface="127.0.0.1")
    asker = Asker()
    asking = node.reactor.listenUDP(0, asker, interface="127.0.0.1")
    try:
        node.write(
            "dns.toml",
            '[[service]]\nname = "echo"\ngroup = "shop"\naddress = "127.0.0.1"\n'
            f'ports = [{{ port = {echo.getHost().port}, protocol = "udp", vip = "/echo:9000" }}]\n',
        )
        (vip,) = address_of(
            await node.until(node.zone(L4LB), lambda z: address_of(z, f"echo.shop.{L4LB}")), f"echo.shop.{L4LB}"
        )
        asking.write(b"shout", (vip, 9000))
        assert await asker.reply.addTimeout(10, node.reactor) == (b"SHOUT", (vip, 9000))
    finally:
        await echo.stopListening()
        await asking.stopListening()


async def ask(node, path, holds=lambda reply: True, method="GET", body=b""):
    """Ask over the UNIX socket until the reply holds; a change may be some turns away."""
    from twisted.internet.task import deferLater

    for _ in range(400):
        endpoint = UNIXClientEndpoint(node.reactor, str(node.folder / "state" / "api.sock"))
        protocol = await connectProtocol(endpoint, Reader())
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        protocol.transport.write(head.encode() + body)
        raw = await protocol.done.addTimeout(10, node.reactor)
        headers, _, payload = raw.partition(b"\r\n\r\n")
        if b"chunked" in headers.lower():
            payload = b"".join(payload.split(b"\r\n")[1::2])
        status, reply = int(headers.split()[1]), json.loads(payload)
        if holds(reply):
            return status, reply
        await deferLater(node.reactor, 0.01)
    raise AssertionError(f"{path} never held; last: {reply}")


@pytest_twisted.ensureDeferred
async def test_a_registration_is_served_until_it_is_withdrawn(make_node):
    node = make_node()
    backend = Backend(node.reactor, b"registered")
    lease = {"group": "shop", "address": "127.0.0.1", "ports": [{"port": backend.port, "vip": "/web:8000"}], "ttl": 60}
    try:
        status, reply = await ask(node, "/v1/register/web", method="PUT", body=json.dumps(lease).encode())
        assert status == 200, reply
        (vip,) = address_of(await node.until(node.zone(L4LB), address_of))
        assert await get(node.reactor, vip, 8000) == b"registered"
        status, _ = await ask(node, "/v1/register/web?group=shop", method="DELETE")
        assert status == 200
        await node.until(node.zone(L4LB), lambda zone: not address_of(zone))
    finally:
        await backend.stop()


@pytest_twisted.ensureDeferred
async def test_every_part_becomes_ready(make_node):
    node = make_node()
    await node.until(node.zone(L4LB), lambda zone: zone.unsynced is None)
    status, reply = await ask(node, "/v1/status", lambda reply: reply["ready"])
    assert status == 200
    assert set(reply["parts"]) >= {"kv", "gossip", "views", "files", "register", "l4lb", "dns", "ops"}
