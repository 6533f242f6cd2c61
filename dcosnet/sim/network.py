"""
Hosts, and between them connections that behave as TCP does, with TLS above.

A connection is two ordered streams. Nothing in them is lost, and everything may
be late: a segment that the path does not let through is sent again after 200 ms,
then 400, and so on, and all that follows waits behind it. What the other end
does not read fills its window, then the sender's buffer, and then the sender is
told. A host that is cut off resets nothing; a host whose process is gone does.

What is left out: slow start, packets as such (a write is lost or passed as a
whole), and the way of an acknowledgement, which takes no time where the path is
open and does not arrive where it is not.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from random import Random
from typing import Any

import attrs

from dcosnet.sim.clock import Clock
from dcosnet.sim.process import FRAME_COST, Cost, Identity, Process
from dcosnet.sim.trace import Trace

RECORD = 22
"""Octets that TLS 1.3 adds to each write."""

HIGH_WATER = 1 << 16
"""So much may wait unsent before the writer is told; told again when nothing does."""

_RETRANSMIT = 0.2
_RETRANSMIT_MOST = 120.0  # as Linux
_ORPHAN_TRIES = 8  # of a FIN that nobody is there to wait for
_SYN_AGAIN = 1.0
_SEGMENT = 40  # with nothing in it
_SAMPLES = 1 << 12


class _Mark(Enum):
    """What travels in a stream besides octets."""

    BEGIN = "begin"
    END = "end"


@attrs.frozen
class Conditions:
    """What the network is like: seconds, octets a second, octets."""

    latency: float = 0.001
    """Median of one way; lognormal."""
    spread: float = 0.5
    """Standard deviation of its logarithm."""
    bandwidth: float = 125e6
    """Of each host, each way: 1 Gbit/s."""
    loss: float = 0.0
    """Of each write, whatever its size."""
    window: int = 1 << 17
    """What may be on the way and unread on a stream."""
    handshake: float = 0.002
    """CPU time of a TLS handshake at each end."""


class Host:
    """A machine with an address, that processes run on and dial from. Change it by way of `Network`."""

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self.address = address
        self.up = True
        self.side = 0
        """Which part of a partitioned network it is in."""
        self.loss = 0.0
        """Of what it sends, besides the network's own."""
        self.reads: float | None = None
        """Octets a second that it takes in, where that is less than the bandwidth."""
        self.listeners: dict[int, Process] = {}
        self.sent_bytes = 0
        """Octets written by programs, and those that TLS added."""
        self.sent_writes = 0
        self.held = 0.0
        """Until when nothing leaves it or arrives there; it is late then, not lost."""
        self.out_free = 0.0
        self.in_free = 0.0

    def __repr__(self) -> str:
        return f"<Host {self.address}>"


