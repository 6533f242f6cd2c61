"""
A process on a host: a program, its turns on a CPU, and what waits for them.

What arrives waits in one queue and costs CPU time, frame by frame; what the
program does in consequence happens at the end of that time. A process that is
paused finds all that arrived meanwhile, in order, and its timers late: first
the timers, then what has arrived, as a reactor does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dcosnet.sim.clock import Clock
from dcosnet.sim.trace import Trace

if TYPE_CHECKING:
    from dcosnet.sim.network import Host, Socket

FRAME_COST = 0.0003
"""Seconds of CPU for each frame that is read."""

Cost = Callable[[bytes], float]
"""Seconds of CPU that it takes to read what the other end wrote at once."""


@attrs.frozen
class Identity:
    """What a certificate says: a name, by whose authority, and whether it has run out. None of it is chance."""

    name: str
    authority: str = "ca"
    expired: bool = False

    def flaw_for(self, other: Identity) -> str | None:
        """Why the other one does not accept this certificate, or None."""
        if self.expired:
            return f"the certificate of {self.name} has expired"
        if self.authority != other.authority:
            return f"the certificate of {self.name} is of another authority"
        return None


class Program(Protocol):
    """What a process runs. Nothing of it is called from within another of its calls, `writable` excepted."""

    def dialled(self, number: int, socket: Socket) -> None:
        """The connection that was asked for under this number stands."""

    def unreached(self, number: int, why: str, text: str) -> None:
        """It does not: why is "refused", "no_answer" or "certificate"."""

    def accepted(self, socket: Socket) -> None:
        """Somebody connected."""

    def received(self, socket: Socket, data: bytes) -> None:
        """What the other end wrote, one write at a time."""

    def writable(self, socket: Socket, room: bool) -> None:
        """There is too much unsent, or not any more."""

    def closed(self, socket: Socket, reason: str) -> None:
        """The other end is gone."""

    def datagram(self, source: str, message: Any) -> None:
        """A message without a connection, from that address."""

    def due(self) -> float | None:
        """When `tick` is wanted."""

    def tick(self, now: float) -> None:
        """It is due, or was."""


class Process:
    """Runs a program on a host, until it is killed or the host goes down."""

    def __init__(self, clock: Clock, trace: Trace, host: Host, identity: Identity, cost: Cost) -> None:
        self.clock = clock
        self.host = host
        self.identity = identity
        self.alive = True
        self.cost = cost
        self.sockets: dict[Socket, None] = {}
        self.program: Program
        self.running = False
        """Whether it has a program."""
        self.longest_queue = 0
        self._trace = trace
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...], float, bytes]] = deque()
        self._soon: deque[Callable[[], None]] = deque()
        self._free = 0.0
        self._paused = 0.0
        self._timer: float | None = None
        self._turning = False

    def run(self, program: Program) -> None:
        """Begin with what it runs."""
        self.program = program
        self.running = True
        self._arm()

    def put(self, call: Callable[..., None], *arguments: Any, cost: float = 0.0, data: bytes = b"") -> None:
        """Call when all that arrived before is done and this has had its CPU time."""
        if not self.alive:
            return
        self._queue.append((call, arguments, cost, data))
        self.longest_queue = max(self.longest_queue, len(self._queue))
        if not self._turning:
            self._turning = True
            self.clock.at(max(self.clock.now, self._free, self._paused) + cost, self._turn)

    def soon(self, call: Callable[[], None]) -> None:
        """Call on the next turn, which is at this very time."""
        self._soon.append(call)

    def pause(self, seconds: float) -> None:
        """Do nothing for so long; the kernel goes on receiving."""
        self._paused = max(self._paused, self.clock.now + seconds)

    @property
    def paused(self) -> bool:
        """Whether it does nothing at present."""
        return self.clock.now < self._paused

    def end(self) -> None:
        """Not to be called again; what waits is lost."""
        self.alive = False
        self._queue.clear()
        self._soon.clear()

    def _turn(self) -> None:
        if not self.alive:
            return
        now = self.clock.now
        if now < self._paused:
            self.clock.at(self._paused + self._queue[0][2], self._turn)
            return
        if self._timer is not None and self._timer <= now:
            self._timed(self._timer)
        call, arguments, _, data = self._queue.popleft()
        self._trace.note(now, self.host.number, getattr(call, "__name__", "call").encode(), data)
        call(*arguments)
        self._after()
        self._free = now
        if self._queue and self.alive:
            self.clock.at(now + self._queue[0][2], self._turn)
        else:
            self._turning = False

    def _after(self) -> None:
        while self._soon:
            self._soon.popleft()()
        self._arm()

    def _arm(self) -> None:
        """
        Have a timer no later than the program wants it.

        One that is too early looks again: programs move their deadlines on with
        each frame, and a heap forgets nothing.
        """
        due = self.program.due() if self.running else None
        if due is not None and (self._timer is None or due < self._timer):
            self._timer = due
            self.clock.at(due, self._timed, due)

    def _timed(self, asked: float) -> None:
        if self._timer != asked or not self.alive:
            return
        now = self.clock.now
        if now < self._paused:
            self.clock.at(self._paused, self._timed, asked)
            return
        self._timer = None
        due = self.program.due()
        if due is not None and due <= now:
            self._trace.note(now, self.host.number, b"tick")
            self.program.tick(now)
        self._after()
