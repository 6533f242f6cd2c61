"""
UDP: a flow per client address, each with a connected socket to its backend.

Connected sockets tell of ICMP errors: a backend that has no such port refuses,
one whose host is gone is unreachable, and the flow goes to another one with the
datagrams that were lost. Silence is no error: there are services that never
answer. Replies leave through the listener's socket, so they come from the VIP's
address. A flow ends when it has been idle, or has to make room.

Datagrams are taken in batches, and those of one flow are sent on with one call.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from socket import SocketType

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from dcosnet.io import mmsg
from dcosnet.io.epoll import ERROR, READ, InnerEpoll
from dcosnet.io.mmsg import Batch, Sender
from dcosnet.l4lb.counts import Counts
from dcosnet.l4lb.flows import Flows
from dcosnet.l4lb.schedule import Schedule, Target
from dcosnet.l4lb.tally import Reason

# Of what a flow sent since it was last answered, these are kept to be sent again:
# so many, none longer, none older. Thousands of flows hold no more than 64 MB.
KEPT = 4
KEPT_SIZE = 4096  # octets
KEPT_SECONDS = 5.0  # a router that finds nobody at an address tells after three

BUFFER = 1 << 20  # bytes; what a burst needs before we come to read it

MOVES: Mapping[int | None, Reason] = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ENOPROTOOPT: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.UNREACHABLE,
    errno.ENETUNREACH: Reason.UNREACHABLE,
    errno.EHOSTDOWN: Reason.UNREACHABLE,
    errno.ENETDOWN: Reason.UNREACHABLE,
    errno.EACCES: Reason.UNREACHABLE,  # "administratively prohibited" over IPv6
}
"""The errors, mostly those of ICMP, for which a flow leaves its backend."""

# linux/in.h, linux/in6.h: only with these is a connected socket told that a host
# is unreachable; Python does not name them.
_RECVERR = {int(socket.AF_INET): (int(socket.IPPROTO_IP), 11), int(socket.AF_INET6): (int(socket.IPPROTO_IPV6), 25)}
_MSG_ERRQUEUE = 0x2000
# As int and as the plain type: enumerations and the wrapper cost a new flow a fifth of its time.
_KIND = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
_EXTENDED_ERROR = struct.Struct("=I")
"""The start of struct sock_extended_err (linux/errqueue.h): its errno."""


class Relay:
    """What all UDP listeners share: the driver, counts, buffers and the flows."""

    def __init__(
        self,
        epoll: InnerEpoll,
        clock: IReactorTime,
        flows: Flows[Flow],
        counts: Counts,
        make_batch: Callable[[int], Batch] = mmsg.batch,
    ) -> None:
        self.epoll = epoll
        self.clock = clock
        self.flows = flows
        self.counts = counts
        self._make_batch = make_batch
        self._batches: dict[int, Batch] = {}
        self._sweep: IDelayedCall | None = None

    def batch(self, family: int) -> Batch:
        """The buffers that all sockets of a family take turns with."""
        found = self._batches.get(family)
        if found is None:
            found = self._batches[family] = self._make_batch(family)
        return found

    def close(self) -> None:
        """End all flows and forget the timer."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for flow in self.flows.drain():
            flow.close()

    def allow(self, flows: int) -> None:
        """Let there be so many flows from now on; the idlest make room."""
        self.flows.limit = flows
        for flow in self.flows.shrink():
            flow.close()

    def keep(self, flow: Flow, now: float) -> None:
        """Take a new flow; one that was idle may have to go."""
        evicted = self.flows.add(flow, now)
        if evicted is not None:
            evicted.close()
        if self._sweep is None:
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        due = self.flows.due()
        if due is not None:
            self._sweep = self.clock.callLater(max(0.0, due - now), self._expire)

    def _expire(self) -> None:
        self._sweep = None
        now = self.clock.seconds()
        for flow in self.flows.expire(now):
            flow.target.tally.idle_closed += 1
            flow.close()
        self._schedule(now)


