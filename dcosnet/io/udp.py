"""
UDP sockets as plain readers of the reactor.

Twisted's own port spends more on an event than DNS spends on an answer; here
one wake-up reads up to BATCH datagrams and sends the replies that are ready. A
socket bound to a wildcard address replies from the address that was asked.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.errors import DcosnetError
from dcosnet.model.net import Endpoint, parse_address

log = Logger()

BATCH = 128  # datagrams in one wake-up, so that a flood does not starve TCP and timers
SIZE = 4096  # octets; no DNS message over UDP of ours is longer, the rest of a longer one is lost
RECEIVE_BUFFER = 1 << 20  # bytes; 8 KiB lost queries in bursts (spec/dns.md 6.1, D31)

Sender = tuple[Any, ...]
"""Where a datagram came from; its first item is the address as text. Opaque otherwise."""

Receive = Callable[[bytes, Sender], bytes | None]
"""Takes a datagram; what it returns is sent back at once."""


class CannotBind(DcosnetError):  # noqa: N818 - as CannotListenError
    """An address that this process cannot listen on: which, why, and the remedy."""

    def __init__(self, protocol: str, endpoint: Endpoint, error: OSError | str) -> None:
        super().__init__(protocol, endpoint, error)
        self.protocol = protocol
        self.endpoint = endpoint
        self.error = error

    def __str__(self) -> str:
        number = self.error.errno if isinstance(self.error, OSError) else None
        reason = os.strerror(number) if number else str(self.error)
        remedy = _REMEDIES.get(os.strerror(number) if number else "", "check the address")
        return f"cannot listen on {self.protocol} {self.endpoint}: {reason}; {remedy}"


_REMEDIES = {
    "Address already in use": "stop what listens there (ss -lunpt shows it) or configure another port",
    "Cannot assign requested address": "this host does not have the address; add it or configure another",
    "Permission denied": "ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it or use a higher port",
}


class Datagrams(Protocol):
    """A socket that is open: sends, tells its own address and how much the system did not take, and closes."""

    endpoint: Endpoint
    unsent: int

    def send(self, data: bytes, to: Sender | None = None) -> bool:
        """Send to a sender, or to the peer of a connected socket; False when the system refused."""

    def start(self, receive: Receive, failed: Callable[[], None] = lambda: None) -> None:
        """
        Begin to receive.

        `failed` is called when the host of a connected socket's peer says that nobody listens.
        """

    def close(self) -> None:
        """End; idempotent."""


class Udp(Protocol):
    """What opens sockets; `testing.memory_udp` is the other one."""

    def bind(self, endpoint: Endpoint) -> Datagrams:
        """Take an address; port 0 is any. Raises CannotBind."""

    def connect(self, endpoint: Endpoint) -> Datagrams:
        """A socket with a port of its own that hears this peer only. Raises OSError."""


class RealUdp:
    """The host's sockets, read by a reactor."""

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor

    def bind(self, endpoint: Endpoint) -> Datagrams:
        """Take an address; port 0 is any. Raises CannotBind."""
        sock = _socket(endpoint)
        try:
            wildcard = endpoint.address.is_unspecified
            if endpoint.address.version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(endpoint.address), endpoint.port))
            if wildcard:
                _ask_for_destination(sock, endpoint.address.version)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        except OSError as error:
            sock.close()
            raise CannotBind("UDP", endpoint, error) from None
        kind = _WildcardSocket if wildcard else UdpSocket
        return kind(self._reactor, sock)

    def connect(self, endpoint: Endpoint) -> Datagrams:
        """A socket that hears this peer only. Raises OSError."""
        sock = _socket(endpoint)
        try:
            sock.connect((str(endpoint.address), endpoint.port))
        except OSError:
            sock.close()
            raise
        return UdpSocket(self._reactor, sock)


