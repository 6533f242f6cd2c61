"""
Lashup's timers: active views of seven, pings that one miss ends, floods of adjacency.

What a node cannot walk to over the neighbours that members claim is
unreachable; nobody is ever dead. A ping has 660 ms, in clusters of more than 500
members 13.5 s, of more than 1000 5.1 s, since two constants there are swapped.
Keys are told by a multicast in which everything is lost that does not arrive;
an exchange between neighbours, from 30 to 60 s after they have met, finds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from dcosnet.model.member import MemberState
from dcosnet.sim.network import Network
from dcosnet.sim.peer import Peer
from dcosnet.sim.process import Process

ACTIVE, PASSIVE = 7, 42
REFRESH = 300.0
PROBE_FIRST, PROBE_LEAST, PROBE_MOST = 12.0, 12.0, 300.0
REFILL_FULL, REFILL = 10.0, 2.0
AAE_AFTER, AAE_EVERY = 30.0, 60.0
ROUTE_BURST, ROUTE_EVERY = 5, 0.2
ANSWER = 3.0

PING, RECORD, CLOCK, NEIGHBOUR, TREE, KEY = 60, 400, 30, 120, 75, 200
"""Octets of what is sent; TREE for each node, in each multicast."""


def ping_timeout(members: int) -> float:
    """Seconds that a pong may take, for round trips below 100 ms."""
    if members > 1000:
        return 5.1
    return 13.5 if members > 500 else 0.66


class Lashup(Peer):
    """One peer."""

    def __init__(self, number: int, network: Network, process: Process, rng: Random) -> None:
        super().__init__(number, network, process, rng)
        self.active: dict[int, int] = {}
        """Neighbours, with the number of the ping that is not answered, or 0."""
        self.keys: dict[str, int] = {}
        self._passive: list[int] = []
        self._records: dict[int, tuple[int, frozenset[int]]] = {}
        self._clock = 0
        self._pings = 0
        self._tries = 0
        self._asked: set[int] = set()
        self._turn: deque[int] = deque()
        self._budget = float(ROUTE_BURST)
        self._budget_at = 0.0
        self._routing = False

    def begin(self, others: Sequence[int]) -> None:
        """As Peer says. The overlay is there from the start: both ends of an edge draw it alike."""
        everybody = sorted([*others, self.number])
        at = everybody.index(self.number)
        strides = Random(len(everybody)).sample(range(1, max(5, len(everybody) // 2)), 3)
        for stride in strides:
            for step in (stride, -stride):
                other = everybody[(at + step) % len(everybody)]
                if other != self.number:
                    self.active[other] = 0
        able = [other for other in others if other not in self.active]
        self._passive = self.rng.sample(able, min(PASSIVE, len(able)))
        self.states = dict.fromkeys(others, MemberState.ALIVE)
        self._records = {}
        self.after(self.rng.random(), self._tell_own)
        self.after(self.rng.random(), self._ping)
        self.after(self.rng.random() * REFRESH, self._refresh)
        self.after(PROBE_FIRST * self.rng.choice((1, 2)), self._probe)
        self.after(self.rng.random() * REFILL_FULL, self._refill)
        for other in self.active:
            self.after(AAE_AFTER * self.rng.choice((1, 2)), partial(self._exchange, other))

    def write(self, key: str) -> None:
        """A key, to all that the multicast reaches."""
        self.keys[key] = self.keys.get(key, 0) + 1
        self._multicast(key, self.keys[key])

    # Pings

    def _ping(self) -> None:
        self.after(0.1 * self.rng.choice((1, 2)), self._ping)
        if not self._turn:
            self._turn.extend(self.active)
        while self._turn:
            other = self._turn.popleft()
            if other in self.active:
                self._ping_one(other)
                return

    def _ping_one(self, other: int) -> None:
        if self.active[other]:
            return
        self._pings += 1
        number = self.active[other] = self._pings
        self.say(other, ("ping", number), PING)
        self.after(ping_timeout(len(self.states) + 1), partial(self._missed, other, number))

    def _missed(self, other: int, number: int) -> None:
        if self.active.get(other) == number:
            self.lost(other)

    def lost(self, peer: int) -> None:
        """A neighbour is one no more."""
        if peer in self.active:
            del self.active[peer]
            self._passive.append(peer)
            self._tell_own()
            self.after(REFILL, self._refill_once)

    # Views

    def _refill(self) -> None:
        self.after(REFILL_FULL if len(self.active) >= 0.75 * ACTIVE else REFILL, self._refill)
        self._refill_once()

    def _refill_once(self) -> None:
        """Ask the next of the passive view; who does not answer leaves it. Each fifth time somebody with few links."""
        if len(self.active) >= ACTIVE - 1:
            self._tries = 0
            return
        self._tries += 1
        if self._tries % 5 == 0:
            able = [other for other, (_, view) in self._records.items() if len(view) < ACTIVE and other in self.states]
            if able:
                self.say(self.rng.choice(able), ("neighbour", not self.active), NEIGHBOUR)
        elif self._passive:
            other = self._passive.pop(0)
            self.say(other, ("neighbour", not self.active), NEIGHBOUR)
            self._asked.add(other)
            self.after(ANSWER, partial(self._asked.discard, other))

    def _answered(self, other: int) -> None:
        if other in self._asked:
            self._asked.discard(other)
            self._passive.append(other)

    def _probe(self) -> None:
        gone = [other for other, state in self.states.items() if state is not MemberState.ALIVE]
        reachable = len(self.states) + 1 - len(gone)
        period = min(PROBE_MOST, max(PROBE_LEAST, 300.0 / (reachable / (len(gone) + 1))))
        self.after(period * self.rng.choice((1, 2)), self._probe)
        if gone:
            self.say(self.rng.choice(gone), ("neighbour", True), NEIGHBOUR)

    def _adopt(self, other: int) -> None:
        if other in self.active:
            return
        if len(self.active) >= ACTIVE:
            victim = self.rng.choice(list(self.active))
            del self.active[victim]
            self._passive.append(victim)
            self.say(victim, ("disconnect",), NEIGHBOUR)
        self.active[other] = 0
        if other in self._passive:
            self._passive.remove(other)
        self.say(
            other, ("clocks", {one: clock for one, (clock, _) in self._records.items()}), CLOCK * len(self._records)
        )
        self.after(AAE_AFTER * self.rng.choice((1, 2)), partial(self._exchange, other))
        self._tell_own()

    # Messages

    def hear(self, source: int, message: Any) -> None:
        """As Peer says."""
        match message:
            case ("ping", number):
                self.say(source, ("pong", number), PING)
            case ("pong", number):
                if self.active.get(source) == number:
                    self.active[source] = 0
            case ("record", about, clock, view):
                self._take(about, clock, view, source)
            case ("keys", theirs):
                for key, version in theirs.items():
                    self.keys[key] = max(version, self.keys.get(key, 0))
            case _:
                self._hear_of_views(source, message)

    def _hear_of_views(self, source: int, message: Any) -> None:
        match message:
            case ("neighbour", urgent):
                if urgent or len(self.active) < ACTIVE:
                    self._adopt(source)
                    self.say(source, ("accepted",), NEIGHBOUR)
                else:
                    self.say(source, ("denied",), NEIGHBOUR)
            case ("accepted",):
                self._answered(source)
                self._adopt(source)
            case ("denied",):
                self._answered(source)
            case ("disconnect",):
                self.lost(source)
            case ("clocks", clocks):
                for about, (clock, view) in list(self._records.items()):
                    if clocks.get(about, -1) < clock:
                        self.say(source, ("record", about, clock, view), RECORD)

    def _tell_own(self) -> None:
        self._clock += 1
        self._take(self.number, self._clock, frozenset(self.active), self.number)

    def _refresh(self) -> None:
        self.after(REFRESH, self._refresh)
        self._tell_own()

    def _take(self, about: int, clock: int, view: frozenset[int], source: int) -> None:
        known = self._records.get(about)
        if known is not None and known[0] >= clock:
            return
        self._records[about] = (clock, view)
        for other in self.active:
            if other != source:
                self.say(other, ("record", about, clock, view), RECORD)
        if known is None or known[1] != view:
            for other in known[1] - view if known is not None else ():
                if other in self.active:
                    self._ping_one(other)  # somebody else has dropped it
            self._route_soon()

    # Routes

    def _route_soon(self) -> None:
        if self._routing:
            return
        self._routing = True
        self._budget = min(ROUTE_BURST, self._budget + (self.now - self._budget_at) / ROUTE_EVERY)
        self._budget_at = self.now
        self.after(0.0 if self._budget >= 1 else ROUTE_EVERY, self._route)

    def _route(self) -> None:
        self._routing = False
        self._budget = max(0.0, self._budget - 1)
        seen, frontier = {self.number}, deque([self.number])
        while frontier:
            record = self._records.get(frontier.popleft())
            for other in record[1] if record is not None else ():
                if other not in seen:
                    seen.add(other)
                    frontier.append(other)
        if len(self._records) > len(self.states):  # else the start is not over
            for other in self.states:
                self.find(other, MemberState.ALIVE if other in seen else MemberState.UNREACHABLE)

    # Keys

    def _multicast(self, key: str, version: int) -> None:
        for other, state in self.states.items():
            if state is MemberState.ALIVE:
                self.say(other, ("keys", {key: version}), KEY + TREE * (len(self.states) + 1))

    def _exchange(self, other: int) -> None:
        if other in self.active:
            self.say(other, ("keys", dict(self.keys)), KEY * max(1, len(self.keys)))
            self.after(AAE_EVERY * self.rng.uniform(1, 2), partial(self._exchange, other))