class UdpListener:
    """
    One bound, non-blocking UDP socket with its service.

    Raises OSError from the constructor when it cannot be watched; the socket is the caller's then.
    """

    def __init__(self, relay: Relay, sock: socket.socket, schedule: Schedule) -> None:
        self.relay = relay
        self.schedule = schedule
        self.family = int(sock.family)
        self.batch = relay.batch(sock.family)
        self.flows: dict[Sender, Flow] = {}
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._socket = sock
        self.fd = sock.fileno()
        relay.epoll.add(self.fd, READ, self.ready)

    def close(self) -> None:
        """Stop listening. Its flows end too: without the socket no reply could come from the VIP."""
        self.relay.epoll.remove(self.fd)
        for flow in list(self.flows.values()):
            flow.end()
        self._socket.close()

    def ready(self, _mask: int) -> None:
        """Pass on what clients sent, one batch."""
        relay, batch = self.relay, self.batch
        try:
            count = batch.receive(self._socket)
        except OSError:
            # Whatever it is, it is told once, and no reason to stop listening.
            relay.counts.udp_dropped += 1
            return
        if not count:
            return
        now = relay.clock.seconds()
        flows, touch = self.flows, relay.flows.touch
        for sender, slots in _by_sender(batch.senders(count)):
            flow = flows.get(sender)
            if flow is not None and flow.target.gone:
                flow.end()
                flow = None
            if flow is None:
                flow = Flow.begin(self, sender, now)
                if flow is None:
                    continue
            else:
                touch(flow, now)
            flow.forward(slots, now)

    def reply(self, count: int, client: Sender) -> None:
        """Send the first slots of the batch to a client from the VIP's address."""
        done = 0
        while done < count:
            try:
                done += self.batch.send(self._socket, range(done, count), client)
            except OSError:
                self.relay.counts.udp_dropped += 1
                done += 1


class Flow:
    """A client's datagrams to one backend and back."""

    __slots__ = ("_client", "_listener", "_pending", "_socket", "_tried", "target", "used")

    def __init__(self, listener: UdpListener, client: Sender, target: Target, sock: SocketType) -> None:
        self.used = 0.0
        self._listener = listener
        self._client = client
        self._tried: tuple[Target, ...] = ()
        """Those it went to since the last answer; none while it is with the first."""
        self._pending: list[tuple[float, bytes]] = []
        """What was sent since the last answer, and when."""
        self._attach(target, sock)

    @classmethod
    def begin(cls, listener: UdpListener, client: Sender, now: float) -> Flow | None:
        """A flow to a backend, which is in the tables; None, and counted, when there is none."""
        found = _reach(listener, (), now)
        if found is None:
            return None
        try:
            flow = cls(listener, client, *found)
        except OSError:
            listener.relay.counts.udp_dropped += 1
            return None
        listener.flows[client] = flow
        listener.relay.keep(flow, now)
        return flow

    def _attach(self, target: Target, sock: SocketType) -> None:
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

    def _detach(self) -> None:
        self.target.active -= 1
        self._listener.relay.epoll.forget(self._socket.fileno())
        self._socket.close()

    def end(self) -> None:
        """Leave all tables, and close."""
        self._listener.relay.flows.discard(self)
        self.close()

    def close(self) -> None:
        """Leave the listener's table and close the socket; whoever closes it takes it out of the others."""
        del self._listener.flows[self._client]
        self._detach()

    def forward(self, slots: Sequence[int], now: float) -> None:
        """Send slots of the listener's batch to the backend."""
        batch = self._listener.batch
        try:
            if len(slots) == 1:
                self._socket.send(batch.data(slots[0]))
                sent = 1
            else:
                sent = batch.send(self._socket, slots)
        except OSError as error:
            self._hindered(slots, error.errno, now)
            return
        if sent == len(slots):
            self._sent(slots, now)
        else:
            self._sent(slots[:sent], now)
            self._hindered(slots[sent:], None, now)

    def _sent(self, slots: Sequence[int], now: float) -> None:
        """Count what the system took; keep the last of it for the case that the backend turns out to be gone."""
        batch, pending = self._listener.batch, self._pending
        size = batch.size(slots)
        self._listener.relay.counts.to_backend += size
        self.target.tally.to_backend += size
        for slot in slots if len(slots) <= KEPT else slots[-KEPT:]:
            data = batch.data(slot)
            if len(data) <= KEPT_SIZE:
                pending.append((now, data.tobytes()))
        if len(pending) > KEPT:
            del pending[:-KEPT]

    def _hindered(self, slots: Sequence[int], number: int | None, now: float) -> None:
        """Go on with slots of which the first was not taken: elsewhere if the backend is gone, else without it."""
        batch = self._listener.batch
        if number not in MOVES:
            # The reason was not told, or that of a packet filter hides what the filter sent.
            number = _queued(self._socket) or number
        reason = MOVES.get(number)
        if reason is not None:
            self._move(reason, [batch.data(slot).tobytes() for slot in slots], now)
            return
        # A router may have said of a datagram before that it was too long; the system knows the size now.
        if number == errno.EMSGSIZE and self._again(slots[0]):
            self._sent(slots[:1], now)
        else:
            self._listener.relay.counts.udp_dropped += 1
        if len(slots) > 1:
            self.forward(slots[1:], now)

    def _again(self, slot: int) -> bool:
        try:
            self._socket.send(self._listener.batch.data(slot))
        except OSError:
            return False
        return True

    def ready(self, mask: int) -> None:
        """Pass on what the backend sent, one batch, or move on when it is gone."""
        listener = self._listener
        relay, batch = listener.relay, listener.batch
        number: int | None = None
        try:
            count = batch.receive(self._socket)
        except OSError as error:
            count, number = 0, error.errno
        if not count:
            if mask & ERROR:
                number = _queued(self._socket) or number
            reason = MOVES.get(number)
            if reason is not None:
                self._move(reason, [], relay.clock.seconds())
            return
        if self._pending or self._tried:
            self._pending.clear()
            self._tried = ()
            listener.schedule.answered(self.target)
        relay.flows.touch(self, relay.clock.seconds())
        size = batch.size(range(count))
        relay.counts.to_client += size
        self.target.tally.to_client += size
        listener.reply(count, self._client)

    def _move(self, reason: Reason, unsent: list[bytes], now: float) -> None:
        """
        Leave a backend for the next that does not refuse at once, with what was lost and what was not sent.

        Where nobody else is, an unreachable one is kept, as that may pass, and what
        none of them took is given up; a flow to one that refused ends, and what
        comes next begins another.
        """
        listener = self._listener
        relay = listener.relay
        _failed(listener, self.target, now, reason)
        datagrams = [data for sent, data in self._pending if sent + KEPT_SECONDS >= now] + unsent
        self._tried = self._tried or (self.target,)
        while True:
            found = _reach(listener, self._tried, now)
            if found is None:
                if reason is Reason.REFUSED:
                    self.end()
                # Each datagram may bring an error of its own: sent again for each, they would never end.
                self._tried, self._pending = (), []
                return
            self._detach()
            try:
                self._attach(*found)
            except OSError:
                relay.counts.udp_dropped += 1
                self._forget()
                return
            relay.counts.retries += 1
            self.target.tally.retries += 1
            self._tried, self._pending = (*self._tried, self.target), []
            number = self._resend(datagrams, now)
            if number is None:
                return
            reason = MOVES[number]
            _failed(listener, self.target, now, reason)

    def _forget(self) -> None:
        """Leave all tables without a socket to close."""
        self._listener.relay.flows.discard(self)
        del self._listener.flows[self._client]

    def _resend(self, datagrams: list[bytes], now: float) -> int | None:
        """Send to a new backend; the error for which it has to be left as well, or None."""
        counts = self._listener.relay.counts
        for data in datagrams:
            try:
                self._socket.send(data)
            except OSError as error:
                if error.errno in MOVES:
                    return error.errno
                counts.udp_dropped += 1
                continue
            counts.to_backend += len(data)
            self.target.tally.to_backend += len(data)
            if len(data) <= KEPT_SIZE:
                self._pending.append((now, data))
        return None


