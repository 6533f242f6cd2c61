"""
UDP: a flow per client address, each with a connected socket to its backend.

Connected sockets tell of ICMP errors: a backend that has no such port refuses,
and the flow goes to another one with the datagram that was lost. Replies leave
through the listener's socket, so they come from the VIP's address. A flow ends
when it has been idle, or has to make room.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dcosnet.io.epoll import READ, InnerEpoll
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.flows import Flows
from dcosnet.l4lb.schedule import Schedule, Target
from dcosnet.l4lb.tally import Reason

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_DATAGRAM = 65535
_BATCH = 64
# Of an unanswered flow the last datagram is kept, to be sent again. A larger one
# is not: thousands of flows would hold hundreds of megabytes.
KEPT = 9216

Client = tuple[object, ...]
"""A socket address as the socket module gives it."""


class Relay:
    """What all UDP listeners share: the driver, counts, and the flows."""

    def __init__(self, epoll: InnerEpoll, clock: IReactorTime, flows: Flows[Client, Flow], counts: Counts) -> None:
        self.epoll = epoll
        self.clock = clock
        self.flows = flows
        self.counts = counts
        self.view = memoryview(bytearray(_DATAGRAM))
        self._sweep: IDelayedCall | None = None

    def close(self) -> None:
        """End all flows and forget the timer."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for flow in self.flows.drain():
            flow.close()

    def keep(self, key: Client, flow: Flow) -> None:
        """Take a new flow; one that was idle may have to go."""
        evicted = self.flows.put(key, flow, self.clock.seconds())
        if evicted is not None:
            evicted.close()
        self._schedule()

    def _schedule(self) -> None:
        due = self.flows.due()
        if self._sweep is None and due is not None:
            self._sweep = self.clock.callLater(max(0.0, due - self.clock.seconds()), self._expire)

    def _expire(self) -> None:
        self._sweep = None
        for flow in self.flows.expire(self.clock.seconds()):
            flow.close()
        self._schedule()


class UdpListener:
    """
    One UDP socket with its service.

    The socket is the listener's, who closes it, once the constructor is through;
    it raises OSError where the epoll takes no more.
    """

    def __init__(self, relay: Relay, sock: socket.socket, schedule: Schedule) -> None:
        self.relay = relay
        self.schedule = schedule
        self.family = sock.family
        self._socket = sock
        self.fd = sock.fileno()
        relay.epoll.add(self.fd, READ, self.ready)

    def close(self) -> None:
        """Stop listening. Its flows end too: without the socket no reply could come from the VIP."""
        self.relay.epoll.remove(self.fd)
        for flow in self.relay.flows.drain(lambda key: key[0] is self):
            flow.close()
        self._socket.close()

    def ready(self, _mask: int) -> None:
        """Pass on what clients sent, a few at a time."""
        relay = self.relay
        view = relay.view
        now = relay.clock.seconds()
        for _ in range(_BATCH):
            try:
                length, client = self._socket.recvfrom_into(view)
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error for a reply: that client has gone.
                relay.counts.udp_dropped += 1
                continue
            key = (self, *client)
            flow = relay.flows.get(key, now)
            if flow is not None and flow.target not in self.schedule:
                flow.close()
                relay.flows.pop(key)
                flow = None
            if flow is None:
                flow = Flow.begin(self, key)
                if flow is None:
                    continue
                relay.keep(key, flow)
            flow.forward(view[:length])

    def reply(self, data: ReadableBuffer, client: Client) -> None:
        """Send to a client from the VIP's address."""
        try:
            self._socket.sendto(data, client)
        except OSError:
            self.relay.counts.udp_dropped += 1


