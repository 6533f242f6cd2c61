"""
What pumps a core: the one place where its five verbs meet the reactor.

A core has no clock and no wire. The drive gives it the time and what arrived,
carries out what it says, and calls again when it is due. Per-packet paths do
not come through here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Event_co = TypeVar("Event_co", covariant=True)
In = TypeVar("In")
Out = TypeVar("Out")
Event = TypeVar("Event")
Result = TypeVar("Result")

# A core that fails is asked again, but not in a circle that leaves the reactor
# no time for anything else.
_PAUSE_AFTER_FAILURE = 1.0


class Core(Protocol[In_contra, Out_co, Event_co]):
    """A protocol or schedule without IO; time is the reactor's seconds, always given."""

    def feed(self, data: In_contra, now: float) -> None:
        """Take what arrived."""

    def due(self) -> float | None:
        """When it wants to be called without input; None for never."""

    def tick(self, now: float) -> None:
        """The time has come."""

    def take_output(self) -> Iterable[Out_co]:
        """What to send, in order; it is forgotten then."""

    def take_events(self) -> Iterable[Event_co]:
        """What to tell, in order; it is forgotten then."""


class Drive(Generic[In, Out, Event]):
    """
    Pumps one core, with one delayed call at most.

    `send` and `tell` may call back: that waits until they have returned. What
    the core, `send` or `tell` raises is logged and counted in `failures`, and
    the pumping goes on. This is the catch-all "core driver".
    """

    def __init__(
        self,
        core: Core[In, Out, Event],
        reactor: IReactorTime,
        *,
        send: Callable[[Out], None],
        tell: Callable[[Event], None],
        name: str,
    ) -> None:
        self._core = core
        self._reactor = reactor
        self._send = send
        self._tell = tell
        self._name = name
        self._waiting: deque[Callable[[float], None]] = deque()
        self._pumping = False
        self._running = False
        self._call: IDelayedCall | None = None
        self.failures = 0

    def start(self) -> None:
        """Begin to pump; what the core wants already is carried out at once."""
        self._running = True
        self._pump()

    def stop(self) -> None:
        """Carry out nothing more and leave nothing in the reactor. Idempotent."""
        self._running = False
        self._waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def feed(self, data: In) -> None:
        """Give the core what arrived."""
        self.do(lambda now: self._core.feed(data, now))

    def do(self, act: Callable[[float], None]) -> None:
        """Call something of the core's own with the time, then carry out what it says."""
        if self._running:
            self._waiting.append(act)
            self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        failed_before = self.failures
        try:
            self._carry_out()
            while self._waiting and self._running:
                self._guard(partial(self._waiting.popleft(), self._reactor.seconds()))
                self._carry_out()
        finally:
            self._pumping = False
        self._schedule(failed_before)

    def _carry_out(self) -> None:
        """Send and tell until the core has nothing more to say."""
        output: deque[Out] = deque()
        events: deque[Event] = deque()
        self._guard(lambda: output.extend(self._core.take_output()))
        self._guard(lambda: events.extend(self._core.take_events()))
        while output and self._running:
            self._guard(partial(self._send, output.popleft()))
        while events and self._running:
            self._guard(partial(self._tell, events.popleft()))

    def _guard(self, call: Callable[[], Result | None], otherwise: Result | None = None) -> Result | None:
        try:
            return call()
        except Exception:  # noqa: BLE001 - the catch-all "core driver" of architecture.md section 5
            self.failures += 1
            log.failure("The core {name} failed and goes on", name=self._name)
            return otherwise

    def _schedule(self, failed_before: int) -> None:
        if not self._running:
            return
        now = self._reactor.seconds()
        due: float | None = self._guard(self._core.due, otherwise=now)
        if due is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
            return
        delay = max(_PAUSE_AFTER_FAILURE if self.failures > failed_before else 0.0, due - now)
        if self._call is None:
            self._call = self._reactor.callLater(delay, self._tick)
        else:
            self._call.reset(delay)

    def _tick(self) -> None:
        self._call = None
        self.do(self._core.tick)