def _by_sender(senders: Sequence[Sender]) -> Iterable[tuple[Sender, Sequence[int]]]:
    """Who sent which slots."""
    first, count = senders[0], len(senders)
    if count == 1 or senders.count(first) == count:
        return ((first, range(count)),)
    found: dict[Sender, list[int]] = {}
    for slot, sender in enumerate(senders):
        slots = found.get(sender)
        if slots is None:
            found[sender] = [slot]
        else:
            slots.append(slot)
    return found.items()


def _reach(listener: UdpListener, tried: tuple[Target, ...], now: float) -> tuple[Target, SocketType] | None:
    """A backend that was not tried, with a socket connected to it; None, and counted, when there is none."""
    relay = listener.relay
    while True:
        target = listener.schedule.pick(now, tried)
        if target is None:
            relay.counts.refused += 1
            return None
        try:
            sock = SocketType(listener.family, _KIND)
        except OSError:
            relay.counts.udp_dropped += 1
            return None
        sock.setsockopt(*_RECVERR[listener.family], 1)
        status = sock.connect_ex(target.sockaddr)
        if not status and sock.getsockname()[:2] == target.sockaddr:
            # The kernel took the backend's own port as ours, so nobody else
            # is there: it would answer the client with its own datagrams.
            status = errno.ECONNREFUSED
        if not status:
            return target, sock
        sock.close()
        _failed(listener, target, now, MOVES.get(status, Reason.UNREACHABLE))
        tried = (*tried, target)


def _failed(listener: UdpListener, target: Target, now: float, reason: Reason) -> None:
    """A backend did not take a flow, or has it no longer."""
    listener.relay.counts.failed(reason)
    listener.schedule.failed(target, now, reason)


def _queued(sock: SocketType) -> int | None:
    """
    Empty a socket's queue of errors; the first for which a flow moves, or else the last, or None.

    While something is in there epoll tells of an error again and again.
    """
    number = None
    while True:
        try:
            _, ancillary, _, _ = sock.recvmsg(0, 512, _MSG_ERRQUEUE)
        except OSError:
            return number
        for _level, _kind, value in ancillary:
            if number not in MOVES:
                (number,) = _EXTENDED_ERROR.unpack_from(value)
