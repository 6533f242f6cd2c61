"""
TCP: who is accepted, and what all connections share.

Listeners hand keepalive and TCP_NODELAY down to what they accept, as Linux does.
At a limit a listener stops accepting, and who comes waits in the kernel's
backlog, until a connection ends.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from dcosnet.io.epoll import READ, InnerEpoll
from dcosnet.io.pipes import Pipes
from dcosnet.l4lb.connection import KEEPALIVE, NONBLOCKING, Connection
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.ends import BUFFER
from dcosnet.l4lb.idle import Idle
from dcosnet.l4lb.schedule import Schedule, Target

log = Logger()

BULK = 256 * 1024
# A pause after accept could not go on for want of descriptors, which others than
# our connections may give back: long enough not to spin, short enough for the
# backlog to hold who comes meanwhile.
PAUSE = 0.1
_ACCEPTS = 64
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@attrs.frozen
class Limits:
    """How many connections may be open at a time, and how long things may take, in seconds."""

    connections: int
    connect_timeout: float
    per_vip: int | None = None
    idle_timeout: float | None = None
    """After which a connection that moved nothing is ended."""
    pipes: int = 64
    """How many directions may wait with bytes in a pipe of splice."""
    bulk: int = BULK
    """What a direction has to move in large pieces until it is spliced."""


class Proxy:
    """What all TCP listeners share: the driver, limits, counts, and the connections that are open."""

    def __init__(self, epoll: InnerEpoll, clock: IReactorTime, limits: Limits, counts: Counts) -> None:
        self.epoll = epoll
        self.clock = clock
        self.limits = limits
        self.most = limits.connections
        """How many connections may be open now; see `allow`."""
        self.counts = counts
        self.view = memoryview(bytearray(BUFFER))
        self.pipes = Pipes(limits.pipes)
        self.bulk = limits.bulk
        self.ephemeral = _ephemeral_ports()
        """From which the kernel takes a port for a connection that names none."""
        self.connections: set[Connection] = set()
        self._idle = Idle(clock, self.connections, limits.idle_timeout)
        self._waiting: dict[TcpListener, None] = {}
        """Those that do not accept now, the first to go on first."""
        self._resume: IDelayedCall | None = None
        self._connecting: dict[Connection, float] = {}
        """Until when each may try its backend, in the order of these times: they all wait equally long."""
        self._late: IDelayedCall | None = None
        self._spare: int | None = None
        """A descriptor in reserve, so that whoever was accepted gets a backend."""

    def close(self) -> None:
        """Reset all connections and forget all timers; listeners must be closed already."""
        for connection in tuple(self.connections):
            connection.abort()
        self._idle.close()
        for timer in (self._late, self._resume):
            if timer is not None:
                timer.cancel()
        self._late = self._resume = None
        self._spend()
        self.pipes.close()

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
        self.epoll.add(listener.fd, READ, listener.ready)
        self._idle.start()

    def unwatch(self, listener: TcpListener) -> None:
        """Accept from it no longer."""
        self._waiting.pop(listener, None)
        self.epoll.remove(listener.fd)

    def room(self, listener: TcpListener) -> int:
        """How many more it may accept; zero or less at a limit."""
        room = self.most - self.counts.active
        if self.limits.per_vip is not None:
            return min(room, self.limits.per_vip - listener.active)
        return room

    def allow(self, connections: int) -> None:
        """Let so many connections be open from now on, as far as the limit goes; none that is open ends for it."""
        before, self.most = self.most, min(connections, self.limits.connections)
        if self.most > before:
            self._wake()

    def pause(self, listener: TcpListener) -> None:
        """Accept nothing from it until a connection has ended; who comes waits in the backlog."""
        self._waiting[listener] = None
        self.epoll.modify(listener.fd, 0)

    def starve(self, listener: TcpListener) -> None:
        """The same for want of descriptors or memory, which others may give back too; one that is closed stays so."""
        self.counts.accept_errors += 1
        if listener.open:
            self.pause(listener)
        if self._waiting:
            self._go_on_after(PAUSE)

    def waits(self, listener: TcpListener) -> bool:
        """Whether nothing is accepted from it now."""
        return listener in self._waiting

    def ended(self, connection: Connection) -> None:
        """A connection is no more; who waited for that goes on after this turn."""
        self.connections.remove(connection)
        self._connecting.pop(connection, None)
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            self._go_on_after(0)

    def _go_on_after(self, seconds: float) -> None:
        if self._resume is not None:
            self._resume.cancel()
        self._resume = self.clock.callLater(seconds, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        for listener in tuple(self._waiting):
            if self._resume is not None:
                return  # still no descriptors
            if self.room(listener) > 0:
                del self._waiting[listener]
                self.epoll.modify(listener.fd, READ)
                listener.ready(READ)

    # --- descriptors ---

    def spared(self) -> bool:
        """Whether there is a descriptor in reserve, so that somebody may be accepted."""
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)
        return self._spare is not None

    def socket(self, family: int) -> socket.SocketType | None:
        """A socket for a backend, by means of the reserve if need be; None when there is none to be had."""
        try:
            return socket.SocketType(family, NONBLOCKING)
        except OSError:
            self._spend()
        try:
            return socket.SocketType(family, NONBLOCKING)
        except OSError:
            return None

    def _spend(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    # --- connect timeouts ---

    def expect(self, connection: Connection) -> None:
        """Give up this connection's present backend after the connect timeout."""
        self._connecting[connection] = self.clock.seconds() + self.limits.connect_timeout
        if self._late is None:
            self._late = self.clock.callLater(self.limits.connect_timeout, self._expire)

    def reached(self, connection: Connection) -> None:
        """It has a backend, or asks the next."""
        self._connecting.pop(connection, None)

    def _expire(self) -> None:
        self._late = None
        now = self.clock.seconds()
        late = []
        for connection, until in self._connecting.items():
            if until > now:
                self._late = self.clock.callLater(until - now, self._expire)
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
        self.active = 0
        """Connections that came from it and are open."""
        self.open = True
        """Connections that came from it may outlive it."""
        self.family = int(sock.family)
        self._burst = 1
        """How many to accept at a time: about as many as came the last time."""
        self._socket = sock
        self.fd = sock.fileno()
        # socket.accept() is this, and enums and a wrapper that cost as much again.
        self._accept = sock._accept  # type: ignore[attr-defined]  # noqa: SLF001
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in KEEPALIVE:
            sock.setsockopt(*option)
        proxy.watch(self)

    def close(self) -> None:
        """Stop listening; connections that were accepted go on."""
        self.open = False
        self._proxy.unwatch(self)
        self._socket.close()

    def ready(self, _mask: int) -> None:
        """
        Accept a few of who waits.

        To ask in vain is dear, as the kernel makes a socket first; so it is
        rarely asked for more than there are, and told again of those that are left.
        """
        proxy = self._proxy
        room = proxy.room(self)
        if room <= 0:
            proxy.counts.accept_paused += 1
            proxy.pause(self)
            return
        for taken in range(min(self._burst, room)):
            if not proxy.spared():
                proxy.starve(self)
                return
            try:
                descriptor, _address = self._accept()
            except BlockingIOError:
                self._burst = max(1, taken)
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    proxy.starve(self)
                    return
                continue  # that client has gone again (accept(2), "Error handling")
            client = socket.SocketType(self.family, NONBLOCKING, 0, descriptor)
            client.setblocking(False)
            Connection(proxy, self, client)
            if proxy.waits(self):
                return
        self._burst = min(_ACCEPTS, self._burst + 1)


def _ephemeral_ports() -> range:
    """The ports that the kernel gives to those who name none; all, where it does not tell."""
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return range(int(first), int(last) + 1)
    except (OSError, ValueError):
        return range(65536)