class Socket:
    """One end of a connection. `note` is its holder's own: the number of a link, say."""

    __slots__ = (
        "_again",
        "_arrived",
        "_choked",
        "_finished",
        "_flying",
        "_network",
        "_stalled",
        "_tries",
        "_unsent",
        "gone",
        "note",
        "peer",
        "process",
        "unsent",
    )

    def __init__(self, network: Network, process: Process) -> None:
        self.process = process
        self.peer: Socket = self
        self.note = -1
        self.gone = False
        """Whether this end does not exist any more; the other may not know."""
        self.unsent = 0
        """Octets that the process holds because the kernel takes no more."""
        self._network = network
        self._unsent: deque[bytes] = deque()
        self._stalled: deque[bytes | _Mark] = deque()
        self._flying = 0
        self._arrived = 0.0
        self._tries = 0
        self._again = False
        self._choked = False
        self._finished = False

    def write(self, data: bytes) -> None:
        """Send; without an end, and after one, nothing happens."""
        if self.gone or self._finished:
            return
        host = self.process.host
        host.sent_bytes += len(data) + RECORD
        host.sent_writes += 1
        if self._unsent or self._flying >= self._network.conditions.window:
            self._unsent.append(data)
            self.unsent += len(data)
            if self.unsent > HIGH_WATER and not self._choked:
                self._choked = True
                self.process.program.writable(self, False)
        else:
            self._pass(data)

    def close(self) -> None:
        """Finish: what was written arrives before. Nothing is told to the process any more."""
        if self.gone or self._finished:
            return
        self._finished = True
        if not self._unsent:
            self._pass(_Mark.END)

    def abort(self) -> None:
        """Reset: what is unsent is lost, and if the path is cut the other end does not hear of it."""
        if self.gone:
            return
        self.vanish()
        self._network.reset(self)

    def vanish(self) -> None:
        """Cease to be, silently, as the sockets of a machine without power do."""
        self.gone = True
        self._unsent.clear()
        self._stalled.clear()
        self.unsent = 0
        self.process.sockets.pop(self, None)

    def die(self) -> None:
        """What the kernel does with the socket of a process that ended: it sends what it has, and finishes."""
        if self._unsent:
            self._unsent.clear()
            self.unsent = 0
            self._finished = False
        self.close()

    def read(self, size: int) -> None:
        """The other end has read so much of what this one sent: there is room again, if this one hears of it."""
        if self.gone:
            return
        if self._network.passable(self.peer.process.host, self.process.host):
            self._flying -= size
            if self._unsent:
                self._pump()
        else:
            self._network.later_credit(self, size)

    # What the network does with it.

    def _pump(self) -> None:
        window = self._network.conditions.window
        while self._unsent and self._flying < window:
            data = self._unsent.popleft()
            self.unsent -= len(data)
            self._pass(data)
        if not self._unsent:
            if self._finished:
                self._pass(_Mark.END)
            elif self._choked:
                self._choked = False
                self.process.put(self._roomy)

    def _roomy(self) -> None:
        if not (self.gone or self._choked or self._finished):
            self.process.program.writable(self, True)

    def _pass(self, data: bytes | _Mark) -> None:
        if isinstance(data, bytes):
            self._flying += len(data)
        if self._again or not self._network.through(self.process.host, self.peer.process.host):
            self._stalled.append(data)
            self._stall()
        else:
            self._depart(data)

    def _stall(self) -> None:
        if not self._again:
            self._again = True
            wait = min(_RETRANSMIT * 2.0**self._tries, _RETRANSMIT_MOST)
            self._tries += 1
            clock = self._network.clock
            clock.at(clock.now + wait, self._retransmit)

    def _retransmit(self) -> None:
        self._again = False
        if self.gone or (self._finished and not self.process.alive and self._tries > _ORPHAN_TRIES):
            self.vanish()
            return
        while self._stalled:
            if not self._network.through(self.process.host, self.peer.process.host):
                self._stall()
                return
            self._tries = 0
            self._depart(self._stalled.popleft())

    def _depart(self, data: bytes | _Mark) -> None:
        size = len(data) + RECORD if isinstance(data, bytes) else _SEGMENT
        self._arrived = self._network.deliver(
            self.process.host, self.peer.process.host, size, self._arrived, self._arrive, data
        )

    def _arrive(self, data: bytes | _Mark) -> None:
        """At the other end's kernel."""
        peer = self.peer
        if not peer.process.host.up:
            return
        if peer.gone or not peer.process.alive:
            # Nobody has this connection here: a reset tells who sent.
            if data is not _Mark.END and not self.gone:
                self._network.reset(peer)
        elif isinstance(data, bytes):
            peer.process.put(peer.hear, data, cost=peer.process.cost(data), data=data)
        elif data is _Mark.END:
            peer.process.put(peer.hear_end, "closed")
        else:
            peer.process.put(peer.hear_beginning)

    def begin(self) -> None:
        """Let the other end's process know of this connection, before all that is written."""
        self._pass(_Mark.BEGIN)

    def hear_beginning(self) -> None:
        """The client has accepted the server, whose end this is."""
        if not self.gone:
            self.process.program.accepted(self)

    def hear(self, data: bytes) -> None:
        """What arrived is read by the process."""
        self.peer.read(len(data))
        if not (self.gone or self._finished):
            self.process.program.received(self, data)

    def hear_end(self, reason: str) -> None:
        """The other end is finished, or was reset."""
        if self.gone:
            return
        told = not self._finished
        self.vanish()
        self.peer.vanish()
        if told:
            self.process.program.closed(self, reason)


@attrs.define(eq=False)
class Dialling:
    """An attempt to connect, until it stands, fails or is given up."""

    process: Process
    number: int
    address: str
    port: int
    name: str | None
    over: bool = False


