"""
Bytes in, bytes out: the UDP and TCP faces of the server.

The sender's right to ask is decided first, then a ready answer is tried; only
what is left costs a decoded query. A TCP client that does not read its replies
is not read from, and one that asks nothing for IDLE seconds is gone.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.dns.access import AccessList
from dcosnet.dns.answers import Answers
from dcosnet.dns.chain import Chain
from dcosnet.dns.metrics import Counts
from dcosnet.io.quiet import quietly
from dcosnet.io.udp import CannotBind, Datagrams, Receive, Sender, Udp
from dcosnet.model.net import Endpoint

IDLE = 10.0  # s, RFC 7766 6.2.3 leaves it to the server
CONNECTIONS = 256  # per listener
AT_A_TIME = 64  # queries of one connection, then it is somebody else's turn
UNDER_WAY = 64  # per connection, before it is not read any more
_PORT_TRIES = 16
_BACKLOG = 50  # as Twisted has it
_ANY_IPV6 = IPv6Address("::")


def udp_receiver(
    access: AccessList, answers: Answers, chain: Chain, counts: Counts, send: Callable[[bytes, Any], object]
) -> Receive:
    """What a UDP listener does with a datagram. Everything is bound early: this runs for each."""
    known, allows = access.known, access.allows
    ready, other_case = answers.ready, answers.other_case
    hits = counts.ready
    ask = chain.ask

    def receive(message: bytes, sender: Sender) -> bytes | None:
        if not known.get(sender[0]) and not allows(sender[0]):
            counts.queries["udp"] += 1
            return chain.refuse(message)
        bodies = ready.get(message[2:])
        if bodies is not None:
            body = next(bodies)
            hits[body[1] & 15] += 1
            return message[:2] + body
        other = other_case(message)
        if other is not None:
            hits[other[1] & 15] += 1
            return message[:2] + other
        counts.queries["udp"] += 1
        return ask(message, False, send, sender)

    return receive


@implementer(IHalfCloseableProtocol)
class TcpQueries(Int16StringReceiver, TimeoutMixin):
    """
    One client's connection: queries as they come, replies as they are ready (RFC 7766).

    Reading stops while replies wait to be written, while UNDER_WAY queries wait
    for upstreams, and until the next turn after AT_A_TIME queries.
    """

    transport: Any
    callLater: Any

    def __init__(self, listener: TcpListener, allowed: bool) -> None:
        self._listener = listener
        self._allowed = allowed
        self._under_way = 0
        self._served = 0
        self._serving = False
        self._resuming: IDelayedCall | None = None
        self._writing_blocked = False
        self._finished = False
        self.callLater = listener.reactor.callLater

    def connectionMade(self) -> None:
        """Start the clock, and hear when the client does not read."""
        self.transport.registerProducer(self, True)
        self.setTimeout(IDLE)

    def dataReceived(self, data: bytes) -> None:
        """Serve what came, in bounded bits: one segment may hold thousands of queries."""
        self._served = 0
        self._serving = True
        super().dataReceived(data)
        self._serving = False
        self._balance()

    def stringReceived(self, string: bytes) -> None:
        """Serve one message."""
        self.resetTimeout()
        self._served += 1
        listener = self._listener
        listener.counts.queries["tcp"] += 1
        if not self._allowed:
            reply = listener.chain.refuse(string)
        else:
            self._under_way += 1
            before = listener.counts.dropped["not_a_query"]
            reply = listener.chain.ask(string, True, self._late, None)
            dropped = reply is None and listener.counts.dropped["not_a_query"] != before
            if reply is not None or dropped:
                self._under_way -= 1
        if reply is not None:
            self.sendString(reply)
        self._balance()

    def pauseProducing(self) -> None:
        """Replies wait to be written."""
        self._writing_blocked = True
        self._balance()

    def resumeProducing(self) -> None:
        """They are written."""
        self._writing_blocked = False
        self._balance()

    def stopProducing(self) -> None:
        """The connection ends; `connectionLost` says so."""

    def readConnectionLost(self) -> None:
        """The client has asked all; what is under way is still answered."""
        self._finished = True
        self._balance()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""
        self.transport.abortConnection()

    def timeoutConnection(self) -> None:
        """Nothing was asked, or nothing was read, for too long."""
        self._listener.counts.dropped["tcp_idle"] += 1
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Free the client's place."""
        self.setTimeout(None)
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._listener.lost(self)

    def _late(self, reply: bytes, _sender: object) -> None:
        self._under_way -= 1
        if self.connected:
            self.resetTimeout()
            self.sendString(reply)
            self._balance()

    def _balance(self) -> None:
        if not self.paused and (self._blocked() or self._served >= AT_A_TIME):
            self.paused = True
            self.transport.pauseProducing()
        if self.paused and self._resuming is None and not self._blocked():
            self._resuming = self.callLater(0, self._go_on)
        if self._finished and not (self._serving or self.paused or self._under_way):
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _blocked(self) -> bool:
        return self._writing_blocked or self._under_way >= UNDER_WAY

    def _go_on(self) -> None:
        """First what came with the last segment, then more."""
        self._resuming = None
        if self._blocked():
            return
        self.paused = False
        self.dataReceived(b"")
        if not self.paused and not self._finished:
            self.transport.resumeProducing()


