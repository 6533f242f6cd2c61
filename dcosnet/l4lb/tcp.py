"""
TCP: accept, reach a backend, copy both ways.

A connection is two ends. Each end reads into one buffer that all connections
share and sends to its peer at once; what the peer does not take is kept with the
peer, and the reading end waits until it has gone (backpressure). The end of one
direction travels as a half-close; an error of either end resets both, so that
neither side takes a cut stream for a complete one.

Listeners hand keepalive and TCP_NODELAY down to what they accept, as Linux does.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from dcosnet.io.epoll import READ, WRITE, InnerEpoll
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.schedule import Schedule, Target
from dcosnet.l4lb.tally import Reason

log = Logger()

BUFFER = 64 * 1024
# A pause after accept could not go on: long enough not to spin, short enough
# for the backlog to hold who comes meanwhile.
PAUSE = 0.1
_ACCEPTS = 64
_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # in one call instead of two
_LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 s
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@attrs.frozen
class Limits:
    """How many connections may be open at a time, and how long a connect may take."""

    connections: int
    connect_timeout: float


class Proxy:
    """What all TCP listeners share: the driver, limits, counts, and the connections that are open."""

    def __init__(self, epoll: InnerEpoll, clock: IReactorTime, limits: Limits, counts: Counts) -> None:
        self.epoll = epoll
        self.clock = clock
        self.limits = limits
        self.counts = counts
        self.view = memoryview(bytearray(BUFFER))
        self.connections: set[Connection] = set()
        self._listening: set[TcpListener] = set()
        self._connecting: dict[Connection, float] = {}
        """Until when each may try its backend, in the order of these times: they all wait equally long."""
        self._sweep: IDelayedCall | None = None
        self._resume: IDelayedCall | None = None

    def close(self) -> None:
        """Reset all connections and forget all timers; listeners must be closed already."""
        for connection in tuple(self.connections):
            connection.abort()
        for timer in (self._sweep, self._resume):
            if timer is not None:
                timer.cancel()
        self._sweep = self._resume = None

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes to backends and to clients since the start, those of open connections included."""
        to_backend, to_client = self.counts.to_backend, self.counts.to_client
        for connection in self.connections:
            to_backend += connection.client.count
            if connection.server is not None:
                to_client += connection.server.count
        return to_backend, to_client

    def underway(self) -> Mapping[Target, tuple[int, int]]:
        """Bytes to and from each backend that its tally does not have yet, as their connections are open."""
        out: dict[Target, tuple[int, int]] = {}
        for connection in self.connections:
            target, server = connection.target, connection.server
            if target is not None and server is not None:
                to_backend, to_client = out.get(target, (0, 0))
                out[target] = to_backend + connection.client.count, to_client + server.count
        return out

    # --- accepting ---

    def watch(self, listener: TcpListener) -> None:
        """Accept from it from now on."""
        self.epoll.add(listener.fd, 0 if self.paused else READ, listener.ready)
        self._listening.add(listener)

    def unwatch(self, listener: TcpListener) -> None:
        """Accept from it no longer."""
        self._listening.discard(listener)
        self.epoll.remove(listener.fd)

    @property
    def paused(self) -> bool:
        """Whether nothing is accepted now."""
        return self._resume is not None

    def pause(self) -> None:
        """Accept nothing for a moment; who comes waits in the backlog."""
        if self._resume is None:
            self._watch_all(0)
            self._resume = self.clock.callLater(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._watch_all(READ)

    def _watch_all(self, mask: int) -> None:
        for listener in self._listening:
            self.epoll.modify(listener.fd, mask)

    # --- connect timeouts ---

    def expect(self, connection: Connection) -> None:
        """Give up this connection's present backend after the connect timeout."""
        self._connecting[connection] = self.clock.seconds() + self.limits.connect_timeout
        if self._sweep is None:
            self._sweep = self.clock.callLater(self.limits.connect_timeout, self._expire)

    def reached(self, connection: Connection) -> None:
        """It has a backend, or wants none any more."""
        self._connecting.pop(connection, None)

    def _expire(self) -> None:
        self._sweep = None
        now = self.clock.seconds()
        late = []
        for connection, until in self._connecting.items():
            if until > now:
                self._sweep = self.clock.callLater(until - now, self._expire)
                break
            late.append(connection)
        for connection in late:
            connection.timed_out()


class TcpListener:
    """
    One listening socket with its service.

    The socket is the listener's, who closes it, once the constructor is through;
    it raises OSError where the epoll takes no more.
    """

    def __init__(self, proxy: Proxy, sock: socket.socket, schedule: Schedule) -> None:
        self._proxy = proxy
        self.schedule = schedule
        self.family = sock.family
        self._socket = sock
        self.fd = sock.fileno()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        proxy.watch(self)

    def close(self) -> None:
        """Stop listening; connections that were accepted go on."""
        self._proxy.unwatch(self)
        self._socket.close()

    def ready(self, _mask: int) -> None:
        """Accept who waits, a few at a time."""
        proxy = self._proxy
        for _ in range(_ACCEPTS):
            if proxy.paused:
                return
            if proxy.counts.active >= proxy.limits.connections:
                proxy.counts.accept_paused += 1
                proxy.pause()
                return
            try:
                client, _address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    proxy.counts.accept_errors += 1
                    proxy.pause()
                    return
                continue  # that client has gone again (accept(2), "Error handling")
            client.setblocking(False)
            Connection(proxy, self, client)


class End:
    """One side of a connection: its socket, and what it has not taken yet."""

    __slots__ = (
        "closed",
        "connection",
        "count",
        "fd",
        "finished",
        "mask",
        "peer",
        "pending",
        "receive",
        "send",
        "socket",
    )

    peer: End

    def __init__(self, connection: Connection, sock: socket.socket) -> None:
        self.connection = connection
        self.socket = sock
        self.fd = sock.fileno()
        self.receive = sock.recv_into
        self.send = sock.send
        self.pending: bytes | None = None
        """What its peer read and it could not take; its peer does not read meanwhile."""
        self.finished = False
        """Whether it has said its last byte."""
        self.mask = -1
        """What epoll watches it for; -1 while it does not."""
        self.count = 0
        """Bytes read from it; the proxy's counts take them when it closes."""
        self.closed = False

    def ready(self, mask: int) -> None:
        """Called by the driver."""
        if mask & WRITE and self.pending is not None:
            self.flush()
        if mask & ~WRITE and not self.closed:
            if self.mask & READ:
                self.read()
            else:
                self.hung_up()

    def watch(self, mask: int) -> None:
        """Watch for these events from now on."""
        if mask != self.mask:
            epoll = self.connection.proxy.epoll
            if self.mask < 0:
                try:
                    epoll.add(self.fd, mask, self.ready)
                except OSError:
                    self.connection.starved()
                    return
            else:
                epoll.modify(self.fd, mask)
            self.mask = mask

    def read(self) -> None:
        """Read once and pass it on."""
        connection = self.connection
        peer = self.peer
        view = connection.proxy.view
        try:
            length = self.receive(view)
        except BlockingIOError:
            return
        except OSError:
            connection.abort()
            return
        if not length:
            self.finish()
            return
        self.count += length
        try:
            sent = peer.send(view[:length])
        except BlockingIOError:
            sent = 0
        except OSError:
            connection.abort()
            return
        if sent < length:
            peer.pending = bytes(view[sent:length])
            peer.watch(peer.mask | WRITE)
            self.watch(self.mask & ~READ)

    def flush(self) -> None:
        """Send what is pending; then the peer may read again, or its end travels."""
        assert self.pending is not None
        try:
            sent = self.send(self.pending)
        except BlockingIOError:
            return
        except OSError:
            self.connection.abort()
            return
        if sent < len(self.pending):
            self.pending = self.pending[sent:]
            return
        self.pending = None
        self.watch(self.mask & ~WRITE)
        if self.peer.finished:
            self.half_close()
        else:
            peer = self.peer
            peer.watch(max(peer.mask, 0) | READ)

    def finish(self) -> None:
        """Nothing more comes from this end; tell the peer once it has all."""
        self.finished = True
        peer = self.peer
        if peer.finished and peer.pending is None and self.pending is None:
            self.connection.close()
            return
        self.watch(self.mask & ~READ)
        if peer.pending is None:
            peer.half_close()

    def half_close(self) -> None:
        """This end gets nothing more: say so, or close all when the other direction is done too."""
        if self.finished and self.peer.pending is None:
            self.connection.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.connection.abort()

    def hung_up(self) -> None:
        """
        It reports an error or a hang-up while nobody reads it.

        An error resets the connection. A hang-up alone means that it has both
        got and sent its last byte and that some are still to be read: it is told
        again and again, so the end is not watched until there is room.
        """
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.connection.abort()
        elif self.mask >= 0:
            self.connection.proxy.epoll.remove(self.fd)
            self.mask = -1

    def close(self) -> None:
        """Close the socket; not to be used again."""
        self.closed = True
        if self.mask >= 0:
            self.connection.proxy.epoll.forget(self.fd)
        self.socket.close()

    def reset(self) -> None:
        """Close it so that the other side sees an error rather than an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.close()


class Connection:
    """
    A client and, once one was reached, its backend.

    Each backend is tried at most once. The client notices nothing of those that
    failed, as nothing was read from it before one answered.
    """

    __slots__ = ("_asked", "_tried", "client", "listener", "proxy", "server", "target")

    def __init__(self, proxy: Proxy, listener: TcpListener, client: socket.socket) -> None:
        self.proxy = proxy
        self.listener = listener
        self.client = End(self, client)
        self.server: End | None = None
        self.target: Target | None = None
        self._tried: tuple[Target, ...] = ()
        self._asked = 0.0
        """When the present backend was asked."""
        proxy.counts.connections += 1
        proxy.counts.active += 1
        proxy.connections.add(self)
        self._connect()

    def _connect(self) -> None:
        """Try the next backend; without any, refuse the client."""
        proxy = self.proxy
        schedule = self.listener.schedule
        while True:
            self._asked = now = proxy.clock.seconds()
            target = schedule.pick(now, self._tried)
            if target is None:
                proxy.counts.refused += 1
                self.abort()
                return
            if self._tried:
                proxy.counts.retries += 1
                target.tally.retries += 1
            self._tried = (*self._tried, target)
            try:
                sock = socket.socket(self.listener.family, _NONBLOCKING)
            except OSError:
                self.starved()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A backend whose host vanishes says nothing, and we answer the client's own probes.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            status = sock.connect_ex(target.sockaddr)
            if status in (0, errno.EINPROGRESS):
                break
            sock.close()
            self._failed(target, status)
        self.target = target
        target.active += 1
        server = self.server = End(self, sock)
        server.peer, self.client.peer = self.client, server
        try:
            proxy.epoll.add(server.fd, WRITE, self._connected)
        except OSError:
            self.starved()
            return
        server.mask = WRITE
        proxy.expect(self)

    def _connected(self, mask: int) -> None:
        """The backend answered, one way or the other."""
        server, target = self.server, self.target
        assert server is not None
        assert target is not None
        if mask != WRITE:
            status = server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self._give_up(status)
                return
        if server.socket.getsockname()[:2] == target.sockaddr:
            # Nobody listens there, and the kernel took that very port as ours:
            # TCP connects such a socket to itself (RFC 9293 3.5, simultaneous open).
            self._give_up(errno.ECONNREFUSED)
            return
        proxy = self.proxy
        proxy.reached(self)
        now = proxy.clock.seconds()
        self.listener.schedule.worked(target, now, now - self._asked)
        proxy.epoll.rebind(server.fd, READ, server.ready)
        server.mask = READ
        client = self.client
        client.watch(READ)
        if not client.closed:
            # Most clients speak first, and have done so by now: this saves a turn.
            client.read()

    def timed_out(self) -> None:
        """The backend did not answer in time."""
        self._give_up(errno.ETIMEDOUT)

    def _give_up(self, status: int) -> None:
        """Leave the present backend and try the next."""
        server, target = self.server, self.target
        assert server is not None
        assert target is not None
        self.proxy.reached(self)
        server.reset()
        del server.peer
        target.active -= 1
        self.server = self.target = None
        self._failed(target, status)
        self._connect()

    def starved(self) -> None:
        """There is no descriptor or memory for it: not the backend's fault, and no other would fare better."""
        self.proxy.counts.accept_errors += 1
        self.proxy.pause()
        self.abort()

    def _failed(self, target: Target, status: int) -> None:
        counts = self.proxy.counts
        if status == errno.ECONNREFUSED:
            reason = Reason.REFUSED
            counts.connect_refused += 1
        elif status == errno.ETIMEDOUT:
            reason = Reason.TIMEOUT
            counts.connect_timeout += 1
        else:
            reason = Reason.UNREACHABLE
            counts.connect_unreachable += 1
        self.listener.schedule.failed(target, self.proxy.clock.seconds(), reason)

    def close(self) -> None:
        """Both directions are done."""
        self._end(End.close)

    def abort(self) -> None:
        """Reset both sides."""
        self._end(End.reset)

    def _end(self, end: Callable[[End], None]) -> None:
        proxy = self.proxy
        if self not in proxy.connections:
            return
        proxy.connections.remove(self)
        proxy.reached(self)
        counts = proxy.counts
        counts.active -= 1
        counts.to_backend += self.client.count
        end(self.client)
        if self.server is not None and self.target is not None:
            counts.to_client += self.server.count
            tally = self.target.tally
            tally.to_backend += self.client.count
            tally.to_client += self.server.count
            self.target.active -= 1
            end(self.server)
            # The ends know each other: without this the memory of each
            # connection would wait for the garbage collector.
            del self.client.peer, self.server.peer
        del self.client, self.server