class Network:
    """All hosts, and what is between them."""

    def __init__(self, clock: Clock, rng: Random, trace: Trace, conditions: Conditions | None = None) -> None:
        self.clock = clock
        self.conditions = conditions or Conditions()
        self.hosts: dict[str, Host] = {}
        self.loss = self.conditions.loss
        self._rng = rng
        self._trace = trace
        self._cuts: set[tuple[Host, Host]] = set()
        self._losses: dict[tuple[Host, Host], float] = {}
        # A table is four times as fast as to draw each anew.
        mean, spread = math.log(self.conditions.latency), self.conditions.spread
        self._latencies = [rng.lognormvariate(mean, spread) for _ in range(_SAMPLES)]

    def host(self, address: str) -> Host:
        """The host of an address; it is new if there was none."""
        host = self.hosts.get(address)
        if host is None:
            host = self.hosts[address] = Host(len(self.hosts), address)
        return host

    def process(self, host: Host, identity: Identity, cost: Cost = lambda _: FRAME_COST) -> Process:
        """A new process on a host; it runs once it is given a program."""
        return Process(self.clock, self._trace, host, identity, cost)

    # What is done to it.

    def cut(self, source: Host, target: Host) -> None:
        """Let nothing through from one to the other; the way back stays."""
        self._cuts.add((source, target))

    def mend(self, source: Host, target: Host) -> None:
        """Undo a cut."""
        self._cuts.discard((source, target))

    def lose(self, source: Host, target: Host, share: float) -> None:
        """Lose a share of what goes from one to the other."""
        self._losses[source, target] = share

    def part(self, sides: Iterable[Iterable[Host]]) -> None:
        """Let only hosts of one side reach each other. Hosts that are not named are a side of their own."""
        for host in self.hosts.values():
            host.side = 0
        for number, side in enumerate(sides, 1):
            for host in side:
                host.side = number

    def heal(self) -> None:
        """No cuts, no sides, no losses but the network's own."""
        self._cuts.clear()
        self._losses.clear()
        for host in self.hosts.values():
            host.side = 0
            host.loss = 0.0

    def stall(self, host: Host, seconds: float) -> None:
        """Hold all that a host sends, and all that is sent to it, for so long: its timers run on."""
        host.held = max(host.held, self.clock.now + seconds)

    def kill(self, process: Process) -> None:
        """End a process; the kernel closes what it had open."""
        process.end()
        self._unlisten(process)
        for socket in list(process.sockets):
            socket.die()

    def stop(self, host: Host, processes: Iterable[Process]) -> None:
        """Take the power from a host: nobody hears of it."""
        host.up = False
        for process in processes:
            process.end()
            self._unlisten(process)
            for socket in list(process.sockets):
                socket.vanish()

    def passable(self, source: Host, target: Host) -> bool:
        """Whether what is sent could arrive."""
        return (
            source.up
            and target.up
            and source.side == target.side
            and not (self._cuts and (source, target) in self._cuts)
        )

    # What processes do with it.

    def dial(self, process: Process, number: int, endpoint: str, name: str | None, timeout: float) -> Dialling:
        """Connect a process to an endpoint; it hears `dialled` or `unreached`, unless it gives up before."""
        address, _, port = endpoint.rpartition(":")
        dialling = Dialling(process, number, address, int(port), name)
        self.clock.at(self.clock.now + timeout, self._fail, dialling, "no_answer", f"no answer in {timeout:g} s")
        self._knock(dialling, _SYN_AGAIN)
        return dialling

    def send(self, process: Process, address: str, message: Any, size: int) -> None:
        """A datagram: it arrives once, or is lost."""
        source = process.host
        source.sent_bytes += size
        source.sent_writes += 1
        target = self.hosts.get(address)
        if target is not None and self.through(source, target):
            self.deliver(source, target, size, 0.0, self._drop_in, source.address, target, message)

    def reset(self, socket: Socket) -> None:
        """Tell the other end that this one is gone."""
        source, target = socket.process.host, socket.peer.process.host
        if self.through(source, target):
            socket._arrived = self.deliver(source, target, _SEGMENT, socket._arrived, self._reset, socket.peer)  # noqa: SLF001

    # The ways of a segment.

    def through(self, source: Host, target: Host) -> bool:
        """Whether one segment that leaves now arrives."""
        if not self.passable(source, target):
            return False
        if not (self.loss or source.loss or self._losses):
            return True
        share = max(self.loss, source.loss, self._losses.get((source, target), 0.0))
        return not share or self._rng.random() >= share

    def latency(self) -> float:
        """Of one segment, one way."""
        return self._latencies[int(self._rng.random() * _SAMPLES)]

    def arrival(self, source: Host, target: Host, trips: int = 1) -> float:
        """When one segment that leaves now arrives, after so many trips."""
        latency = sum(self.latency() for _ in range(trips))
        return max(max(self.clock.now, source.held) + latency, target.held)

    def deliver(
        self, source: Host, target: Host, size: int, after: float, call: Callable[..., None], *arguments: Any
    ) -> float:
        """Call when so many octets that leave now have arrived, not before `after`; gives that time."""
        bandwidth = self.conditions.bandwidth
        leaves = max(self.clock.now, source.out_free) + size / bandwidth
        source.out_free = leaves
        arrives = max(
            max(leaves, source.held) + self._latencies[int(self._rng.random() * _SAMPLES)], after, target.held
        )
        if target.reads is not None:
            arrives = target.in_free = max(arrives, target.in_free) + size / target.reads
        self.clock.at(arrives, call, *arguments)
        return arrives

    def later_credit(self, socket: Socket, size: int, wait: float = _RETRANSMIT) -> None:
        """Acknowledge when the way back is open: the sender asks again and again."""

        def credit() -> None:
            if socket.gone:
                return
            if self.passable(socket.peer.process.host, socket.process.host):
                socket.read(size)
            else:
                self.later_credit(socket, size, min(wait * 2, _RETRANSMIT_MOST))

        self.clock.at(self.clock.now + wait, credit)

    # The handshake, step by step; each is repeated where the path is shut.

    def _knock(self, dialling: Dialling, wait: float) -> None:
        if dialling.over or not dialling.process.alive:
            return
        source, target = dialling.process.host, self.hosts.get(dialling.address)
        if target is not None and self.through(source, target) and self.through(target, source):
            self.clock.at(self.arrival(source, target), self._at_the_door, dialling, target)
        else:
            self.clock.at(self.clock.now + wait, self._knock, dialling, wait * 2)

    def _at_the_door(self, dialling: Dialling, target: Host) -> None:
        if not target.up:
            return
        server = target.listeners.get(dialling.port)
        if server is None:
            text = "nobody listens there"
            self.clock.at(self.arrival(target, dialling.process.host), self._fail, dialling, "refused", text)
        else:
            # Back with SYN-ACK, and here again with the client's hello.
            self._step(dialling.process.host, target, _RETRANSMIT, self._greet, dialling, server, trips=2)

    def _greet(self, dialling: Dialling, server: Process) -> None:
        if server.alive:
            server.put(self._answer, dialling, server, cost=self.conditions.handshake)
        else:
            text = "closed in the handshake"
            self.clock.at(self.arrival(server.host, dialling.process.host), self._fail, dialling, "refused", text)

    def _answer(self, dialling: Dialling, server: Process) -> None:
        if not dialling.over:
            self._step(server.host, dialling.process.host, _RETRANSMIT, self._certify, dialling, server)

    def _certify(self, dialling: Dialling, server: Process) -> None:
        client = dialling.process
        if client.alive and not dialling.over:
            client.put(self._stand, dialling, server, cost=self.conditions.handshake)

    def _stand(self, dialling: Dialling, server: Process) -> None:
        """The client has the server's certificate; the server is to learn of the client's."""
        if dialling.over:
            return
        client = dialling.process
        flaw = server.identity.flaw_for(client.identity)
        if flaw is None and dialling.name not in {None, server.identity.name}:
            flaw = f"expected {dialling.name}, but {server.identity.name} is there"
        if flaw is None:
            flaw = client.identity.flaw_for(server.identity)
        dialling.over = True
        if flaw is not None:
            client.program.unreached(dialling.number, "certificate", flaw)
            return
        near, far = Socket(self, client), Socket(self, server)
        near.peer, far.peer = far, near
        client.sockets[near] = None
        server.sockets[far] = None
        near.begin()
        client.program.dialled(dialling.number, near)

    def _step(
        self, source: Host, target: Host, wait: float, call: Callable[..., None], *arguments: Any, trips: int = 1
    ) -> None:
        if self.through(source, target):
            self.clock.at(self.arrival(source, target, trips), call, *arguments)
        else:
            self.clock.at(
                self.clock.now + wait,
                lambda: self._step(source, target, wait * 2, call, *arguments, trips=trips),
            )

    def _fail(self, dialling: Dialling, why: str, text: str) -> None:
        if not dialling.over and dialling.process.alive:
            dialling.process.put(self._unreached, dialling, why, text)

    def _unreached(self, dialling: Dialling, why: str, text: str) -> None:
        if not dialling.over:
            dialling.over = True
            dialling.process.program.unreached(dialling.number, why, text)

    def _reset(self, socket: Socket) -> None:
        if socket.process.host.up and socket.process.alive and not socket.gone:
            socket.process.put(socket.hear_end, "reset")

    def _drop_in(self, source: str, target: Host, message: Any) -> None:
        if target.up:
            for process in target.listeners.values():
                process.put(process.program.datagram, source, message, cost=process.cost(b""))

    def _unlisten(self, process: Process) -> None:
        listeners = process.host.listeners
        for port in [port for port, other in listeners.items() if other is process]:
            del listeners[port]