class TcpListener(Factory):
    """Makes the protocols of one listening port, up to CONNECTIONS at a time."""

    noisy = False

    def __init__(self, reactor: Any, access: AccessList, chain: Chain, counts: Counts) -> None:
        self.reactor = reactor
        self.chain = chain
        self.counts = counts
        self._access = access
        self._clients: set[TcpQueries] = set()

    def buildProtocol(self, addr: IAddress | None) -> TcpQueries | None:
        """A client's protocol, or None to close the connection at once."""
        if len(self._clients) >= CONNECTIONS:
            self.counts.dropped["tcp_connections"] += 1
            return None
        client = TcpQueries(self, self._access.allows(addr.host))  # type: ignore[union-attr]  # always an IPv4Address or IPv6Address
        self._clients.add(client)
        return client

    def lost(self, client: TcpQueries) -> None:
        """A connection has ended."""
        self._clients.discard(client)

    def close(self) -> None:
        """End all connections."""
        for client in tuple(self._clients):
            client.transport.abortConnection()


class Listener:
    """One address, UDP and TCP on the same port."""

    def __init__(
        self, reactor: Any, udp: Udp, access: AccessList, answers: Answers, chain: Chain, counts: Counts
    ) -> None:
        self._reactor = reactor
        self._udp = udp
        self._access = access
        self._answers = answers
        self._chain = chain
        self._counts = counts
        self._socket: Datagrams | None = None
        self._factory = TcpListener(reactor, access, chain, counts)
        self._port: Any = None

    def bind(self, endpoint: Endpoint) -> Endpoint:
        """Take both ports and return the address with its actual one. Raises CannotBind, and then holds neither."""
        for _ in range(_PORT_TRIES if endpoint.port == 0 else 1):
            sock = self._udp.bind(endpoint)
            actual = Endpoint(endpoint.address, sock.endpoint.port)
            try:
                self._port = self._listen_tcp(actual)
            except (error.CannotListenError, OSError) as problem:
                sock.close()
                reason = problem if isinstance(problem, OSError) else problem.socketError
                failed = CannotBind("TCP", actual, reason)
            else:
                self._socket = sock
                return actual
        raise failed

    @property
    def unsent(self) -> int:
        """Replies over UDP that the system did not take."""
        return 0 if self._socket is None else self._socket.unsent

    def _listen_tcp(self, endpoint: Endpoint) -> Any:
        if endpoint.address != _ANY_IPV6:
            return quietly(self._reactor.listenTCP, endpoint.port, self._factory, interface=str(endpoint.address))
        # Twisted would take IPv4 along: then 0.0.0.0 could not be listened on as well,
        # and who comes over IPv4 would have an address that no access list knows.
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(endpoint.address), endpoint.port))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
            return quietly(self._reactor.adoptStreamPort, sock.fileno(), socket.AF_INET6, self._factory)

    def start(self) -> None:
        """Begin to receive over UDP; TCP has done so since `bind`."""
        assert self._socket is not None
        self._socket.start(udp_receiver(self._access, self._answers, self._chain, self._counts, self._socket.send))

    def close(self) -> Any:
        """Let go of both ports; a Deferred or None."""
        if self._socket is not None:
            self._socket.close()
        self._factory.close()
        return None if self._port is None else self._port.stopListening()
