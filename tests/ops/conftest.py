"""A toolbox of plain values, and a small shop to show."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from dcosnet.interfaces import IDrains, IMembership, ITaskSource, IToolbox, ITraffic, IViews, IZone
from dcosnet.io.turns import Turns
from dcosnet.model.cell import Cell
from dcosnet.model.drain import Drainable, Progress
from dcosnet.model.facts import Problem, SourceStatus
from dcosnet.model.member import Member
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.provenance import Provenance
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Task, TaskId
from dcosnet.model.traffic import VipTraffic
from dcosnet.model.vip import Backend, Vip, VipKey
from dcosnet.model.zone import Record, RecordType, Srv, Zone, address_record, apex_records
from dcosnet.testing.fake_membership import FakeMembership

NAME = "web.shop.l4lb.thisdcos.directory"


@implementer(IViews)
@attrs.frozen
class FakeViews:
    """The read models, as a test publishes them."""

    snapshot: Cell[Snapshot]
    vips: Cell[Mapping[str, Vip]]
    drained: Cell[Mapping[str, Mapping[Endpoint, tuple[str, ...]]]]
    unsynced: Cell[str | None]
    asked: list[int] = attrs.field(factory=list)

    def refresh(self) -> int:
        """Numbers from 1."""
        self.asked.append(len(self.asked) + 1)
        return self.asked[-1]


@implementer(IDrains)
@attrs.define
class FakeDrains:
    """Remembers what was begun and ended; `disk` is what a write does."""

    done: list[tuple[Any, ...]] = attrs.field(factory=list)
    on: set[Drainable] = attrs.field(factory=set)
    disk: Callable[[], Deferred[None]] = lambda: succeed(None)

    def begin(self, what: Drainable, user: str, note: str) -> Deferred[None]:
        self.done.append((str(what), user, note))
        self.on.add(what)
        return self.disk()

    def end(self, what: Drainable) -> Deferred[None] | None:
        self.done.append((str(what),))
        return self.disk() if what in self.on else None

    def tell(self, progress: Mapping[str, Progress] | None) -> None:
        """Nobody asks."""

    def tidy(self) -> None:
        """There is nothing."""


@implementer(IZone)
@attrs.frozen
class FakeZone:
    """A zone, as a test publishes it."""

    apex: str
    zone: Cell[Zone]


@implementer(ITaskSource)
@attrs.frozen
class FakeSource:
    """A source that only has a status."""

    name: str
    told: SourceStatus

    def watch(self, sink):
        """Say nothing."""

    def status(self) -> SourceStatus:
        return self.told


@implementer(ITraffic)
@attrs.frozen
class FakeTraffic:
    """What a plane carries, as a test tells it."""

    carried: dict[str, VipTraffic] = attrs.field(factory=dict)

    def traffic(self, vips=None):
        return {key: one for key, one in self.carried.items() if vips is None or key in vips}


@implementer(IToolbox)
@attrs.define
class FakeToolbox:
    """What a part is made from; `ready` and `facts` are what the other parts say."""

    reactor: Any
    node: Node
    state_dir: Path
    offered: dict[Any, Any]
    contributed: dict[Any, list[Any]]
    ready: dict[str, str | None] = attrs.field(factory=dict)
    facts: dict[str, Mapping[str, Any]] = attrs.field(factory=dict)
    rng: random.Random = attrs.field(factory=lambda: random.Random(0))
    later: Any = None

    def __getitem__(self, interface):
        return self.offered[interface]

    def all(self, interface) -> Sequence[Any]:
        return tuple(self.contributed.get(interface, ()))

    def readiness(self) -> Mapping[str, str | None]:
        return dict(self.ready)

    def describe(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.facts)


def _task(instance: str, port: int, health: Health = Health.HEALTHY, vips: tuple[str, ...] = ("/web:8000",)) -> Task:
    host = ip_address("127.0.0.1")
    return Task(
        id=TaskId("files/shop", f"web.{instance}@host-a"),
        name="web",
        framework="shop",
        agent=host,
        addresses=(host,),
        ports=(Port(Protocol.TCP, port, vips=vips),),
        health=health,
        labels={"HAPROXY_GROUP": "external"},
        provenance=Provenance("files", "/etc/dcosnet/services.d/shop.toml", 5.0),
    )


@pytest.fixture
def shop(turns: Turns) -> SimpleNamespace:
    """Two web tasks behind one named VIP, one of them unhealthy, and a VIP given by its address."""
    host = ip_address("127.0.0.1")
    tasks = [_task("1", 8001), _task("2", 8002, Health.UNHEALTHY, ("/web:8000", "web"))]
    named = Vip(
        VipKey(Protocol.TCP, 8000, name="/web", framework="shop"),
        (Backend(host, 8001, host), Backend(host, 8002, host, weight=0)),
        Stamp(1, 0, "host-a"),
    )
    plain = Vip(VipKey(Protocol.UDP, 53, address=ip_address("fd00::7")), (Backend(host, 5300, host),))
    l4lb = Zone(
        "l4lb.thisdcos.directory",
        {
            "l4lb.thisdcos.directory": apex_records(),
            NAME: (address_record(ip_address("127.11.3.4")), address_record(ip_address("fd01:c::9"))),
            f"_web._tcp.{NAME}": (Record(RecordType.SRV, Srv(NAME, 8000)), Record(RecordType.SRV, Srv("gone", 1))),
        },
    )
    localhost = Zone("localhost", {"localhost": (*apex_records(), address_record(host))}, unsynced="not heard")
    return SimpleNamespace(
        tasks=tasks,
        named=named,
        plain=plain,
        snapshot=Cell(
            Snapshot(
                {t.id.key: Owned(t, "host-a", Stamp(1, 0, "host-a")) for t in tasks},
                {},
                {"host-a": Member("host-a", (ip_address("10.0.0.1"),))},
            ),
            turns.later,
        ),
        drained=Cell({}, turns.later),
        vips=Cell({str(vip.key): vip for vip in (plain, named)}, turns.later),
        l4lb=FakeZone(l4lb.apex, Cell(l4lb, turns.later)),
        localhost=FakeZone(localhost.apex, Cell(localhost, turns.later)),
        plane=FakeTraffic(),
        source=FakeSource(
            "files", SourceStatus(True, "2 files", 2, 7.5, (Problem("shop.toml: service 3", "port 0 is not usable"),))
        ),
    )


@pytest.fixture
def toolbox(clock: Clock, turns: Turns, shop: SimpleNamespace, tmp_path: Path) -> FakeToolbox:
    """A toolbox in which the shop is."""
    views = FakeViews(shop.snapshot, shop.vips, shop.drained, Cell(None, turns.later))
    node = Node("host-a", ip_address("10.0.0.1"), (), "1.2.3", 0.0)
    return FakeToolbox(
        reactor=clock,
        node=node,
        state_dir=tmp_path,
        offered={
            IViews: views,
            IDrains: FakeDrains(),
            IMembership: FakeMembership([Member("host-a", (node.address,))], turns.later),
        },
        contributed={IZone: [shop.l4lb, shop.localhost], ITaskSource: [shop.source], ITraffic: [shop.plane]},
        ready={"views": None, "dns": "not listening yet"},
        facts={"dns": {"listen": ["127.0.0.1:8053"]}},
        later=turns.later,
    )
