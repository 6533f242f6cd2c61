"""
A TCP connection: reach a backend, then copy both ways.

A connection is two ends. Each end reads into one buffer that all connections
share and sends to its peer at once; what the peer does not take is kept with the
peer, and the reading end waits until it has gone (backpressure). A direction that
moves much changes to splice(2). The end of one direction travels as a half-close;
an error of either end resets both, so that neither side takes a cut stream for a
complete one.

Both are watched edge-triggered (epoll(7)): an event is told once. An end that
stops before its socket is drained therefore has itself told again, or is called
when its peer has room.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dcosnet.io.epoll import EDGE, ERROR, HANGUP, READ, URGENT, WRITE
from dcosnet.io.pipes import SIZE, Pipe
from dcosnet.l4lb.schedule import Target
from dcosnet.l4lb.tally import Reason

if TYPE_CHECKING:
    from dcosnet.l4lb.tcp import Proxy, TcpListener

BUFFER = 64 * 1024
NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # in one call instead of two
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""Options that find a peer whose host has vanished: after a minute of silence, and another of probes."""

_WATCH = READ | HANGUP | URGENT | EDGE
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_NODELAY = (int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY), 1)
_LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 s
_WAIT = frozenset({0, errno.EINPROGRESS})
# Reads of one end before the others get their turn.
_TURNS = 16
# What a read has to bring to count as one of a bulk transfer.
_LARGE = 16 * 1024
# A transfer that brings less in one turn is about to end: it loses half of what it was known for.
_SLOW = 16 * 1024


