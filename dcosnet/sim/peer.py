"""
What the models of other protocols share: timers, messages, and a cluster of them.

They are models: their timers, sizes and rules as their sources and papers give
them, as far as detection, healing and idle traffic follow from these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any, TypeVar

from dcosnet.model.member import MemberState
from dcosnet.sim.clock import Clock
from dcosnet.sim.network import Conditions, Network, Socket
from dcosnet.sim.process import Identity, Process
from dcosnet.sim.trace import Trace

PORT = 7946


class Peer:
    """One node of a modelled protocol; `states` is what it thinks of the others."""

    def __init__(self, number: int, network: Network, process: Process, rng: Random) -> None:
        self.number = number
        self.network = network
        self.process = process
        self.rng = rng
        self.states: dict[int, MemberState] = {}
        self.losses: Counter[int] = Counter()
        """How often it found that another one is gone."""
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def begin(self, others: Sequence[int]) -> None:
        """Start, knowing these others."""
        raise NotImplementedError

    def hear(self, source: int, message: Any) -> None:
        """Take a message of another peer."""
        raise NotImplementedError

    def lost(self, peer: int) -> None:
        """A connection was closed by the other end's kernel."""

    def find(self, other: int, state: MemberState) -> None:
        """Think so of another peer."""
        if state is not MemberState.ALIVE and self.states[other] is MemberState.ALIVE:
            self.losses[other] += 1
        self.states[other] = state

    def say(self, peer: int, message: Any, size: int) -> None:
        """Send so many octets."""
        self.network.send(self.process, address(peer), (self.number, message), size)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in so many seconds of the process's time."""
        heappush(self._timers, (self.now + seconds, self._order, call))
        self._order += 1

    @property
    def now(self) -> float:
        """Seconds."""
        return self.network.clock.now

    # Program

    def due(self) -> float | None:
        """As Program says."""
        return self._timers[0][0] if self._timers else None

    def tick(self, now: float) -> None:
        """As Program says."""
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2]()

    def datagram(self, source: str, message: Any) -> None:  # noqa: ARG002 - the number is in the message
        """As Program says."""
        self.hear(*message)

    def dialled(self, number: int, socket: Socket) -> None:
        """No connections are modelled."""

    def unreached(self, number: int, why: str, text: str) -> None:
        """No connections are modelled."""

    def accepted(self, socket: Socket) -> None:
        """No connections are modelled."""

    def received(self, socket: Socket, data: bytes) -> None:
        """No connections are modelled."""

    def writable(self, socket: Socket, room: bool) -> None:
        """No connections are modelled."""

    def closed(self, socket: Socket, reason: str) -> None:
        """No connections are modelled."""


def address(number: int) -> str:
    """Where a peer is."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


P = TypeVar("P", bound=Peer)


class Peers:
    """A cluster of peers of one protocol, all of whom know all from the start."""

    def __init__(
        self,
        seed: int,
        count: int,
        make: Callable[[int, Network, Process, Random], Peer],
        conditions: Conditions | None = None,
    ) -> None:
        self.clock = Clock()
        self.rng = Random(seed)
        self.network = Network(self.clock, self.rng, Trace(), conditions)
        self.peers: list[Peer] = []
        for number in range(1, count + 1):
            host = self.network.host(address(number))
            process = self.network.process(host, Identity(str(number)))
            host.listeners[PORT] = process
            self.peers.append(make(number, self.network, process, Random(self.rng.getrandbits(64))))
        for peer in self.peers:
            peer.begin([other.number for other in self.peers if other is not peer])
            peer.process.run(peer)

    @property
    def up(self) -> list[Peer]:
        """Those that run."""
        return [peer for peer in self.peers if peer.process.alive]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run(self.clock.now + seconds)

    def run_until(self, reached: Callable[[], bool], limit: float, step: float = 0.05) -> float:
        """Let time pass until this is so, or the limit is reached; gives how long."""
        began = self.clock.now
        while not reached() and self.clock.now - began < limit:
            self.run(step)
        return self.clock.now - began

    def kill(self, peer: Peer) -> None:
        """End a process; those that have a connection to it hear so."""
        self.network.kill(peer.process)
        for other in self.up:
            if self.network.passable(peer.process.host, other.process.host):
                self.clock.at(self.clock.now + self.network.latency(), other.process.put, other.lost, peer.number)

    def stop(self, peer: Peer) -> None:
        """Take the power from a host."""
        self.network.stop(peer.process.host, [peer.process])

    def pause(self, peer: Peer, seconds: float) -> None:
        """Let a process stand still."""
        peer.process.pause(seconds)

    def stall(self, peer: Peer, seconds: float) -> None:
        """Let all that a host sends and is sent be late, while its timers run on."""
        self.network.stall(peer.process.host, seconds)

    def part(self, *sides: Sequence[Peer]) -> None:
        """Let only peers of one side reach each other."""
        self.network.part([[peer.process.host for peer in side] for side in sides])

    def agree(self, number: int, *states: MemberState, share: float = 0.99) -> bool:
        """Whether such a share of the others thinks so of a peer."""
        others = [peer for peer in self.up if peer.number != number]
        return sum(peer.states.get(number) in states for peer in others) >= share * len(others)

    def whole(self) -> bool:
        """Whether all take all that run for alive."""
        up = self.up
        return all(peer.states[other.number] is MemberState.ALIVE for peer in up for other in up if other is not peer)

    def idle(self, seconds: float) -> float:
        """Octets a second that each sends."""
        before = self.sent()
        self.run(seconds)
        return (self.sent() - before) / seconds / len(self.up)

    def sent(self) -> int:
        """Octets sent by all."""
        return sum(host.sent_bytes for host in self.network.hosts.values())
