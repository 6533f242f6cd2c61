"""
Connections to peers: they move bytes between sockets and the core, and decide nothing.

With certificates a connection counts once both ends have shown who they are. A
connection that we open is told to the core only when its other end has begun to
speak: in TLS 1.3 the end that is called judges last, and what it thinks of our
certificate would else come as the loss of a link.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ECONNREFUSED, ECONNRESET
from ipaddress import ip_address
from socket import IPPROTO_TCP, TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT, socket
from typing import Any, Protocol, cast

import attrs
from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet import protocol as twisted_protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.gossip.contact import Contact, parse_contact
from dcosnet.gossip.effects import Dial, Effect, Hang, Write
from dcosnet.gossip.messages import Close, CloseCode, Reason
from dcosnet.gossip.tls import REASONS, Peer, RefusedError, Tls, expired
from dcosnet.gossip.wire import encode
from dcosnet.io.names import Names, resolver

log = Logger()

PENDING = 64
"""Incoming connections that have not shown yet who they are."""
HANDSHAKE = 10.0
"""Seconds that such a one may take."""
YOUNG = 1.0
"""Of those that are pending, the oldest makes room for a new one, unless it is younger than this."""
LINGER = 2.0
"""Seconds until a connection that is to be closed in peace is cut."""

# What the kernel holds unsent is bounded, so that a ping does not wait behind bulk
# there: 54 KB in place of 3.9 MB, on loopback, for a reader that has stopped.
# SO_SNDBUF would bound what is under way as well, and with it the speed.
_UNSENT = 16_384
# The probes decide sooner; this is for what they do not see, a peer that is gone while nobody asks.
_USER_TIMEOUT_MS = 30_000


class Core(Protocol):
    """What connections tell the core; `Cluster` is one."""

    def accept(self) -> int:
        """A number for an incoming connection."""

    def opened(self, link: int, name: str | None, endpoint: str, dialled: bool, now: float) -> None:
        """A connection stands."""

    def feed(self, data: tuple[int, bytes], now: float) -> None:
        """Bytes have come."""

    def writable(self, link: int, room: bool) -> None:
        """Whether there is room for more."""

    def closed(self, link: int, now: float, reason: str) -> None:
        """The other end is gone."""

    def unreached(self, link: int, now: float, why: Reason, text: str) -> None:
        """A dial came to nothing."""


class Counts:
    """Since the start of this process."""

    def __init__(self) -> None:
        self.accepted = 0
        self.dialled = 0
        self.refused = dict.fromkeys(REASONS, 0)


@implementer(IHandshakeListener, IPushProducer)
class Connection(twisted_protocol.Protocol):
    """One connection; `dial` is what it was opened for, None for one that came in."""

    def __init__(self, peers: Peers, other: Contact, dial: Dial | None) -> None:
        self.other = other
        self.dial = dial
        self.number = dial.link if dial is not None else 0
        self.peer: Peer | None = None
        self.is_open = False
        self.began = 0.0
        self.timer: IDelayedCall | None = None
        self._peers = peers

    @property
    def who(self) -> str:
        """The name that was proven, or where it is; a port that came in by is another one each time."""
        if self.peer is not None:
            return self.peer.name
        return self.other.host if self.dial is None else str(self.other)

    @property
    def handle(self) -> SSL.Connection:
        """The connection as OpenSSL has it."""
        return cast("SSL.Connection", cast("Any", self.transport).getHandle())

    def connectionMade(self) -> None:
        transport = cast("Any", self.transport)
        raw = transport.transport if self._peers.tls is not None else transport
        raw.setTcpNoDelay(True)
        plug: socket = raw.getHandle()
        plug.setsockopt(IPPROTO_TCP, TCP_NOTSENT_LOWAT, _UNSENT)
        plug.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        if self.dial is not None:
            self._peers.connected(self, self.dial)
        if self._peers.tls is None:
            self._peers.open(self)

    def handshakeCompleted(self) -> None:
        self._peers.identify(self)

    def dataReceived(self, data: bytes) -> None:
        self._peers.receive(self, data)

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008 - as Twisted has it
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self._peers.lost(self, reason)

    def close(self) -> None:
        """Let arrive what was written."""
        transport = cast("Any", self.transport)
        transport.unregisterProducer()
        transport.loseConnection()

    def abort(self) -> None:
        """Cut it."""
        cast("Any", self.transport).abortConnection()

    def pauseProducing(self) -> None:
        """More than 64 KiB are unsent."""
        self._peers.room(self, False)

    def resumeProducing(self) -> None:
        """All that was written is sent."""
        self._peers.room(self, True)

    def stopProducing(self) -> None:
        """The connection is gone, which connectionLost tells."""


@attrs.define
class _Attempt:
    """A dial that is under way."""

    timer: IDelayedCall
    connecting: Deferred[None] = attrs.field(factory=Deferred)
    connection: Connection | None = None

    def give_up(self) -> None:
        """Connect no more."""
        self.connecting.cancel()


class Peers:
    """
    Carries out what the core wants done with links (`send`), and tells it what becomes of them.

    `tls` None is plaintext: only connections that do not leave this host are
    made or taken. `do` runs a function with the time and then carries out what
    the core says (`Drive.do`). `refused(who, reason, text, theirs)` hears of
    each refusal.
    """

    def __init__(
        self,
        reactor: Any,
        core: Core,
        do: Callable[[Callable[[float], None]], None],
        tls: Tls | None,
        *,
        refused: Callable[[str, RefusedError], None],
        pending: int = PENDING,
    ) -> None:
        self.tls = tls
        self.counts = Counts()
        self._reactor = reactor
        self._core = core
        self._do = do
        self._refused = refused
        self._most = pending
        self._names = Names(resolver(reactor))
        self._links: dict[int, Connection] = {}
        self._pending: dict[Connection, None] = {}
        self._parting: set[Connection] = set()
        self._attempts: dict[int, _Attempt] = {}
        self._drained: list[Deferred[None]] = []
        self._leaving = False

    # What the core wants

    def send(self, effect: Effect) -> None:
        """Carry out an effect."""
        match effect:
            case Write(link, data):
                connection = self._links.get(link)
                if connection is not None:
                    cast("Any", connection.transport).write(data)
            case Dial():
                self._dial(effect)
            case Hang(link, graceful):
                connection = self._links.pop(link, None)
                if connection is not None:
                    self._part(connection, graceful=graceful)

    def _part(self, connection: Connection, *, graceful: bool) -> None:
        """Tell nothing more of it, and close it."""
        connection.is_open = False
        self._parting.add(connection)
        if graceful:
            connection.timer = self._reactor.callLater(LINGER, connection.abort)
            connection.close()
        else:
            connection.abort()

    # Connections that we open

    def _dial(self, dial: Dial) -> None:
        attempt = self._attempts[dial.link] = _Attempt(self._reactor.callLater(dial.timeout, self._late, dial))
        attempt.connecting = Deferred.fromCoroutine(self._connect(dial))
        attempt.connecting.addErrback(self._unconnected, dial)

    async def _connect(self, dial: Dial) -> None:
        contact = parse_contact(dial.endpoint)
        address = contact.address or await self._names.address(contact.host)
        if address is None:
            raise error.DNSLookupError(f"{contact.host} has no address")
        if self.tls is None and not address.is_loopback:
            raise RefusedError("plaintext", f"{dial.endpoint} is not on this host, and there are no certificates")
        kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(self._reactor, str(address), contact.port, timeout=dial.timeout)
        if self.tls is not None:
            endpoint = wrapClientTLS(self.tls, endpoint)
        await endpoint.connect(_Outgoing(self, contact, dial))

    def connected(self, connection: Connection, dial: Dial) -> None:
        """There is a socket; what follows is the handshake."""
        self._attempts[dial.link].connection = connection

    def _late(self, dial: Dial) -> None:
        self._unreached(dial, Reason.NO_ANSWER, f"{dial.endpoint} did not answer within {dial.timeout:g} s")

    def _unconnected(self, failure: Failure, dial: Dial) -> None:
        reason: Any = failure.value
        if isinstance(reason, RefusedError):
            self._deny(dial.name or dial.endpoint, reason, dial)
        elif isinstance(reason, error.ConnectError) and reason.osError in (ECONNREFUSED, ECONNRESET):
            self._unreached(dial, Reason.REFUSED, f"nobody listens at {dial.endpoint}")
        else:
            given_up = (defer.CancelledError, error.ConnectingCancelledError)
            if not failure.check(error.ConnectError, error.DNSLookupError, *given_up, ValueError):
                log.failure("{endpoint} could not be dialled", failure, endpoint=dial.endpoint)
            self._unreached(dial, Reason.NO_ANSWER, f"{dial.endpoint}: {failure.getErrorMessage()}")

    def _unreached(self, dial: Dial, why: Reason, text: str) -> None:
        """Tell that a dial came to nothing, once; nothing of it stays."""
        attempt = self._settle(dial.link)
        if attempt is None:
            return
        attempt.give_up()
        if attempt.connection is not None and attempt.connection not in self._parting:
            self._parting.add(attempt.connection)
            attempt.connection.abort()
        self._do(lambda now: self._core.unreached(dial.link, now, why, text))

    def _settle(self, link: int) -> _Attempt | None:
        """A dial that is under way, which it is not any more; None if it was not."""
        attempt = self._attempts.pop(link, None)
        if attempt is not None and attempt.timer.active():
            attempt.timer.cancel()
        return attempt

    # Connections that come in

    def door(self) -> IProtocolFactory:
        """What listens."""
        inner: Any = _Incoming(self)
        return _Door(self, TLSMemoryBIOFactory(self.tls, False, inner) if self.tls is not None else inner)

    def admits(self, other: Contact) -> bool:
        """Whether there is room for one that comes in, and it may."""
        if self._leaving:
            return False
        if self.tls is None and not other.is_loopback:
            self._deny(
                other.host, RefusedError("plaintext", "it is not on this host, and there are no certificates"), None
            )
            return False
        if len(self._pending) < self._most:
            return True
        oldest = next(iter(self._pending))
        if self._reactor.seconds() - oldest.began < YOUNG:
            self.counts.refused["crowded"] += 1
            return False
        self.counts.refused["crowded"] += 1
        self._drop(oldest)
        return True

    def await_handshake(self, connection: Connection) -> None:
        """An incoming connection has so long to show who is there."""
        if self.tls is not None:
            connection.began = self._reactor.seconds()
            self._pending[connection] = None
            connection.timer = self._reactor.callLater(HANDSHAKE, self._give_up, connection)

    def _give_up(self, connection: Connection) -> None:
        self.counts.refused["silent"] += 1
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        """Close one that came in and has not shown who is there."""
        self._pending.pop(connection, None)
        self._parting.add(connection)
        if connection.timer is not None and connection.timer.active():
            connection.timer.cancel()
        connection.abort()

    # What becomes of connections

    def identify(self, connection: Connection) -> None:
        """A handshake is over: let the other end in, or tell it why not."""
        assert self.tls is not None
        dial = connection.dial
        if self._pending.pop(connection, 0) is None and connection.timer is not None:
            connection.timer.cancel()
        try:
            connection.peer = self.tls.accepts(connection.handle, None if dial is None else dial.name)
        except RefusedError as refusal:
            self._say_goodbye(connection, refusal.text)
            self._deny(connection.who, refusal, dial)
            return
        if dial is None:
            self.open(connection)

    def open(self, connection: Connection) -> None:
        """Tell the core that a connection stands."""
        dial = connection.dial
        if dial is None:
            self.counts.accepted += 1
            connection.number = self._core.accept()
        elif self._settle(dial.link) is not None:
            self.counts.dialled += 1
        else:
            return
        connection.is_open = True
        self._links[connection.number] = connection
        cast("Any", connection.transport).registerProducer(connection, True)
        name = None if connection.peer is None else connection.peer.name
        endpoint = str(connection.other) if dial is None else dial.endpoint
        self._do(lambda now: self._core.opened(connection.number, name, endpoint, dial is not None, now))

    def receive(self, connection: Connection, data: bytes) -> None:
        """Bytes for the core; the first ones over a connection that we opened say that we are let in."""
        if not connection.is_open and connection.peer is not None and connection.dial is not None:
            self.open(connection)
        if connection.is_open and not self._leaving:
            self._do(lambda now: self._core.feed((connection.number, data), now))

    def room(self, connection: Connection, room: bool) -> None:
        """Whether a connection takes more."""
        if connection.is_open:
            self._do(lambda _: self._core.writable(connection.number, room))

    def lost(self, connection: Connection, reason: Failure) -> None:
        """A connection is gone."""
        was_pending = self._pending.pop(connection, 0) is None
        self._parting.discard(connection)
        if connection.is_open:
            connection.is_open = False
            del self._links[connection.number]
            text = "closed by the other end" if reason.check(error.ConnectionDone) else "the connection was lost"
            self._do(lambda now: self._core.closed(connection.number, now, text))
        elif connection.dial is not None:
            self._broken_off(connection, connection.dial, reason)
        elif was_pending and reason.check(SSL.Error):
            assert self.tls is not None
            self._deny(connection.who, self.tls.failure(connection.handle, reason), None)
        elif was_pending:
            self.counts.refused["silent"] += 1
        self._tell_drained()

    def _broken_off(self, connection: Connection, dial: Dial, reason: Failure) -> None:
        attempt = self._attempts.get(dial.link)
        if attempt is None:
            return
        attempt.connection = None
        if reason.check(SSL.Error) and self.tls is not None:
            self._deny(connection.who, self.tls.failure(connection.handle, reason), dial)
        else:
            # Whether that was a reset cannot be seen through TLS; the next dial shows whether anybody listens.
            self._unreached(dial, Reason.NO_ANSWER, f"{dial.endpoint} closed the connection before it spoke")

    # Refusals

    def _deny(self, who: str, refusal: RefusedError, dial: Dial | None) -> None:
        self.counts.refused[refusal.reason] += 1
        self._refused(who, refusal)
        if dial is not None:
            self._unreached(dial, Reason.CERTIFICATE, str(refusal))

    def _say_goodbye(self, connection: Connection, text: str) -> None:
        """The handshake was in order, so the other end can read why it is refused."""
        cast("Any", connection.transport).write(encode(Close(CloseCode.IDENTITY, text)))
        self._part(connection, graceful=True)

    def end_expired(self) -> None:
        """Close the links whose peers' certificates have expired since."""
        assert self.tls is not None
        now = self.tls.now()
        for number, connection in list(self._links.items()):
            text = expired(connection.peer, now) if connection.peer is not None else None
            if text is not None:
                del self._links[number]
                self.counts.refused["expired"] += 1
                self._refused(connection.who, RefusedError("expired", text))
                self._say_goodbye(connection, text)
                self._do(lambda at, number=number, text=text: self._core.closed(number, at, text))  # type: ignore[misc]

    # The end

    def leave(self) -> Deferred[None]:
        """Take nothing in any more; fires when no connection is left."""
        self._leaving = True
        for connection in list(self._pending):
            self._drop(connection)
        for link in list(self._attempts):
            attempt = self._settle(link)
            assert attempt is not None
            attempt.give_up()
            if attempt.connection is not None:
                self._parting.add(attempt.connection)
                attempt.connection.abort()
        self._names.close()
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        self._tell_drained()
        return done

    def cut(self) -> None:
        """Close at once what is left."""
        for connection in [*self._links.values(), *self._parting]:
            connection.abort()

    def _tell_drained(self) -> None:
        if not self._links and not self._parting:
            waiting, self._drained = self._drained, []
            for each in waiting:
                each.callback(None)


class _Incoming(twisted_protocol.Factory):
    noisy = False

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        connection = Connection(self._peers, _contact(addr), None)
        self._peers.await_handshake(connection)
        return connection


class _Door(twisted_protocol.Factory):
    """Turns away before anything is kept for a connection."""

    noisy = False

    def __init__(self, peers: Peers, inner: Any) -> None:
        self._peers = peers
        self._inner = inner

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._inner.buildProtocol(addr) if self._peers.admits(_contact(addr)) else None


class _Outgoing(twisted_protocol.Factory):
    noisy = False

    def __init__(self, peers: Peers, contact: Contact, dial: Dial) -> None:
        self._peers = peers
        self._contact = contact
        self._dial = dial

    def buildProtocol(self, addr: IAddress | None) -> Connection:  # noqa: ARG002 - where it is, the dial says
        return Connection(self._peers, self._contact, self._dial)


def _contact(addr: Any) -> Contact:
    """The other end of a socket."""
    return Contact(str(ip_address(addr.host)), addr.port)
