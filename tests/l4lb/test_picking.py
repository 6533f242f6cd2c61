"""Picking under traffic, played in simulated time: what share each backend gets, and how many flows it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from ipaddress import ip_address
from itertools import count
from random import Random

import attrs
import pytest

from dcosnet.l4lb.outliers import FIRST_SHARE, RAMP, REST
from dcosnet.l4lb.schedule import Notice, Pick, Schedule, Target
from dcosnet.l4lb.tally import Reason
from dcosnet.model.traffic import Use
from dcosnet.model.vip import Backend

HOME = ip_address("10.0.0.1")


@attrs.define
class Server:
    """A backend of the simulation: how long it takes to connect and to answer; `fails` in place of connecting."""

    connect: float = 0.001
    work: float = 0.05
    workers: int = 1000
    fails: Reason | None = None
    weight: int = 1
    busy: int = 0

    def ends(self, rng: Random) -> float:
        """When the work of a flow that begins now ends: with more flows than workers it takes longer."""
        return rng.uniform(0.5, 1.5) * self.work * max(1.0, self.busy / self.workers)


class Play:
    """Clients that come by chance, a schedule that picks, servers that answer."""

    def __init__(self, *servers: Server, rule: Pick = Pick.LEAST, rate: float = 500.0, seed: int = 7) -> None:
        self.rng = Random(seed)
        self.rate = rate
        self.now = 1000.0
        self.servers = dict(enumerate(servers, 8000))
        self.schedule = Schedule(rule, Random(seed + 1))
        self.notices: list[tuple[float, Notice]] = []
        self.schedule.notice = lambda notice: self.notices.append((self.now, notice))
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.refused = 0
        self.refresh()

    def refresh(self) -> None:
        self.schedule.update(tuple(Backend(HOME, port, HOME, one.weight) for port, one in self.servers.items()))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heappush(self._events, (self.now + seconds, next(self._numbers), call))

    def run(self, seconds: float) -> Counter[int]:
        """Play on; how often each server was picked, as the first or after others."""
        picks: Counter[int] = Counter()
        until = self.now + seconds
        arrival = self.now + self.rng.expovariate(self.rate)
        while True:
            due = self._events[0][0] if self._events else until
            if min(due, arrival) >= until:
                self.now = until
                return picks
            if due < arrival:
                self.now, _, call = heappop(self._events)
                call()
            else:
                self.now = arrival
                arrival += self.rng.expovariate(self.rate)
                self.flow(picks, ())

    def flow(self, picks: Counter[int], tried: tuple[Target, ...]) -> None:
        target = self.schedule.pick(self.now, tried)
        if target is None:
            self.refused += 1
            return
        port = target.backend.port
        picks[port] += 1
        server = self.servers[port]
        connect = server.connect * self.rng.uniform(0.9, 1.1)
        target.active += 1
        if server.fails is Reason.HUNG_UP:
            self.later(connect, lambda: self.hang_up(target, connect))
        elif server.fails is not None:
            wait = 5.0 if server.fails is Reason.TIMEOUT else connect
            self.later(wait, lambda: self.fail(picks, target, tried))
        else:
            self.later(connect, lambda: self.begin(target, server, connect))

    def begin(self, target: Target, server: Server, connect: float) -> None:
        self.schedule.worked(target, self.now, connect)
        server.busy += 1
        self.later(server.ends(self.rng), lambda: self.end(target, server))

    def end(self, target: Target, server: Server) -> None:
        server.busy -= 1
        target.active -= 1
        self.schedule.ended(target, self.now, served=True)

    def fail(self, picks: Counter[int], target: Target, tried: tuple[Target, ...]) -> None:
        target.active -= 1
        reason = self.servers[target.backend.port].fails or Reason.REFUSED
        self.schedule.failed(target, self.now, reason)
        self.flow(picks, (*tried, target))

    def hang_up(self, target: Target, connect: float) -> None:
        self.schedule.worked(target, self.now, connect)
        target.active -= 1
        self.schedule.ended(target, self.now, served=False)

    def state(self, port: int) -> Use:
        return {one.backend.port: one.state for one in self.schedule.tell(self.now)}[port]


def shares(picks: Counter[int]) -> list[float]:
    return [picks[port] / picks.total() for port in sorted(picks)]


every_rule = pytest.mark.parametrize("rule", list(Pick))


@every_rule
def test_equal_backends_get_equal_shares(rule) -> None:
    got = shares(Play(*(Server() for _ in range(5)), rule=rule).run(10))
    assert got == pytest.approx([0.2] * 5, abs=0.02)


@every_rule
def test_weights_are_honoured(rule) -> None:
    got = shares(Play(*(Server(weight=weight) for weight in (1, 2, 3, 4)), rule=rule).run(10))
    assert got == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


@every_rule
def test_weights_are_honoured_where_there_is_little_to_do(rule) -> None:
    """Hardly ever two flows at a time: nothing but the weights tells backends apart."""
    play = Play(Server(weight=1, work=0.001), Server(weight=3, work=0.001), rule=rule, rate=20)
    assert shares(play.run(100)) == pytest.approx([0.25, 0.75], abs=0.05)


def test_least_follows_what_each_is_able_to_do() -> None:
    """Twice as quick, twice the share, though the weights are the same."""
    got = shares(Play(Server(work=0.02), Server(work=0.04), Server(work=0.04), rate=1000).run(10))
    assert got == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


def test_under_a_millisecond_nearness_counts_little() -> None:
    """A backend on this host is no quicker at its work than one across the network."""
    got = shares(Play(Server(connect=0.00005), Server(connect=0.0004)).run(10))
    assert min(got) > 0.35


def test_what_turns_slow_loses_most_of_its_share_at_once_and_gets_it_back() -> None:
    play = Play(*(Server(connect=0.005) for _ in range(4)))
    play.run(5)
    play.servers[8000].connect = 0.05
    play.run(0.2)
    assert shares(play.run(5))[0] < 0.08
    play.servers[8000].connect = 0.005
    play.run(30)
    assert shares(play.run(5))[0] == pytest.approx(0.25, abs=0.03)


def test_what_was_slow_is_tried_again_where_the_other_is_always_at_hand() -> None:
    """Of two, hardly ever with a flow, the slow one would never be asked; so its slowness is forgotten in time."""
    play = Play(Server(work=0.001), Server(work=0.001), rate=20)
    play.run(5)
    play.schedule.worked(next(iter(play.schedule.targets)), play.now, 0.05)
    assert play.run(5)[8000] < 5
    play.run(30)
    assert shares(play.run(60))[0] == pytest.approx(0.5, abs=0.1)


def test_one_lost_segment_does_not_cost_a_backend_its_share_for_long() -> None:
    """A second instead of a millisecond, once; then as before."""
    play = Play(Server(), Server())
    play.run(5)
    target = next(iter(play.schedule.targets))
    play.schedule.worked(target, play.now, 1.0)
    assert shares(play.run(10))[0] > 0.08
    assert shares(play.run(10))[0] > 0.2
    assert shares(play.run(10))[0] > 0.35
    assert not play.notices


@pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.HUNG_UP])
@every_rule
def test_what_fails_at_once_is_no_black_hole(rule, reason) -> None:
    """It always looks idle. It gets five flows, and after each rest one."""
    play = Play(Server(), Server(), Server(), rule=rule)
    play.run(5)
    play.servers[8001].fails = reason
    first = play.run(REST)[8001]
    assert first <= 10, "some were under way before the fifth had failed, or were begun before it turned bad"
    assert play.state(8001) is Use.RESTING
    play.run(60)
    assert 0 < play.run(240)[8001] <= 4
    assert not play.refused


def test_what_hangs_is_found_out_by_what_it_holds() -> None:
    """Until the first timeout nothing has failed, but its flows pile up."""
    play = Play(*(Server() for _ in range(4)))
    play.run(5)
    play.servers[8000].fails = Reason.TIMEOUT
    assert play.run(5)[8000] < 60
    assert play.run(25)[8000] == 0
    assert play.state(8000) is Use.RESTING


def test_one_that_is_slow_again_and_again_rests() -> None:
    play = Play(Server(), Server(), Server())
    play.run(5)
    play.servers[8002].connect = 0.3
    play.run(10)
    [(_, notice)] = play.notices
    assert notice.backend.port == 8002
    assert notice.seconds == REST
    assert notice.why.startswith("slow: ")
    assert notice.why.endswith(" ms")


def test_all_that_are_slow_are_slow_together_and_none_rests() -> None:
    """As seen from a host with a slow link."""
    play = Play(Server(connect=0.3), Server(connect=0.3), Server(connect=0.4))
    play.run(20)
    assert not play.notices


@every_rule
def test_what_returns_gets_its_share_gently(rule) -> None:
    play = Play(Server(), Server(), rule=rule)
    play.run(5)
    play.servers[8000].fails = Reason.REFUSED
    play.run(20)
    play.servers[8000].fails = None
    while play.state(8000) is not Use.RETURNING:
        play.run(0.5)
    first, last = (shares(play.run(RAMP / 4))[0], shares(play.run(RAMP))[0])
    assert 0 < first < 0.25
    assert last > 0.3
    assert shares(play.run(RAMP))[0] == pytest.approx(0.5, abs=0.05)
    assert [notice.seconds for _, notice in play.notices] == [REST, 0.0]


@every_rule
def test_a_newcomer_is_neither_flooded_nor_starved(rule) -> None:
    """It has no flows and no latency beside four that have many."""
    play = Play(*(Server(work=0.5) for _ in range(4)), rule=rule)
    play.run(5)
    play.servers[8004] = Server(work=0.5)
    play.refresh()
    first = shares(play.run(1))[4]
    assert 0.2 * FIRST_SHARE / 2 < first < 0.1
    play.run(RAMP)
    assert shares(play.run(5))[4] == pytest.approx(0.2, abs=0.03)


@every_rule
def test_where_all_are_new_none_has_to_wait(rule) -> None:
    """A deployment that replaces all at once."""
    play = Play(Server(), Server(), rule=rule)
    play.run(1)
    play.servers = {9000: Server(), 9001: Server()}
    play.refresh()
    assert {one.share for one in play.schedule.tell(play.now)} == {1.0}
    assert shares(play.run(5)) == pytest.approx([0.5, 0.5], abs=0.03)


@every_rule
def test_a_failure_of_all_ends_for_all(rule) -> None:
    """As a network that was cut: who rests is asked when nothing else is left, and returns when it answers."""
    play = Play(*(Server() for _ in range(4)), rule=rule)
    play.run(5)
    for server in play.servers.values():
        server.fails = Reason.REFUSED
    play.run(10)
    assert play.refused
    for server in play.servers.values():
        server.fails = None
    refused = play.refused
    play.run(1)
    assert play.refused - refused < 10, "only who had asked some of them before"
    play.run(2 * RAMP)
    assert {play.state(port) for port in play.servers} == {Use.IN_USE}


def rests(play: Play, port: int) -> Iterator[float]:
    for _, notice in play.notices:
        if notice.seconds and notice.backend.port == port:
            yield notice.seconds


def test_each_rest_is_longer_than_the_last_up_to_five_minutes() -> None:
    play = Play(Server(), Server(fails=Reason.REFUSED), rate=10)
    play.run(2400)
    assert list(rests(play, 8001))[:11] == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300]
