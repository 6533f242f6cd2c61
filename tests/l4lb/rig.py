"""What the tests with real sockets share: a plane on 127/8, backends that misbehave as told, clients."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from dcosnet.io import mmsg
from dcosnet.io.epoll import InnerEpoll
from dcosnet.io.notify import Notifier
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.flows import Flows
from dcosnet.l4lb.homes import Homes
from dcosnet.l4lb.ledger import Ledger
from dcosnet.l4lb.listener import Listener, Service
from dcosnet.l4lb.schedule import Pick, Schedule
from dcosnet.l4lb.sockets import Sockets
from dcosnet.l4lb.tcp import Limits, Proxy
from dcosnet.l4lb.udp import Relay
from dcosnet.l4lb.userspace import Userspace
from dcosnet.model import net
from dcosnet.model.vip import Backend, VipKey

VIP = ip_address("127.11.3.4")
HOME = ip_address("127.0.0.1")
LARGEST = 65507  # of a datagram over IPv4
PATIENCE = 20  # seconds until a test that hangs fails


def free_port(kind: int = socket.SOCK_STREAM, address: str = str(VIP)) -> int:
    """A port that nobody has now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as sock:
        sock.bind((address, 0))
        return sock.getsockname()[1]


def backend(port: int, weight: int = 1) -> Backend:
    return Backend(HOME, port, HOME, weight)


def listener(port: int, protocol: net.Protocol = net.Protocol.TCP) -> Listener:
    return Listener(protocol, VIP, port)


def service(one: Listener, *backends: Backend, name: str | None = None) -> Service:
    return Service(VipKey(one.protocol, one.port, address=one.address), backends, name)


async def until(done: Callable[[], object]) -> None:
    """Turn after turn of the reactor, until it is so."""
    end = reactor.seconds() + PATIENCE
    while not done():
        assert reactor.seconds() < end, "it never came"
        await deferLater(reactor, 0)


class Plane:
    """A userspace plane with its insides at hand."""

    def __init__(
        self,
        connections: int = 1000,
        connect_timeout: float = 5.0,
        udp_idle: float = 60.0,
        udp_flows: int = 100,
        clock: IReactorTime = reactor,
        make_batch: Any = mmsg.batch,
        **limits: Any,
    ) -> None:
        self.counts = Counts()
        self.epoll = InnerEpoll(reactor)
        self.proxy = Proxy(self.epoll, clock, Limits(connections, connect_timeout, **limits), self.counts)
        self.relay = Relay(self.epoll, clock, Flows(udp_idle, udp_flows), self.counts, make_batch)
        self.ledger = Ledger()
        self.plane = Userspace(
            self.proxy,
            self.relay,
            partial(Schedule, Pick.ROUND_ROBIN, Random(1)),
            Homes((), change=False),
            Sockets(Notifier({}, reactor)),
            self.ledger,
        )
        self.epoll.start()

    def apply(self, desired: dict[Listener, Service]) -> None:
        actual = self.plane.observe().result
        done = self.plane.apply(self.plane.plan(desired, actual))
        failures: list[object] = []
        done.addErrback(failures.append)
        if failures:
            failures[0].raiseException()

    def close(self) -> None:
        self.plane.close()
        self.epoll.close()


@contextmanager
def open_plane(**options: Any) -> Iterator[Plane]:
    made = Plane(**options)
    try:
        yield made
        assert made.epoll.errors == 0
    finally:
        made.close()


class FullEpoll:
    """An epoll that takes nobody new, as at the limit of watches of this user."""

    def __init__(self, epoll, takes: int = 0) -> None:
        self._epoll = epoll
        self._takes = takes

    def __getattr__(self, name: str):
        return getattr(self._epoll, name)

    def add(self, descriptor, mask, ready) -> None:
        if not self._takes:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._takes -= 1
        self._epoll.add(descriptor, mask, ready)


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """One end of a connection that keeps what it got and tells when it changes."""

    def __init__(self) -> None:
        self.got = b""
        self.finished = False
        """Whether the other side has said its last byte."""
        self.lost: str | None = None
        self._waiting: list[tuple[object, Deferred]] = []

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.factory.peers.append(self)
        self.factory.changed()
        self.began()

    def began(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self.changed()

    def readConnectionLost(self) -> None:
        self.finished = True
        self.changed()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason) -> None:
        self.lost = reason.type.__name__
        self.changed()

    def changed(self) -> None:
        for when, done in self._waiting:
            if when(self) and not done.called:
                done.callback(self)

    def until(self, when) -> Deferred:
        done: Deferred = Deferred()
        if when(self):
            done.callback(self)
        else:
            self._waiting.append((when, done))
        return done.addTimeout(PATIENCE, reactor)


