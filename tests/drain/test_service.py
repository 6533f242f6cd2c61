"""When a node tells how far drains have come."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from zope.interface import implementer

from dcosnet.drain.service import INTERVAL, Teller
from dcosnet.interfaces import IDrains, ITraffic
from dcosnet.io.turns import Turns
from dcosnet.model.cell import Cell
from dcosnet.model.drain import Drain, Drainable, DrainedHost, Left, Progress, key_of
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import VipKey

VIP = VipKey(Protocol.TCP, 80, name="/web", framework="shop")
END = Endpoint(ip_address("10.0.0.1"), 8000)
HOST = DrainedHost("host-a")
KEY = key_of(HOST)


@implementer(IDrains)
@attrs.define
class FakeDrains:
    told: list[Any] = attrs.field(factory=list)
    tidied: int = 0
    disk: Any = None
    full: bool = False

    def begin(self, what: Drainable, user: str, note: str) -> Deferred[None]:
        raise NotImplementedError

    def end(self, what: Drainable) -> Deferred[None] | None:
        raise NotImplementedError

    def tell(self, progress: Mapping[str, Progress] | None) -> None:
        if self.full:
            raise ValueError("one node may have 65536 keys")
        self.told.append(progress)

    def tidy(self) -> Deferred[None] | None:
        self.tidied += 1
        return None if self.disk is None else fail(self.disk)


@implementer(ITraffic)
@attrs.define
class FakeTraffic:
    active: int = 0
    asked: list[Any] = attrs.field(factory=list)

    def traffic(self, vips=None):
        self.asked.append(set(vips))
        backend = BackendTraffic(END, 0, Flows(active=self.active))
        return {str(VIP): VipTraffic(VIP, Flows(), [ListenerTraffic(Protocol.TCP, END, None, [backend])])}


class Rig:
    def __init__(self, clock: Clock, turns: Turns) -> None:
        self.clock = clock
        self.snapshot: Cell[Snapshot] = Cell(Snapshot({}, {}, {}), turns.later)
        self.drained: Cell[Any] = Cell({}, turns.later)
        self.drains, self.traffic = FakeDrains(), FakeTraffic()
        views = SimpleNamespace(snapshot=self.snapshot, drained=self.drained)
        self.teller = Teller(views, self.drains, [self.traffic], clock)
        self.teller.startService()
        self.clock.advance(0)

    def drain(self, on: bool = True, since: float = 5.0) -> None:
        self.drained.publish({str(VIP): {END: (KEY,)}} if on else {})
        drains = {KEY: Owned(Drain(HOST, since=since), "a", Stamp(1, 0, "a"))} if on else {}
        self.snapshot.publish(Snapshot({}, {}, {}, drains=drains), frozenset({KEY}))
        self.clock.advance(0)

    def left(self, flows: int) -> dict[str, Progress]:
        return {KEY: Progress(5.0, {"tcp/10.0.0.1:8000": Left(flows)} if flows else {})}


@pytest.fixture
def rig(clock, turns):
    made = Rig(clock, turns)
    yield made
    made.teller.stopService()
    assert not clock.getDelayedCalls()


def test_while_nothing_drains_nothing_is_asked_and_nothing_told(rig: Rig) -> None:
    rig.clock.pump([INTERVAL] * 5)
    assert (rig.drains.told, rig.traffic.asked) == ([], [])


def test_a_drain_is_answered_at_once_and_then_each_second_if_the_count_is_another(rig: Rig) -> None:
    """So often a key may be written that goes to all nodes."""
    rig.clock.advance(60)
    rig.traffic.active = 3
    rig.drain()
    assert rig.drains.told == [rig.left(3)]
    assert rig.traffic.asked[0] == {str(VIP)}
    rig.clock.pump([INTERVAL] * 3)
    assert rig.drains.told == [rig.left(3)]
    rig.traffic.active = 1
    rig.clock.advance(INTERVAL / 2)
    rig.traffic.active = 0
    rig.clock.advance(INTERVAL / 2)
    assert rig.drains.told == [rig.left(3), rig.left(0)]


def test_when_the_last_drain_ends_that_is_told_once_and_the_clock_rests(rig: Rig) -> None:
    rig.drain()
    rig.clock.advance(INTERVAL)
    rig.drain(on=False)
    rig.clock.advance(INTERVAL)
    assert rig.drains.told == [rig.left(0), None]
    assert not rig.clock.getDelayedCalls()


def test_many_drains_at_once_are_told_once_a_second(rig: Rig) -> None:
    rig.clock.advance(60)
    for number in range(20):
        rig.drain(since=float(number))
    rig.clock.advance(INTERVAL)
    assert len(rig.drains.told) == 2
    assert rig.drains.told[-1][KEY].since == 19.0


def test_a_clock_that_is_put_back_delays_by_a_second_at_most(rig: Rig) -> None:
    """The reactor's seconds are the time of day."""
    rig.clock.advance(7200)
    rig.drain()
    rig.clock.advance(INTERVAL)
    rig.drain(on=False)
    rig.clock.advance(INTERVAL)
    rig.clock.rightNow -= 3600
    rig.drain()
    rig.clock.advance(INTERVAL)
    assert rig.drains.told[-1] == rig.left(0)


def test_it_tidies_when_drains_change_and_a_disk_that_refuses_is_no_harm(rig: Rig) -> None:
    before = rig.drains.tidied
    rig.drains.disk = OSError(28, "No space left on device")
    rig.drain()
    assert rig.drains.tidied == before + 1
    rig.snapshot.publish(rig.snapshot.value, frozenset({"task/f/t"}))
    rig.clock.advance(0)
    assert rig.drains.tidied == before + 1


def test_what_the_store_does_not_take_is_told_later(rig: Rig) -> None:
    """Otherwise a drain would wait for this node's word for ever."""
    rig.drains.full = True
    rig.drain()
    rig.clock.advance(INTERVAL)
    rig.drains.full = False
    rig.clock.advance(INTERVAL)
    assert rig.drains.told == [rig.left(0)]
