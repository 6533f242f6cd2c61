"""
A UDP network in memory: sockets that deliver when they are told to.

It has the shape of `io.udp.Udp`. What is sent lies in `sent` and in `flight`
until `deliver` carries it; nothing is lost or reordered unless the test does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address

import attrs

from dcosnet.io.udp import CannotBind, Receive, Sender
from dcosnet.model.net import Endpoint


@attrs.frozen
class Datagram:
    """Something on its way."""

    source: Endpoint
    target: Endpoint
    data: bytes


class MemorySocket:
    """One end; as `io.udp.Datagrams`."""

    def __init__(self, net: MemoryUdp, endpoint: Endpoint, peer: Endpoint | None) -> None:
        self.endpoint = endpoint
        self.unsent = 0
        self.peer = peer
        self._net = net
        self._receive: Receive | None = None
        self._failed: Callable[[], None] = lambda: None

    def start(self, receive: Receive, failed: Callable[[], None] = lambda: None) -> None:
        """Begin to receive."""
        self._receive = receive
        self._failed = failed

    def send(self, data: bytes, to: Sender | None = None) -> bool:
        """Put a datagram into flight; False once closed."""
        if self._net.sockets.get(self.endpoint) is not self:
            return False
        if to is None:
            assert self.peer is not None
            target = self.peer
        else:
            target = to[-1]
        self._net.carry(Datagram(self.endpoint, target, data))
        return True

    def close(self) -> None:
        """End; idempotent."""
        if self._net.sockets.get(self.endpoint) is self:
            del self._net.sockets[self.endpoint]

    def refused(self) -> None:
        """Hear that nobody listens where something was sent."""
        self._failed()

    def arrive(self, datagram: Datagram) -> None:
        """Take a datagram, if a socket of the system would."""
        if self._receive is None or (self.peer is not None and datagram.source != self.peer):
            return
        reply = self._receive(datagram.data, (str(datagram.source.address), datagram.source.port, datagram.source))
        if reply is not None:
            self._net.carry(Datagram(self.endpoint, datagram.source, reply))


class MemoryUdp:
    """All sockets of one pretended host; a closed port answers as ICMP does."""

    def __init__(self) -> None:
        self.sockets: dict[Endpoint, MemorySocket] = {}
        self.flight: deque[Datagram] = deque()
        self.sent: list[Datagram] = []
        self._port = 40000

    def bind(self, endpoint: Endpoint) -> MemorySocket:
        """Listen; port 0 is any. Raises CannotBind."""
        if endpoint.port == 0:
            endpoint = Endpoint(endpoint.address, self._free_port())
        if endpoint in self.sockets:
            raise CannotBind("UDP", endpoint, OSError(98, "in use"))
        return self._open(MemorySocket(self, endpoint, None))

    def connect(self, endpoint: Endpoint) -> MemorySocket:
        """A socket that hears one peer only."""
        own = Endpoint(IPv4Address("127.0.0.1"), self._free_port())
        return self._open(MemorySocket(self, own, endpoint))

    def carry(self, datagram: Datagram) -> None:
        """Put a datagram into flight, from anybody: a test may forge its source."""
        self.sent.append(datagram)
        self.flight.append(datagram)

    def deliver(self, limit: int = 1000) -> None:
        """Deliver what is in flight, and what that causes, in order."""
        while self.flight and limit:
            limit -= 1
            datagram = self.flight.popleft()
            target = self.sockets.get(datagram.target)
            if target is not None:
                target.arrive(datagram)
            elif (source := self.sockets.get(datagram.source)) is not None:
                source.refused()

    def _open(self, sock: MemorySocket) -> MemorySocket:
        self.sockets[sock.endpoint] = sock
        return sock

    def _free_port(self) -> int:
        self._port += 1
        return self._port
