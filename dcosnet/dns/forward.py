"""
Which upstreams are asked, when, and whose reply is taken. No wire, no clock.

A question is asked of the two best upstreams at once. The first NOERROR or
NXDOMAIN wins. Any other rcode is held back while somebody else may still do
better; a failure brings in the next upstream at once, silence does so after
HEDGE. So one dead or broken upstream never costs the asker its answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from dcosnet.model.net import Endpoint

T = TypeVar("T")

AT_ONCE = 2
HEDGE = 0.3  # s: the usual stub gives up after 1 s, so a third must be asked well before
HOLD = 0.8  # s: a refusal in hand is given before the usual stub gives up
DEADLINE = 2.5  # s
HALF_LIFE = 10.0  # s: a demoted upstream is tried again within about a minute
PENALTY = 1.0
FLOOR = 0.001  # s: below this nobody is better than another, and the order of the configuration counts

# Names that are ours by convention of DC/OS: never sent to a default upstream,
# where they would leak and come back as NXDOMAIN (spec/dns.md 6.1, D35).
PRIVATE = frozenset({"thisdcos.directory", "thisdcos.global", "spartan", "localhost"})
PRIVATE_UNLESS_ROUTED = frozenset({"mesos", "zk"})


def suffixes(name: str) -> list[str]:
    """The name and all names above it, the root ("") last."""
    found = [name]
    while name:
        name = name.partition(".")[2]
        found.append(name)
    return found


class Routes:
    """Which servers are responsible for a name: the longest suffix wins, at any nesting."""

    def __init__(self, zones: Mapping[str, Sequence[Endpoint]], default: Sequence[Endpoint]) -> None:
        self._zones = {zone: tuple(servers) for zone, servers in zones.items()}
        self._default = tuple(default)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every server that is named, once."""
        everyone = [endpoint for servers in self._zones.values() for endpoint in servers]
        return tuple(dict.fromkeys((*self._default, *everyone)))

    def find(self, name: str) -> tuple[Endpoint, ...] | None:
        """The servers for a name, perhaps none; None when the name must not leave this host."""
        for suffix in suffixes(name):
            if suffix in PRIVATE:
                return None
            servers = self._zones.get(suffix)
            if servers is not None:
                return servers
            if suffix in PRIVATE_UNLESS_ROUTED and "." not in suffix:
                return None
        return self._default


class Score:
    """
    How little an upstream is to be trusted now; lower is better, 0 is unknown.

    Failures add a penalty, replies pull it towards their latency in seconds.
    All of it halves every HALF_LIFE, so nothing is held against anybody for
    ever, and who was demoted is tried again.
    """

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0

    def value(self, now: float) -> float:
        """The score at a time."""
        left = self._value * 0.5 ** ((now - self._at) / HALF_LIFE)
        return left if left >= FLOOR else 0.0

    def failed(self, now: float) -> None:
        """It did not answer, or could not be reached."""
        self._value, self._at = self.value(now) + PENALTY, now

    def answered(self, latency: float, now: float) -> None:
        """It answered after so many seconds."""
        self._value, self._at = 0.7 * self.value(now) + 0.3 * latency, now


class Race(Generic[T]):
    """
    One question, asked of several.

    The owner asks whom `take_output` gives, feeds replies and failures, and
    calls `tick` when it is `due`. Once `over`, `winner` is the reply to give,
    or None when there is none.
    """

    __slots__ = ("_candidates", "_held", "_next", "_out", "_retried", "_started", "_waiting", "over", "winner")

    def __init__(self, candidates: Sequence[T], now: float) -> None:
        self._started = now
        self._candidates = deque(candidates)
        self._waiting: list[T] = []
        self._out: list[T] = []
        self._held: bytes | None = None
        self._retried = 0
        self._next = now + HEDGE
        self.over = False
        self.winner: bytes | None = None
        for _ in range(AT_ONCE):
            self._ask()
        if not self._waiting:
            self._end(None)

    def take_output(self) -> list[T]:
        """Whom to ask now; each is given once for each time it must be asked."""
        out, self._out = self._out, []
        return out

    def due(self) -> float:
        """When `tick` has something to do."""
        return self._next

    def feed(self, upstream: T, reply: bytes | None, now: float) -> None:
        """A reply, or None for a failure, of somebody who was asked."""
        if self.over:
            return
        if upstream in self._waiting:
            self._waiting.remove(upstream)
        if reply is not None and reply[3] & 0xF in (0, 3):
            self._end(reply)
            return
        if reply is not None and self._held is None:
            self._held = reply
            self._next = min(self._next, max(now, self._started + HOLD))
        self._ask()
        if not self._waiting:
            self._end(self._held)

    def tick(self, now: float) -> None:
        """Ask one more when it is time, and end at the deadline."""
        if self.over or now < self._next:
            return
        age = now - self._started
        if age >= DEADLINE or (self._held is not None and age >= HOLD):
            self._end(self._held)
            return
        if not self._ask() and self._waiting:
            # Nobody else is left: a datagram may be lost, so the best is asked again.
            self._out.append(self._waiting[0])
        self._retried += 1
        step = self._started + min(HEDGE * (1 << self._retried), DEADLINE)
        self._next = step if self._held is None else min(step, max(now, self._started + HOLD))

    def abandon(self) -> None:
        """End without a reply; nobody waits for it any more."""
        self._end(None)

    def _ask(self) -> bool:
        if not self._candidates:
            return False
        upstream = self._candidates.popleft()
        self._waiting.append(upstream)
        self._out.append(upstream)
        return True

    def _end(self, reply: bytes | None) -> None:
        self.over = True
        self.winner = reply
        self._out.clear()