@implementer(IReadDescriptor)
class UdpSocket:
    """One non-blocking socket. `unsent` counts what the system did not take."""

    def __init__(self, reactor: IReactorFDSet, sock: socket.socket) -> None:
        host, port = sock.getsockname()[:2]
        self.endpoint = Endpoint(parse_address(host.partition("%")[0]), port)
        self.unsent = 0
        self._reactor = reactor
        self._socket = sock
        self._receive: Receive
        self._failed: Callable[[], None]
        self._open = True

    def start(self, receive: Receive, failed: Callable[[], None] = lambda: None) -> None:
        """Begin to receive."""
        self._receive = receive
        self._failed = failed
        self._reactor.addReader(self)

    def close(self) -> None:
        """End; idempotent."""
        if self._open:
            self._open = False
            self._reactor.removeReader(self)
            self._socket.close()

    def send(self, data: bytes, to: Sender | None = None) -> bool:
        """Send to a sender, or to the peer of a connected socket; False when the system refused."""
        if not self._open:
            return False
        try:
            if to is None:
                self._socket.send(data)
            else:
                self._socket.sendto(data, to)
        except OSError:
            self.unsent += 1
            return False
        return True

    def doRead(self) -> None:
        """Serve one wake-up."""
        try:
            self._serve()
        except Exception:  # noqa: BLE001 - the driver's catch-all (architecture section 5)
            # The reactor would close a socket that raises, and with it the server.
            log.failure("A datagram on {endpoint} was not taken", endpoint=self.endpoint)

    def _serve(self) -> None:
        receive, recvfrom, sendto = self._receive, self._socket.recvfrom, self._socket.sendto
        for _ in range(BATCH):
            try:
                data, sender = recvfrom(SIZE)
            except BlockingIOError:
                return
            except OSError:
                self._failed()  # an ICMP error of something sent before; only connected sockets hear it
                if not self._open:
                    return
                continue
            reply = receive(data, sender)
            if reply is not None:
                try:
                    sendto(reply, sender)
                except OSError:
                    self.unsent += 1
            elif not self._open:
                return

    def fileno(self) -> int:
        """The descriptor, for the reactor; -1 once closed."""
        return self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor gave it up.

        That is how epoll tells of an ICMP error while nothing is to be read;
        the socket is as good as before. At the reactor's end it is the end.
        """
        if not reason.check(ConnectionDone) or not self._open:
            self.close()
            return
        self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # clears it
        self._failed()
        if self._open:
            self._reactor.addReader(self)

    def logPrefix(self) -> str:
        """Who it is in the reactor's own messages."""
        return "udp"


class _WildcardSocket(UdpSocket):
    """Bound to no address in particular: each sender carries the address it asked."""

    def send(self, data: bytes, to: Sender | None = None) -> bool:
        assert to is not None
        if not self._open:
            return False
        try:
            self._socket.sendmsg([data], to[-1], 0, to[:-1])
        except OSError:
            self.unsent += 1
            return False
        return True

    def _serve(self) -> None:
        for _ in range(BATCH):
            try:
                data, ancillary, _, address = self._socket.recvmsg(SIZE, 128)
            except BlockingIOError:
                return
            except OSError:
                continue
            sender = (*address, [_source(level, kind, value) for level, kind, value in ancillary])
            reply = self._receive(data, sender)
            if reply is not None:
                self.send(reply, sender)
            if not self._open:
                return


_PKTINFO = getattr(socket, "IP_PKTINFO", 8)  # Python names it from 3.12 or so on; 8 on Linux


def _ask_for_destination(sock: socket.socket, version: int) -> None:
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def _source(level: int, kind: int, value: bytes) -> tuple[int, int, bytes]:
    """The control message that makes a reply leave from where the query arrived."""
    if level == socket.IPPROTO_IP and kind == _PKTINFO:
        # Interface 0 lets the route decide; the local address is ipi_spec_dst.
        return level, kind, struct.pack("@i4s4s", 0, value[8:12], b"\0" * 4)
    return level, kind, value


def _socket(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
