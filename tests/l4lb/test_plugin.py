"""The part as a whole: VIPs in, names and connections out, in the promised order."""

from __future__ import annotations

import resource
import socket
from ipaddress import ip_address
from pathlib import Path
from random import Random

import attrs
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dcosnet.config.fields import Duration
from dcosnet.errors import ConfigErrors
from dcosnet.interfaces import IMetrics, IToolbox, ITraffic, IViews, IZone
from dcosnet.io.turns import Turns
from dcosnet.l4lb.plugin import Settings, make_part
from dcosnet.l4lb.zone import NOT_APPLIED, VipZone
from dcosnet.model import net as model
from dcosnet.model.addressing import parse_range
from dcosnet.model.cell import Cell
from dcosnet.model.node import Node
from dcosnet.model.stamp import Stamp
from dcosnet.model.traffic import Use, VipTraffic
from dcosnet.model.vip import Vip, VipKey

from .rig import HOME, VIP, Echo, backend, free_port, network

RANGE = parse_range("127.11.0.0-127.11.255.254")
NAME = "web.shop.l4lb.thisdcos.directory"


@implementer(IViews)
class FakeViews:
    def __init__(self, later) -> None:
        self.snapshot = Cell(None, later)
        self.vips = Cell({}, later)
        self.unsynced = Cell("the files are not read yet", later)


@implementer(IToolbox)
@attrs.frozen
class FakeToolbox:
    views: FakeViews
    later: object
    reactor: object = reactor
    rng: Random = attrs.Factory(lambda: Random(1))
    node: Node = attrs.Factory(lambda: Node("n", HOME))
    state_dir: Path = Path("/nonexistent")

    def __getitem__(self, interface):
        assert interface is IViews
        return self.views

    def all(self, interface):
        return ()

    def readiness(self):
        return {}

    def describe(self):
        return {}


class Running:
    """A part that runs, with what it contributes."""

    def __init__(self, settings: Settings) -> None:
        self.turns = Turns(reactor)
        self.views = FakeViews(self.turns.later)
        self.part = make_part(settings, FakeToolbox(self.views, self.turns.later))
        given = dict(self.part.contributes)
        self.zone = given[IZone]
        self.metrics = given[IMetrics]
        self.traffic = given[ITraffic]
        self.history: list[tuple[tuple[str, ...], str | None]] = []
        self.zone.zone.subscribe(self._saw)
        self.part.service.startService()

    def _saw(self, zone, _changed) -> None:
        self.history.append((tuple(name for name in zone.records if name != zone.apex), zone.unsynced))

    async def tell(self, *vips: Vip, unsynced: str | None = None) -> None:
        self.views.vips.publish({str(vip.key): vip for vip in vips})
        if self.views.unsynced.value != unsynced:
            self.views.unsynced.publish(unsynced)
        for _ in range(15):
            await deferLater(reactor, 0)

    def values(self) -> dict[str, float]:
        return {
            "".join([metric.name.removeprefix("dcosnet_l4lb_"), *sample.labels.values()]): sample.value
            for metric in self.metrics.collect()
            for sample in metric.samples
        }

    async def until(self, holds) -> None:
        for _ in range(10_000):
            if holds():
                return
            await deferLater(reactor, 0.001)
        raise AssertionError("it never held")

    def told(self, vip: Vip) -> VipTraffic:
        return self.traffic.traffic()[str(vip.key)]

    def address(self) -> str:
        (record,) = self.zone.zone.value.records[NAME]
        return str(record.data)


@pytest.fixture
def running():
    made = Running(Settings(named_vips=(RANGE,), routes=False))
    yield made
    pytest_twisted.blockon(made.part.service.stopService())


@pytest.fixture
def net():
    with network() as made:
        yield made


def web(port: int, *backends, name: str = "/web") -> Vip:
    return Vip(VipKey(model.Protocol.TCP, port, name=name, framework="shop"), backends, Stamp(1, 0, "n"))


