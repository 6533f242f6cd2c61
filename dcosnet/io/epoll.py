"""
The second driver: many descriptors behind one reader of the reactor.

What the reactor costs for an event is its bookkeeping, not epoll. An epoll of
our own, itself watched by the reactor as one descriptor, calls plain bound
methods and leaves timers, signals and endpoints where they are (measured in
docs/decisions/0007). It knows descriptors and event masks, nothing of sockets.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger()

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
URGENT = select.EPOLLPRI
ERROR = select.EPOLLERR
HANGUP = select.EPOLLRDHUP
"""The other side has said its last byte."""
EDGE = select.EPOLLET
"""Tell changes only, instead of what is so at every turn."""

# Events that one turn may take before the reactor gets its own descriptors' turn.
_BATCH = 256
_ROUNDS = 4
# Below this another round would mostly find nothing; above it, it saves a turn of the reactor.
_MANY = 8


@implementer(IReadDescriptor)
class InnerEpoll:
    """
    Watches descriptors and calls `ready(mask)` of each, level-triggered or, with EDGE, edge-triggered.

    A callback may add, change and remove any descriptor, its own included; one
    that was removed is not called, nor is a new one for an event of a closed
    descriptor with the same number: an event that this turn still has is older than
    what was added in it, and to add or to change a descriptor has the kernel look
    at it anew, so nothing is lost by it. A callback that raises is logged, counted in
    `errors`, and its descriptor is no longer watched: changing or removing it
    does nothing then.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self._fresh: set[int] = set()
        self.errors = 0

    def start(self) -> None:
        """Let the reactor watch it."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Watch nothing any more; descriptors stay open."""
        self._reactor.removeReader(self)
        self._ready.clear()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, descriptor: int, mask: int, ready: Callable[[int], None]) -> None:
        """Watch a descriptor; errors and hang-ups are told whatever the mask. OSError when epoll refuses it."""
        self._epoll.register(descriptor, mask)
        self._ready[descriptor] = ready
        self._fresh.add(descriptor)

    def modify(self, descriptor: int, mask: int) -> None:
        """Watch it for other events."""
        if descriptor in self._ready:
            self._epoll.modify(descriptor, mask)

    def rebind(self, descriptor: int, mask: int, ready: Callable[[int], None]) -> None:
        """Watch it for other events on behalf of another callback."""
        self._epoll.modify(descriptor, mask)
        self._ready[descriptor] = ready

    def remove(self, descriptor: int) -> None:
        """Watch it no longer."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; it is closed next, which takes it out of epoll without another call."""
        self._ready.pop(descriptor, None)

    def fileno(self) -> int:
        """For the reactor; -1 once closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return "epoll"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave it up; it does so for no descriptor that is open."""
        log.failure("the inner epoll was lost", failure=reason)

    def doRead(self) -> None:
        """Call whoever has an event; a few times over while there are many."""
        total = 0
        for _ in range(_ROUNDS):
            count = self._round()
            total += count
            if count < _MANY or total >= _BATCH or self._epoll.closed:
                return

    def _round(self) -> int:
        """Poll once and call each once; how many events there were."""
        ready, fresh = self._ready, self._fresh
        fresh.clear()
        events = self._epoll.poll(0, _BATCH)
        for descriptor, mask in events:
            # The event is older than what is watched now, which has its own next turn.
            if descriptor in fresh:
                continue
            call = ready.get(descriptor)
            if call is None:
                continue  # removed in this turn, or all are, as it was closed
            try:
                call(mask)
            except Exception:  # noqa: BLE001 - the driver's catch-all (architecture section 5)
                self._broke(descriptor)
        return len(events)

    def _broke(self, descriptor: int) -> None:
        self.errors += 1
        log.failure("the callback of descriptor {descriptor} broke", descriptor=descriptor)
        if self._ready.pop(descriptor, None) is not None:
            with suppress(OSError):  # it may have closed the descriptor without a word
                self._epoll.unregister(descriptor)
