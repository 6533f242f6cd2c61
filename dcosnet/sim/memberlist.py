"""
memberlist with its LAN timers, and plain SWIM: what to compare with.

Probe each second, half a second for the answer, three indirect probes; a queue
of broadcasts that go 4 log10(N) times to three peers each 200 ms; suspicion that
begins at six times its least and shrinks with two confirmations; the whole state
with one peer each 30 s. Without `lifeguard` there is no local health, no
shrinking and no word to the suspect, as in the SWIM paper, with its timers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from dcosnet.model.member import MemberState
from dcosnet.sim.network import Network
from dcosnet.sim.peer import Peer
from dcosnet.sim.process import Process

PROBE_EVERY, PROBE_TIMEOUT, INDIRECT = 1.0, 0.5, 3
GOSSIP_EVERY, GOSSIP_TO = 0.2, 3
PUSH_PULL_EVERY = 30.0
SUSPICION, SUSPICION_MOST, SWIM_SUSPICION = 4, 6, 5
RETRANSMITS = 4
DEAD_GOSSIP = 30.0
WORST = 8

# Octets: the payload of a UDP datagram, and of what is in it, with 29 of encryption for each datagram.
PACKET, ENVELOPE = 1400, 29
PING, ACK, BROADCAST, STATE = 40, 12, 50, 60

ALIVE, SUSPECT, DEAD = "alive", "suspect", "dead"
_RANK = {ALIVE: 0, SUSPECT: 1, DEAD: 2}


class _Other:
    __slots__ = ("confirmed", "incarnation", "since", "state", "suspicion")

    def __init__(self, now: float) -> None:
        self.state = ALIVE
        self.incarnation = 1
        self.since = now
        self.suspicion = 0
        self.confirmed: set[int] = set()


class Memberlist(Peer):
    """One peer. Suspects count as alive, as they do for who uses it."""

    def __init__(self, number: int, network: Network, process: Process, rng: Random, *, lifeguard: bool = True) -> None:
        super().__init__(number, network, process, rng)
        self.lifeguard = lifeguard
        self.incarnation = 1
        self.health = 0
        self._others: dict[int, _Other] = {}
        self._order_of_probes: list[int] = []
        self._queue: dict[int, tuple[int, tuple[str, int, int, int]]] = {}
        self._waiting: dict[int, int] = {}
        self._relayed: dict[int, int] = {}
        self._number = 0

    def begin(self, others: Sequence[int]) -> None:
        """As Peer says."""
        self._others = {other: _Other(self.now) for other in others}
        self.states = dict.fromkeys(others, MemberState.ALIVE)
        self.after(self.rng.random() * PROBE_EVERY, self._probe)
        self.after(self.rng.random() * GOSSIP_EVERY, self._gossip)
        scale = max(0, math.ceil(math.log2(len(others) + 1) - 5)) + 1
        self._push_pull_every = PUSH_PULL_EVERY * scale
        self.after(self.rng.random() * self._push_pull_every, self._push_pull)

    # Probing

    def _probe(self) -> None:
        self.after(PROBE_EVERY * (self.health + 1), self._probe)
        target = self._next()
        if target is None:
            return
        number = self._ping(target, None)
        self._waiting[number] = target
        self.after(PROBE_TIMEOUT, partial(self._ask_others, number, target))
        self.after(PROBE_EVERY * (self.health + 1) * 0.999, partial(self._judge, number, target))

    def _next(self) -> int | None:
        for _ in range(len(self._others)):
            if not self._order_of_probes:
                self._order_of_probes = list(self._others)
                self.rng.shuffle(self._order_of_probes)
            target = self._order_of_probes.pop()
            if self._others[target].state != DEAD:
                return target
        return None

    def _ping(self, target: int, number: int | None) -> int:
        if number is None:
            self._number += 1
            number = self._number
        other = self._others[target]
        buddy = [(SUSPECT, target, other.incarnation, self.number)] if other.state == SUSPECT and self.lifeguard else []
        self._send(target, ("ping", number), PING, buddy)
        return number

    def _ask_others(self, number: int, target: int) -> None:
        if number not in self._waiting:
            return
        able = [one for one, other in self._others.items() if other.state == ALIVE and one != target]
        for helper in self.rng.sample(able, min(INDIRECT, len(able))):
            self._send(helper, ("probe", number, target), PING)

    def _judge(self, number: int, target: int) -> None:
        if self._waiting.pop(number, None) is None:
            self.health = max(0, self.health - 1)
            return
        if self.lifeguard:
            self.health = min(WORST - 1, self.health + 1)
        other = self._others[target]
        if other.state != DEAD:
            self._take((SUSPECT, target, other.incarnation, self.number))

    # Messages

    def hear(self, source: int, message: Any) -> None:
        """As Peer says."""
        (kind, *rest), news = message
        for one in news:
            self._take(one)
        if kind == "ping":
            self._send(source, ("ack", rest[0]), ACK)
        elif kind == "ack":
            if rest[0] in self._relayed:
                self._send(self._relayed.pop(rest[0]), ("ack", -rest[0]), ACK)
            else:
                self._waiting.pop(abs(rest[0]), None)
        elif kind == "probe":
            number, target = rest
            self._relayed[number] = source
            if target in self._others:
                self._ping(target, number)
        elif kind == "state":
            for one, state, incarnation in rest[0]:
                # A remote "dead" is taken for a suspicion.
                self._take((SUSPECT if state == DEAD else state, one, incarnation, source))
            if rest[1]:
                self._send_state(source, answer=False)

    def _send(
        self, peer: int, message: tuple[Any, ...], size: int, first: Sequence[tuple[str, int, int, int]] = ()
    ) -> None:
        news = [*first, *self._broadcasts((PACKET - size) // BROADCAST - len(first))]
        self.say(peer, (message, tuple(news)), size + ENVELOPE + BROADCAST * len(news))

    def _broadcasts(self, most: int) -> list[tuple[str, int, int, int]]:
        """Those that went out least go first."""
        if not self._queue:
            return []
        limit = RETRANSMITS * math.ceil(math.log10(len(self._others) + 2))
        news = []
        for about, (sent, one) in sorted(self._queue.items(), key=lambda item: item[1][0])[:most]:
            news.append(one)
            if sent + 1 >= limit:
                del self._queue[about]
            else:
                self._queue[about] = (sent + 1, one)
        return news

    def _gossip(self) -> None:
        self.after(GOSSIP_EVERY, self._gossip)
        if not self._queue:
            return
        able = [
            one for one, other in self._others.items() if other.state != DEAD or self.now - other.since < DEAD_GOSSIP
        ]
        for peer in self.rng.sample(able, min(GOSSIP_TO, len(able))):
            news = self._broadcasts(PACKET // BROADCAST)
            if news:
                self.say(peer, (("news",), tuple(news)), ENVELOPE + BROADCAST * len(news))

    def _push_pull(self) -> None:
        self.after(self._push_pull_every, self._push_pull)
        able = [one for one, other in self._others.items() if other.state == ALIVE]
        if able:
            self._send_state(self.rng.choice(able), answer=True)

    def _send_state(self, peer: int, *, answer: bool) -> None:
        states = [(one, other.state, other.incarnation) for one, other in self._others.items()]
        states.append((self.number, ALIVE, self.incarnation))
        self.say(peer, (("state", tuple(states), answer), ()), ENVELOPE + STATE * len(states))

    # States

    def _take(self, news: tuple[str, int, int, int]) -> None:
        kind, about, incarnation, source = news
        if about == self.number:
            if kind != ALIVE and incarnation >= self.incarnation:
                self.incarnation = incarnation + 1
                if self.lifeguard:
                    self.health = min(WORST - 1, self.health + 1)
                self._tell((ALIVE, about, self.incarnation, self.number))
            return
        other = self._others.get(about)
        if other is None:
            return
        if kind == SUSPECT and other.state == SUSPECT and incarnation >= other.incarnation:
            self._confirm(about, other, news)
            return
        newer = incarnation > other.incarnation if kind == ALIVE else incarnation >= other.incarnation
        if not newer or (kind != ALIVE and _RANK[kind] <= _RANK[other.state]):
            return
        other.state, other.incarnation, other.since = kind, incarnation, self.now
        other.suspicion += 1
        other.confirmed = {source}
        self.find(about, MemberState.DEAD if kind == DEAD else MemberState.ALIVE)
        self._tell(news)
        if kind == SUSPECT:
            self._time(about, other)

    def _confirm(self, about: int, other: _Other, news: tuple[str, int, int, int]) -> None:
        if self.lifeguard and news[3] not in other.confirmed and len(other.confirmed) <= SUSPICION - 2:
            other.confirmed.add(news[3])
            self._tell(news)
            self._time(about, other)

    def _time(self, about: int, other: _Other) -> None:
        """Declare it dead when the time is over that its confirmations leave it."""
        known = len(self._others) + 1
        scale = max(1.0, math.log10(max(1, known))) * PROBE_EVERY
        if self.lifeguard:
            least, wanted = SUSPICION * scale, SUSPICION - 2 if known - 2 >= SUSPICION - 2 else 0
            most = SUSPICION_MOST * least
            confirmed = len(other.confirmed) - 1
            share = math.log(confirmed + 1) / math.log(wanted + 1) if wanted else 1.0
            timeout = max(least, most - share * (most - least))
        else:
            timeout = SWIM_SUSPICION * scale
        began = other.suspicion

        def die() -> None:
            if other.state == SUSPECT and other.suspicion == began and self.now >= other.since + timeout - 1e-9:
                self._take((DEAD, about, other.incarnation, self.number))

        self.after(max(0.0, other.since + timeout - self.now), die)

    def _tell(self, news: tuple[str, int, int, int]) -> None:
        self._queue[news[1]] = (0, news)


class Swim(Memberlist):
    """Without Lifeguard."""

    def __init__(self, number: int, network: Network, process: Process, rng: Random) -> None:
        super().__init__(number, network, process, rng, lifeguard=False)