@pytest_twisted.ensureDeferred
async def test_a_vip_comes_answers_and_goes(running, net) -> None:
    """The name is there once the VIP answers, and gone when the VIP is."""
    verifyObject(IZone, running.zone)
    verifyObject(IMetrics, running.metrics)
    assert running.part.ready() == NOT_APPLIED
    _, back = net.serve(Echo, b"hello")
    port = free_port()
    await running.tell(web(port, backend(back)))
    assert running.part.ready() is None
    client = await net.connect(port, running.address())
    await client.until(lambda one: one.got == b"hello")
    assert running.values()["vips"] == 1
    assert running.values()["connections_active"] == 1
    home = running.address()
    await running.tell()
    assert NAME not in running.zone.zone.value.records
    with socket.socket() as probe:
        assert probe.connect_ex((home, port)) != 0


@pytest_twisted.ensureDeferred
async def test_the_name_goes_before_the_listener(running) -> None:
    """At the moment when the zone without the name is told, the VIP still listens."""
    port = free_port()
    await running.tell(web(port, backend(1)))
    home = running.address()
    seen = []

    def told(zone, _changed) -> None:
        with socket.socket() as probe:
            seen.append((NAME in zone.records, probe.connect_ex((home, port)) == 0))

    end = running.zone.zone.subscribe(told)
    await running.tell()
    end()
    assert seen == [(True, True), (False, True)]


@pytest_twisted.ensureDeferred
async def test_a_name_that_moves_is_served_at_both_addresses_for_a_while(running, net) -> None:
    """Who was told the former address before goes on to connect there."""
    _, back = net.serve(Echo, b"hello")
    port = free_port()
    await running.tell(web(port, backend(back)))
    old = running.address()
    taker = Vip(VipKey(model.Protocol.TCP, free_port(), address=ip_address(old)), (backend(1),))
    await running.tell(web(port, backend(back)), taker)
    assert running.address() != old
    for home in (old, running.address()):
        client = await net.connect(port, home)
        await client.until(lambda one: one.got == b"hello")
    told = running.told(web(port, backend(back)))
    assert [str(one.endpoint.address) for one in told.listeners] == [running.address(), old]
    assert [one.flows.taken for one in told.backends()] == [2]
    assert told.total.taken == 2


@pytest_twisted.ensureDeferred
async def test_absent_names_are_not_denied_before_all_is_applied(running) -> None:
    await running.tell(web(free_port(), backend(1)), unsynced="the agent is not heard yet")
    assert running.history[-1] == ((NAME,), "the agent is not heard yet")
    await running.tell(web(free_port(), backend(1)))
    assert running.history[0] == ((), NOT_APPLIED)
    assert running.history[-1] == ((NAME,), None)
    await running.tell(unsynced="lost")
    assert running.history[-1][1] == "lost"


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_served_is_described_and_has_no_name(running) -> None:
    await running.tell(Vip(VipKey(model.Protocol.TCP, 80, address=ip_address("203.0.113.1")), (backend(1),)))
    (problem,) = running.part.describe()["problems"]
    assert problem["subject"] == "tcp/203.0.113.1:80"
    assert "127.11.0.0" in problem["reason"]
    assert running.values()["problems"] == 1
    assert running.part.describe()["plane"] == "userspace"
    await running.tell()
    assert running.part.describe()["problems"] == []


@pytest_twisted.ensureDeferred
async def test_a_vip_that_points_at_itself_is_described(running) -> None:
    itself = Vip(VipKey(model.Protocol.TCP, 8000, address=VIP), (attrs.evolve(backend(8000), address=VIP),))
    await running.tell(itself)
    assert "itself" in running.part.describe()["problems"][0]["reason"]
    assert running.values()["loops"] == 1


@pytest_twisted.ensureDeferred
async def test_two_labels_of_one_name_share_it_with_both_addresses(running) -> None:
    await running.tell(web(free_port(), backend(1)), web(free_port(), backend(1), name="web"))
    assert len(running.zone.zone.value.records[NAME]) == 2


@pytest_twisted.ensureDeferred
async def test_a_part_that_stops_leaves_nothing_behind(net) -> None:
    made = Running(Settings(named_vips=(RANGE,), routes=False))
    _, back = net.serve(Echo, b"hello")
    port = free_port()
    await made.tell(web(port, backend(back)))
    client = await net.connect(port, made.address())
    await client.until(lambda one: one.got == b"hello")
    await made.part.service.stopService()
    await client.until(lambda one: one.lost is not None)


