"""A TCP connection: a client, and the way to a backend for it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from dcosnet.io.epoll import READ, WRITE
from dcosnet.l4lb.ends import End
from dcosnet.l4lb.schedule import Target
from dcosnet.l4lb.tally import Reason

if TYPE_CHECKING:
    from dcosnet.l4lb.tcp import Proxy, TcpListener

NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # in one call instead of two
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""Options that find a peer whose host has vanished: after a minute of silence, and another of probes."""

_NODELAY = (int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY), 1)
_WAIT = frozenset({0, errno.EINPROGRESS})
_REASONS = {errno.ECONNREFUSED: Reason.REFUSED, errno.ETIMEDOUT: Reason.TIMEOUT}


class Connection:
    """
    A client and, once one was asked, its backend.

    Each backend is tried at most once. The client notices nothing of those that
    failed, as nothing is read from it before one is there.
    """

    __slots__ = (
        "_asked",
        "_tried",
        "client",
        "listener",
        "over",
        "proxy",
        "quiet",
        "seen",
        "server",
        "target",
        "unserved",
    )

    def __init__(self, proxy: Proxy, listener: TcpListener, client: socket.SocketType) -> None:
        self.proxy = proxy
        self.listener = listener
        self.client = End(self, client, proxy.view)
        self.server: End | None = None
        self.target: Target | None = None
        self._tried: tuple[Target, ...] = ()
        self._asked = 0.0
        """When the present backend was asked."""
        self.over = False
        self.unserved = False
        """Whether its backend ended it first, without an answer to what it was asked."""
        self.seen = -1
        self.quiet = 0
        """What `idle` saw when it last came by, and how often it was the same."""
        proxy.counts.connections += 1
        proxy.counts.active += 1
        listener.active += 1
        proxy.connections.add(self)
        self._reach()

    def _reach(self) -> None:
        """Ask one backend after the other, until one is there or may yet come; without any, refuse the client."""
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
            sock = proxy.socket(self.listener.family)
            if sock is None:
                self.starved()
                return
            sock.setsockopt(*_NODELAY)
            status = sock.connect_ex(target.sockaddr)
            if status in _WAIT:
                # The handshake with a backend on this host is over by now.
                status = self._status(sock, target)
            if not status or status == errno.EAGAIN:
                break
            sock.close()
            self._failed(target, status)
        self.target = target
        target.active += 1
        server = self.server = End(self, sock, proxy.view)
        server.peer, self.client.peer = self.client, server
        if not status:
            self._begin(proxy.epoll.add)
            return
        try:
            proxy.epoll.add(server.fd, WRITE, self._answered)
        except OSError:
            self.starved()
            return
        proxy.expect(self)

    def _status(self, sock: socket.SocketType, target: Target) -> int:
        """Zero once the backend is there, EAGAIN while it is being reached, or why it cannot be."""
        try:
            sock.send(b"")  # sends nothing, and says which of these it is
        except OSError as error:
            return error.errno or errno.EIO
        if target.sockaddr[1] in self.proxy.ephemeral and sock.getsockname()[:2] == target.sockaddr:
            # Nobody listens there, and the kernel took that very port as ours:
            # TCP connects such a socket to itself (RFC 9293 3.5, simultaneous open).
            return errno.ECONNREFUSED
        return 0

    def _answered(self, _mask: int) -> None:
        """The backend answered, one way or the other."""
        server, target = self.server, self.target
        assert server is not None
        assert target is not None
        status = self._status(server.socket, target)
        if status == errno.EAGAIN:
            return
        if status:
            self._give_up(status)
            return
        self.proxy.reached(self)
        self._begin(self.proxy.epoll.rebind)

    def _begin(self, watch: Callable[[int, int, Callable[[int], None]], None]) -> None:
        """There is a backend: watch it, and pass on what both sides say."""
        server, client, target, proxy = self.server, self.client, self.target, self.proxy
        assert server is not None
        assert target is not None
        now = proxy.clock.seconds()
        self.listener.schedule.worked(target, now, now - self._asked)
        self._tried = ()
        try:
            watch(server.fd, server.mask, server.ready)
            # Most clients speak first, and have done so by now: this saves a turn.
            client.ready(READ)
            if not self.over:
                proxy.epoll.add(client.fd, client.mask, client.ready)
        except OSError:
            self.starved()

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
        self._reach()

    def starved(self) -> None:
        """There is no descriptor or memory for it: not the backend's fault, and no other would fare better."""
        self.abort()
        self.proxy.starve(self.listener)

    def _failed(self, target: Target, status: int) -> None:
        reason = _REASONS.get(status, Reason.UNREACHABLE)
        self.proxy.counts.failed(reason)
        self.listener.schedule.failed(target, self.proxy.clock.seconds(), reason)

    @property
    def moved(self) -> int:
        """Bytes that were passed on, both directions together."""
        moved = 0
        for end in (self.client, self.server):
            if end is not None:
                moved += end.count - end.held
        return moved

    def probe(self) -> None:
        """Have the backend probed while it is silent; clients are probed from the start."""
        if self.server is not None:
            for option in KEEPALIVE:
                self.server.socket.setsockopt(*option)

    def silent(self, end: End) -> None:
        """An end ends without a byte; of a backend that was asked, and still is, that is no service."""
        client = self.client
        self.unserved = end is self.server and client.count > 0 and not client.finished

    def close(self) -> None:
        """Both directions are done."""
        self._end(End.close)

    def abort(self, broken: End | None = None) -> None:
        """Reset both sides; `broken` is the one that was found so."""
        if broken is not None and not broken.count and not self.over:
            self.silent(broken)
        self._end(End.reset)

    def _end(self, end: Callable[[End], None]) -> None:
        if self.over:
            return
        self.over = True
        proxy, client, server, target = self.proxy, self.client, self.server, self.target
        counts = proxy.counts
        counts.active -= 1
        self.listener.active -= 1
        counts.to_backend += client.count
        end(client)
        if server is not None and target is not None:
            counts.to_client += server.count
            tally = target.tally
            tally.to_backend += client.count
            tally.to_client += server.count
            target.active -= 1
            if self.unserved:
                self.listener.schedule.ended(target, proxy.clock.seconds(), served=False)
            elif server.count and target.standing is not None:
                self.listener.schedule.ended(target, proxy.clock.seconds(), served=True)
            end(server)
            # The ends know each other: without this the memory of each
            # connection would wait for the garbage collector.
            del client.peer, server.peer
        del self.client, self.server
        proxy.ended(self)