class End:
    """One side of a connection: its socket, and what it has not taken yet."""

    __slots__ = (
        "blocked",
        "connection",
        "count",
        "ended",
        "fd",
        "finished",
        "mask",
        "peer",
        "pending",
        "pipe",
        "piped",
        "receive",
        "send",
        "socket",
        "streak",
        "view",
    )

    peer: End

    def __init__(self, connection: Connection, sock: socket.SocketType, view: memoryview) -> None:
        self.connection = connection
        self.socket = sock
        self.fd = sock.fileno()
        self.receive = sock.recv_into
        self.send = sock.send
        self.view = view
        self.mask = _WATCH
        self.count = 0
        """Bytes read from it; the proxy's counts take them when it closes."""
        self.streak = 0
        """Bytes it has said in large pieces lately; decides about splice."""
        self.ended = False
        """Whether an end or an error was told: its reads go on until they find it."""
        self.finished = False
        """Whether it has said its last byte."""
        self.blocked = False
        """Whether it did not take all that its peer said; its peer does not read meanwhile."""
        self.pending: bytes | memoryview = b""
        """What it has not taken."""
        self.pipe: Pipe | None = None
        self.piped = 0
        """What it has not taken of a direction that is spliced: so many bytes in this pipe."""

    def ready(self, mask: int) -> None:  # noqa: C901, PLR0911, PLR0912 - the hot path: each call would cost
        """Something was told by the driver: read what there is, and pass it on."""
        if mask != READ and not self._heed(mask):
            return
        peer = self.peer
        if peer.blocked:
            return
        view = self.view
        turns = _TURNS
        while turns:
            if self.streak and self.streak >= self.connection.proxy.bulk and self._splice():
                return
            try:
                length = self.receive(view)
            except BlockingIOError:
                return
            except OSError:
                self.connection.abort()
                return
            if not length:
                self._finish()
                return
            self.count += length
            try:
                sent = peer.send(view[:length])
            except BlockingIOError:
                sent = 0
            except OSError:
                peer.broke()
                return
            if sent < length:
                peer.pending = bytes(view[sent:length])
                peer.block()
                return
            if length < _LARGE:
                self.streak = 0
            else:
                self.streak += length
            if length < BUFFER and not self.ended:
                return  # that was all
            turns -= 1
        self._again()

    def _heed(self, mask: int) -> bool:
        """Take note of what is told besides bytes to read; whether there is something to read."""
        if mask & ~(READ | WRITE):
            self.ended = True
            if (
                mask & ERROR
                and (self.finished or self.peer.blocked)
                and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ):
                self.connection.abort()  # nobody would read to find it
                return False
        if mask & WRITE and self.blocked:
            self._flush()
            if self.connection.over:
                return False
        return not self.finished and mask & ~WRITE != 0

    def _splice(self) -> bool:
        """
        Read by splice, as long as there is something; False when there is no pipe for it.

        An empty pipe goes back to the pool at the end of each turn, so only
        those whose reader is slow hold one.
        """
        connection = self.connection
        pipes = connection.proxy.pipes
        pipe = pipes.take()
        if pipe is None:
            return False
        sink = pipe[1]
        peer = self.peer
        moved = 0
        for _ in range(_TURNS):
            try:
                length = os.splice(self.fd, sink, SIZE, flags=_SPLICE)
            except BlockingIOError:
                pipes.give(pipe)
                self.streak = self.streak + moved if moved >= _SLOW else self.streak // 2
                return True
            except OSError:
                pipes.give(pipe)
                connection.abort()
                return True
            if not length:
                pipes.give(pipe)
                self._finish()
                return True
            self.count += length
            moved += length
            peer.pipe, peer.piped = pipe, length
            if not peer.drain():
                return True
        pipes.give(pipe)
        self._again()
        return True

    def drain(self) -> bool:
        """Take what is in the pipe; False when some is left, and when that was the end."""
        assert self.pipe is not None
        source = self.pipe[0]
        try:
            while self.piped:
                self.piped -= os.splice(source, self.fd, self.piped, flags=_SPLICE)
        except BlockingIOError:
            self.block()
            return False
        except OSError:
            self.broke()
            return False
        self.pipe = None
        return True

    def block(self) -> None:
        """Be told when there is room again."""
        self.blocked = True
        if not self.mask & WRITE:
            self.mask |= WRITE
            self._again()

    def _again(self) -> None:
        """Be told anew of what is so now."""
        self.connection.proxy.epoll.modify(self.fd, self.mask)

    def _flush(self) -> None:
        """Take what is left; then the peer may read again, or its end travels."""
        pipe = self.pipe
        if pipe is not None:
            if not self.drain():
                return
            self.connection.proxy.pipes.give(pipe)
        else:
            try:
                sent = self.send(self.pending)
            except BlockingIOError:
                return
            except OSError:
                self.broke()
                return
            if sent < len(self.pending):
                self.pending = memoryview(self.pending)[sent:]
                return
            self.pending = b""
        self.blocked = False
        if self.peer.finished:
            self.half_close()
        else:
            self.peer.ready(READ)

    def _finish(self) -> None:
        """Nothing more comes from this end; tell the peer once it has all."""
        self.finished = True
        if not self.peer.blocked:
            self.peer.half_close()

    def broke(self) -> None:
        """
        It takes no more: pass on what it had said by then, and reset both.

        Without a proxy its peer could still read that: an answer that came before
        the request was complete, for example.
        """
        peer, view = self.peer, self.view
        with suppress(OSError):
            while not peer.blocked:
                length = self.receive(view)
                if not length:
                    break
                self.count += length
                if peer.send(view[:length]) < length:
                    break
        self.connection.abort()

    def half_close(self) -> None:
        """This end gets nothing more: say so, or close all when the other direction is done too."""
        if self.finished and not self.peer.blocked:
            self.connection.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.connection.abort()

    @property
    def held(self) -> int:
        """Bytes that it has not taken yet."""
        return self.piped or len(self.pending)

    def close(self) -> None:
        """Close the socket; not to be used again."""
        proxy = self.connection.proxy
        if self.pipe is not None:
            proxy.pipes.drop(self.pipe)
            self.pipe = None
        proxy.epoll.forget(self.fd)
        self.socket.close()

    def reset(self) -> None:
        """Close it so that the other side sees an error rather than an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.close()


class Connection:
    """
    A client and, once one was asked, its backend.

    Each backend is tried at most once. The client notices nothing of those that
    failed, as nothing is read from it before one is there.
    """

    __slots__ = ("_asked", "_tried", "client", "listener", "over", "proxy", "quiet", "seen", "server", "target")

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

    def close(self) -> None:
        """Both directions are done."""
        self._end(End.close)

    def abort(self) -> None:
        """Reset both sides."""
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
            end(server)
            # The ends know each other: without this the memory of each
            # connection would wait for the garbage collector.
            del client.peer, server.peer
        del self.client, self.server
        proxy.ended(self)