def test_all_settings_that_cannot_be_met_are_refused_by_name() -> None:
    with pytest.raises(ConfigErrors) as caught:
        make_part(
            Settings(
                named_vips=(RANGE, RANGE), max_connections=0, max_connections_per_vip=0, idle_timeout=Duration(0.0)
            ),
            None,
        )
    assert [problem.path for problem in caught.value.problems] == [
        "l4lb.named_vips",
        "l4lb.max_connections",
        "l4lb.max_connections_per_vip",
        "l4lb.idle_timeout",
    ]


@pytest_twisted.ensureDeferred
async def test_listeners_count_against_the_room_for_connections(running, monkeypatch) -> None:
    """As they come and go; the status says what there is room for, and why it is no more."""
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1384, 4096))
    await running.tell(*(web(free_port(), backend(1), name=f"/web{number}") for number in range(40)))
    facts = running.part.describe()
    assert (facts["listeners"], facts["max_connections"], facts["max_udp_flows"]) == (40, 360, 240)
    assert "1384 open files are allowed and listeners have 40 of them" in facts["limited"]
    await running.tell()
    await running.until(lambda: running.part.describe()["listeners"] == 0)
    assert running.part.describe()["max_connections"] == 375
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await running.tell(web(free_port(), backend(1)))
    facts = running.part.describe()
    assert (facts["max_connections"], facts["max_udp_flows"], facts["limited"]) == (16384, 4096, None)


def test_the_zone_keeps_its_value_when_nothing_changed() -> None:
    zone = VipZone()
    before = zone.zone
    assert zone.take_applied({}, None) == frozenset()
    assert not zone.take_reason(NOT_APPLIED)
    assert zone.zone is before


@pytest_twisted.ensureDeferred
async def test_what_passes_is_counted_by_vip_and_backend(running, net) -> None:
    """While it runs, after it has ended, and of the VIP also when the backend is gone."""
    verifyObject(ITraffic, running.traffic)
    _, back = net.serve(Echo, b"hello")
    dead = free_port()
    vip = web(free_port(), backend(back), backend(dead))
    await running.tell(vip)
    assert running.told(vip).listeners[0].problem is None
    clients = [await net.connect(vip.key.port, running.address()) for _ in range(8)]
    for client in clients:
        client.transport.write(b"1234567")
        await client.until(lambda one: one.got == b"hello1234567")
    open_ones = running.told(vip)
    good, bad = open_ones.backends()
    assert (good.flows.taken, good.flows.active, sum(good.flows.connects)) == (8, 8, 8)
    assert (good.flows.to_backend, good.flows.to_client) == (8 * 7, 8 * 12), "of connections that are open"
    assert bad.flows.failures["refused"] == good.flows.retries > 0
    assert good.use is Use.IN_USE
    assert good.latency is not None
    # One goes on while its backend leaves, and counts yet.
    for client in clients[1:]:
        client.transport.loseConnection()
        await client.until(lambda one: one.lost is not None)
    await running.until(lambda: running.told(vip).total.active == 1)
    await running.tell(attrs.evolve(vip, backends=(backend(dead),)))
    clients[0].transport.write(b"8")
    await clients[0].until(lambda one: one.got.endswith(b"8"))
    left = running.told(vip)
    assert [one.endpoint.port for one in left.backends()] == [dead]
    assert (left.total.taken, left.total.active, left.total.to_backend) == (8, 1, 8 * 7 + 1)
    clients[0].transport.loseConnection()
    await running.until(lambda: running.told(vip).total.active == 0)
    assert running.told(vip).total.to_backend == 8 * 7 + 1
    values = running.values()
    assert values[f"vip_connections_total{NAME}:{vip.key.port}tcp"] == 8
    await running.tell()
    assert running.traffic.traffic() == {}
    assert not any(name.startswith("vip_connections") for name in running.values())


@pytest_twisted.ensureDeferred
async def test_what_is_not_served_says_why_where_its_traffic_is_told(running) -> None:
    away = Vip(VipKey(model.Protocol.TCP, 80, address=ip_address("192.0.2.1")), (backend(1),))
    loop = Vip(VipKey(model.Protocol.TCP, 8000, address=VIP), (attrs.evolve(backend(8000), address=VIP),))
    await running.tell(away, loop)
    (listener,) = running.told(away).listeners
    assert listener.problem == running.part.describe()["problems"][0]["reason"]
    assert running.told(loop).listeners == []
    assert "itself" in running.told(loop).problems[0]
    assert set(running.traffic.traffic([str(away.key), "tcp/none:1"])) == {str(away.key)}
