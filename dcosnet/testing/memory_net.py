"""
TCP in memory, on a clock: what connects and what listens meet without sockets.

It has the shape of a reactor (IReactorTCP and IReactorTime). Bytes arrive on a
later turn, in order; a reader that pauses makes its writer's producer pause, as
with real sockets. `settle` runs all turns that are due without passing time.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IConnector, IHalfCloseableProtocol, IListeningPort, IReactorTCP, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

ROOM = 65536  # bytes that a paused reader's side takes before the writer must wait
TURNS = 10_000

_Address = IPv4Address | IPv6Address


@implementer(ITCPTransport)
class MemoryTransport:
    """One end of a connection."""

    disconnecting = False
    connected = True

    def __init__(self, net: MemoryNet, host: _Address, peer: _Address) -> None:
        self._net = net
        self._host = host
        self._peer_address = peer
        self.peer: MemoryTransport
        self.protocol: Any = None
        self.producer: Any = None
        self._inbox = bytearray()
        self._paused = False
        self._producer_paused = False
        self._ended: Failure | None = None  # the peer has closed, with this reason
        self._half_closed = False

    def write(self, data: bytes) -> None:
        """Send; the peer hears it on a later turn."""
        if self.connected and not self.disconnecting and self.peer.connected:
            self.peer._inbox += data  # noqa: SLF001 - the other end of the same thing
            self._net.callLater(0, self.peer.drain)
            self._press()

    def writeSequence(self, data: Any) -> None:
        """Send all."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once what was written is out and no producer is left."""
        self.disconnecting = True
        self._finish()

    def abortConnection(self) -> None:
        """Close now, whatever is still to be read."""
        if self.connected:
            self._inbox.clear()
            self._close(Failure(error.ConnectionAborted()), Failure(error.ConnectionLost()))

    def loseWriteConnection(self) -> None:
        """End our direction."""
        self._net.callLater(0, self.peer.end_of_file)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: ARG002 - ours all stream
        """Tell it when to pause."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """There is none any more."""
        self.producer = None
        self._finish()

    def pauseProducing(self) -> None:
        """Read nothing for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        self._net.callLater(0, self.drain)

    def stopProducing(self) -> None:
        """End."""
        self.loseConnection()

    def getHost(self) -> _Address:
        """This end's address."""
        return self._host

    def getPeer(self) -> _Address:
        """The other end's address."""
        return self._peer_address

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay."""

    def getTcpNoDelay(self) -> bool:
        """There is no delay."""
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing can go away unseen."""

    def getTcpKeepAlive(self) -> bool:
        """Nothing can go away unseen."""
        return False

    @property
    def unread(self) -> int:
        """Bytes that this end has been sent and does not read."""
        return len(self._inbox)

    def drain(self) -> None:
        """Give the protocol what it has been sent."""
        if self._inbox and not self._paused and self.connected:
            data = bytes(self._inbox)
            self._inbox.clear()
            self.protocol.dataReceived(data)
            self.peer._press()  # noqa: SLF001
        if self._ended is not None and not self._inbox and self.connected:
            self._close(self._ended, None)

    def end_of_file(self) -> None:
        """The peer writes no more."""
        if not self.connected or self._half_closed:
            return
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._half_closed = True
            self.protocol.readConnectionLost()
        else:
            self.loseConnection()

    def _press(self) -> None:
        full = self.peer._paused and self.peer.unread > ROOM  # noqa: SLF001
        if self.producer is not None and full != self._producer_paused:
            self._producer_paused = full
            if full:
                self.producer.pauseProducing()
            else:
                self.producer.resumeProducing()

    def _finish(self) -> None:
        if self.disconnecting and self.connected and self.producer is None:
            self._close(Failure(error.ConnectionDone()), Failure(error.ConnectionDone()))

    def _close(self, own: Failure, other: Failure | None) -> None:
        self.connected = False
        self._net.callLater(0, self.protocol.connectionLost, own)
        if other is not None:
            self.peer._ended = other  # noqa: SLF001
            self._net.callLater(0, self.peer.drain)


@implementer(IListeningPort)
class MemoryPort:
    """Something that listens."""

    def __init__(self, net: MemoryNet, address: _Address, factory: Any) -> None:
        self._net = net
        self._address = address
        self.factory = factory

    def startListening(self) -> None:
        """Take the port. Raises CannotListenError."""
        if self._address in self._net.ports:
            raise error.CannotListenError(self._address.host, self._address.port, OSError(98, "in use"))
        self._net.ports[self._address] = self
        self.factory.doStart()

    def stopListening(self) -> None:
        """Let go of it."""
        if self._net.ports.pop(self._address, None) is self:
            self.factory.doStop()

    def getHost(self) -> _Address:
        """Where it listens."""
        return self._address


@implementer(IConnector)
class MemoryConnector:
    """An attempt to connect."""

    def __init__(self, net: MemoryNet, target: _Address, factory: Any) -> None:
        self._net = net
        self._target = target
        self._factory = factory
        self.transport: MemoryTransport | None = None
        self._call: Any = None

    def connect(self) -> None:
        """Try on the next turn."""
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._call = self._net.callLater(0, self._try)

    def stopConnecting(self) -> None:
        """Give up."""
        if self._call.active():
            self._call.cancel()
            self._factory.clientConnectionFailed(self, Failure(error.UserError()))

    def disconnect(self) -> None:
        """Give up, or end the connection."""
        if self.transport is None:
            self.stopConnecting()
        else:
            self.transport.loseConnection()

    def getDestination(self) -> _Address:
        """Where to."""
        return self._target

    def _try(self) -> None:
        port = self._net.ports.get(self._target)
        if port is None:
            self._factory.clientConnectionFailed(self, Failure(error.ConnectionRefusedError()))
            return
        own = self._net.address(self._target.host, self._net.free_port())
        here, there = MemoryTransport(self._net, own, self._target), MemoryTransport(self._net, self._target, own)
        here.peer, there.peer = there, here
        self.transport = here
        here.protocol = self._factory.buildProtocol(self._target)
        there.protocol = port.factory.buildProtocol(own)
        if there.protocol is None:
            there.connected = False
            here.protocol.makeConnection(here)
            here.abortConnection()
            return
        there.protocol.makeConnection(there)
        here.protocol.makeConnection(here)


@implementer(IReactorTCP)
class MemoryNet(Clock):
    """A reactor with a clock and TCP between those who use it."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[_Address, MemoryPort] = {}
        self._port = 50000

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "127.0.0.1") -> MemoryPort:  # noqa: ARG002
        """Listen; port 0 is any."""
        listening = MemoryPort(self, self.address(interface, port or self.free_port()), factory)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,  # noqa: ARG002 - nothing is slow here
        bindAddress: tuple[str, int] | None = None,  # noqa: ARG002
    ) -> MemoryConnector:
        """Connect on the next turn."""
        connector = MemoryConnector(self, self.address(host, port), factory)
        connector.connect()
        return connector

    def settle(self) -> None:
        """Run what is due now, and what that makes due, without passing time."""
        for _ in range(TURNS):
            due = [call for call in self.getDelayedCalls() if call.getTime() <= self.seconds()]
            if not due:
                return
            self.advance(0)
        raise AssertionError("the network does not come to rest")

    def address(self, host: str, port: int) -> _Address:
        """An address of either family."""
        return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)

    def free_port(self) -> int:
        """A port that nobody has had."""
        self._port += 1
        return self._port