class Echo(Peer):
    """Says its name, then what it hears; its end follows the other's."""

    def began(self) -> None:
        self.transport.write(self.factory.greeting)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.transport.loseConnection()


class Peers(ClientFactory):
    """Keeps all its peers."""

    noisy = False

    def __init__(self, kind: type[Peer] = Peer, greeting: bytes = b"") -> None:
        self.kind = kind
        self.greeting = greeting
        self.peers: list[Peer] = []
        self.ended: Deferred = Deferred()
        """As a client: how the connection ended, also before it was there for this side."""
        self._waiting: list[tuple[int, Deferred]] = []

    def clientConnectionFailed(self, _connector, reason) -> None:
        self.ended.callback(reason.type.__name__)

    def clientConnectionLost(self, _connector, reason) -> None:
        self.ended.callback(reason.type.__name__)

    def buildProtocol(self, _address) -> Peer:
        made = self.kind()
        made.factory = self
        return made

    def changed(self) -> None:
        for count, done in self._waiting:
            if len(self.peers) >= count and not done.called:
                done.callback(None)

    def until(self, count: int) -> Deferred:
        done: Deferred = Deferred()
        self._waiting.append((count, done))
        self.changed()
        return done.addTimeout(PATIENCE, reactor)


class Net:
    """Backends and clients of a test; closes them all."""

    def __init__(self) -> None:
        self._ports: list[object] = []
        self._factories: list[Peers] = []

    def serve(self, kind: type[Peer] = Echo, greeting: bytes = b"") -> tuple[Peers, int]:
        factory = Peers(kind, greeting)
        port = reactor.listenTCP(0, factory, interface=str(HOME))
        self._ports.append(port)
        self._factories.append(factory)
        return factory, port.getHost().port

    def serve_udp(self, prefix: bytes) -> int:
        class Answer(DatagramProtocol):
            def datagramReceived(self, data: bytes, address) -> None:
                self.transport.write(prefix + data, address)

        port = reactor.listenUDP(0, Answer(), interface=str(HOME), maxPacketSize=LARGEST)
        self._ports.append(port)
        return port.getHost().port

    async def connect(self, port: int, address: str = str(VIP)) -> Peer:
        factory = Peers()
        self._factories.append(factory)
        reactor.connectTCP(address, port, factory, timeout=PATIENCE)
        await factory.until(1)
        return factory.peers[0]

    async def end(self, port: int) -> str:
        """How a connection ends without this side's doing; a reset may be seen as a failure to connect."""
        factory = Peers()
        self._factories.append(factory)
        reactor.connectTCP(str(VIP), port, factory, timeout=PATIENCE)
        return await factory.ended.addTimeout(PATIENCE, reactor)

    def udp_client(self) -> UdpClient:
        client = UdpClient()
        self._ports.append(reactor.listenUDP(0, client, interface=str(HOME), maxPacketSize=LARGEST))
        return client

    async def close(self) -> None:
        for factory in self._factories:
            for peer in factory.peers:
                if peer.lost is None:
                    peer.transport.abortConnection()
                await peer.until(lambda one: one.lost is not None)
        for port in self._ports:
            await port.stopListening()


class UdpClient(DatagramProtocol):
    """Asks and waits for the answer, which has to come from where it asked."""

    def __init__(self) -> None:
        self._answer: Deferred | None = None

    def datagramReceived(self, data: bytes, address) -> None:
        assert self._answer is not None
        answer, self._answer = self._answer, None
        answer.callback((data, address))

    async def ask(self, data: bytes, port: int) -> bytes:
        self._answer = Deferred()
        self._answer.addTimeout(PATIENCE, reactor)
        self.transport.write(data, (str(VIP), port))
        answer, address = await self._answer
        assert address == (str(VIP), port), "from the VIP's own address"
        return answer


@contextmanager
def network() -> Iterator[Net]:
    made = Net()
    try:
        yield made
    finally:
        pytest_twisted.blockon(Deferred.fromCoroutine(made.close()))