class Flow:
    """A client's datagrams to one backend and back."""

    __slots__ = ("_client", "_key", "_listener", "_pending", "_socket", "_tried", "target")

    def __init__(self, listener: UdpListener, key: Client, target: Target, sock: socket.socket) -> None:
        self._listener = listener
        self._key = key
        self._client = key[1:]
        self._tried: tuple[Target, ...] = (target,)
        self._pending: bytes | None = None
        """The last datagram, until the backend has shown that it is there."""
        self._attach(target, sock)

    @classmethod
    def begin(cls, listener: UdpListener, key: Client) -> Flow | None:
        """A flow to a backend; None, and counted, when there is none."""
        found = _reach(listener, ())
        if found is None:
            return None
        try:
            return cls(listener, key, *found)
        except OSError:
            listener.relay.counts.udp_dropped += 1
            return None

    def _attach(self, target: Target, sock: socket.socket) -> None:
        """Take a socket to a backend. Raises OSError, with the socket closed, when epoll refuses it."""
        try:
            self._listener.relay.epoll.add(sock.fileno(), READ, self.ready)
        except OSError:
            sock.close()
            raise
        self.target = target
        self._socket = sock
        target.active += 1
        target.tally.flows += 1

    def close(self) -> None:
        """Close its socket; whoever closes it takes it out of the table."""
        self.target.active -= 1
        self._listener.relay.epoll.remove(self._socket.fileno())
        self._socket.close()

    def forward(self, data: memoryview) -> None:
        """Send a client's datagram to the backend."""
        if not self._send(data):
            self._move([bytes(data)] if self._pending is None else [self._pending, bytes(data)])

    def _send(self, data: memoryview | bytes) -> bool:
        """False where the backend refused a datagram before this one; this one was not sent then."""
        counts = self._listener.relay.counts
        try:
            self._socket.send(data)
        except ConnectionRefusedError:
            return False
        except OSError:
            counts.udp_dropped += 1
            return True
        counts.to_backend += len(data)
        self.target.tally.to_backend += len(data)
        if self._tried:
            self._pending = bytes(data) if len(data) <= KEPT else None
        return True

    def ready(self, _mask: int) -> None:
        """Pass on what the backend sent, or move on when it refused."""
        relay = self._listener.relay
        view = relay.view
        for _ in range(_BATCH):
            try:
                length = self._socket.recv_into(view)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                self._move([] if self._pending is None else [self._pending])
                return
            except OSError:
                relay.counts.udp_dropped += 1
                return
            self._tried, self._pending = (), None
            self._listener.schedule.answered(self.target)
            self.target.tally.to_client += length
            relay.flows.get(self._key, relay.clock.seconds())
            relay.counts.to_client += length
            self._listener.reply(view[:length], self._client)

    def _move(self, datagrams: list[bytes]) -> None:
        """Leave a backend that refused, and send what it lost to the next that does not refuse at once."""
        listener = self._listener
        relay = listener.relay
        self._tried = self._tried or (self.target,)
        while True:
            relay.counts.connect_refused += 1
            listener.schedule.failed(self.target, relay.clock.seconds(), Reason.REFUSED)
            self.close()
            found = _reach(listener, self._tried)
            if found is None:
                relay.flows.pop(self._key)
                return
            target, sock = found
            try:
                self._attach(target, sock)
            except OSError:
                relay.counts.udp_dropped += 1
                relay.flows.pop(self._key)
                return
            relay.counts.retries += 1
            target.tally.retries += 1
            self._tried, self._pending = (*self._tried, target), None
            if all(map(self._send, datagrams)):
                return


def _reach(listener: UdpListener, tried: tuple[Target, ...]) -> tuple[Target, socket.socket] | None:
    """A backend that was not tried, with a socket connected to it; None, and counted, when there is none."""
    relay = listener.relay
    while True:
        now = relay.clock.seconds()
        target = listener.schedule.pick(now, tried)
        if target is None:
            relay.counts.refused += 1
            return None
        try:
            sock = socket.socket(listener.family, socket.SOCK_DGRAM)
        except OSError:
            relay.counts.udp_dropped += 1
            return None
        sock.setblocking(False)
        status = sock.connect_ex(target.sockaddr)
        if not status and sock.getsockname()[:2] == target.sockaddr:
            # The kernel took the backend's own port as ours, so nobody else
            # is there: it would answer the client with its own datagrams.
            status = errno.ECONNREFUSED
        if not status:
            return target, sock
        sock.close()
        if status == errno.ECONNREFUSED:
            reason = Reason.REFUSED
            relay.counts.connect_refused += 1
        else:
            reason = Reason.UNREACHABLE
            relay.counts.connect_unreachable += 1
        listener.schedule.failed(target, now, reason)
        tried = (*tried, target)
