"""
Several hosts: what each one serves of all of them, while members come, are cut off and die.

Stores and views are the real ones. What gossip does is done here by hand: deltas
are carried from store to store, and verdicts are said.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
from twisted.internet.defer import maybeDeferred

from dcosnet.io.turns import Turns
from dcosnet.kv.service import KeyValue
from dcosnet.model.delta import NOTHING
from dcosnet.model.facts import Facts, Leader
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing.fake_membership import FakeMembership
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.views.service import Views
from dcosnet.views.zones import TASKS

WHOLE = 1 << 40
"""A limit that cuts nothing."""

ALIVE, UNREACHABLE, DEAD, LEFT = MemberState
WEB = "tcp//web.shop:80"
ROOM = 1 << 20


class Source:
    name = "told"

    def watch(self, sink):
        self.tell = sink


class Host:
    """One node, with one source."""

    def __init__(self, number, clock, unsynced=None):
        self.name, self.address = f"host-{number}", ip_address(f"10.0.0.{number}")
        self.node, later = Node(self.name, self.address), Turns(clock).later
        self.store = KeyValue(
            self.name, Path("/kv"), MemoryDisk(Path("/kv").parent), clock.seconds, later, clock.callLater, maybeDeferred
        )
        self.membership, self.source = FakeMembership([self.member()], later, unsynced), Source()
        self.views = Views(self.node, self.store, self.membership, [self.source], [], later, clock.seconds)
        self.store.privilegedStartService()
        self.store.startService()
        self.views.startService()

    def member(self, state=ALIVE):
        return Member(self.name, (self.address,), state)

    def see(self, other, state):
        """As gossip does it: the store hears of it when the members' cell does."""
        self.store.judge(other.name, state)
        self.membership.put(other.member(state))

    def hear(self, other):
        """Take what another one knows, of whatever owner."""
        for owner in list(other.store.known()):
            known = self.store.known().get(owner, NOTHING)
            while (delta := other.store.missing(owner, known, WHOLE)) is not None and self.store.take(delta):
                known = delta.known

    def backends(self):
        vip = self.views.vips.value.get(WEB)
        return [] if vip is None else sorted(str(each.agent) for each in vip.backends)

    @property
    def zone(self):
        return next(each for each in self.views.zones if each.apex == TASKS).zone.value

    def resolves(self, name):
        """The addresses of a task's name; None where it would be denied, "SERVFAIL" where it must not be yet."""
        records = self.zone.records.get(f"{name}.shop.agentip.{TASKS}")
        if records is None:
            return None if self.zone.unsynced is None else "SERVFAIL"
        return [str(record.data) for record in records]

    def shown(self):
        """What everybody has to agree on."""
        snapshot = self.views.snapshot.value
        return (
            {key: (owned.value, owned.owner) for key, owned in snapshot.tasks.items()},
            {key: (owned.value, owned.owner) for key, owned in snapshot.nodes.items()},
            dict(self.views.vips.value),
            {each.apex: dict(each.zone.value.records) for each in self.views.zones if each.apex == TASKS},
        )


def task(name, host, *, agent=None):
    address = agent or host.address
    return Task(
        TaskId("shop", f"{name}@{address}"),
        name,
        "shop",
        address,
        (address,),
        (Port(Protocol.TCP, 80, vips=("/web:80",)),),
    )


def facts(*tasks, leader=None):
    return Facts({each.id: each for each in tasks}, leader=leader)


class Fleet:
    """Hosts that know each other as members; each runs "web", and a task of its own name."""

    def __init__(self, clock, count=3):
        self.clock = clock
        self.hosts = [Host(number, clock) for number in range(1, count + 1)]
        for host in self.hosts:
            host.source.tell(facts(task("web", host), task(host.name, host)))
        self.gossip()
        for host in self.hosts:
            host.membership.put(*(other.member() for other in self.hosts))
        self.gossip()

    def gossip(self, *apart):
        """Each hears its neighbours until all is told; but for those who are apart."""
        together = [host for host in self.hosts if host not in apart]
        self.clock.advance(0)
        for _ in together:
            for host in together:
                for other in together:
                    if host is not other:
                        host.hear(other)
            self.clock.advance(0)

    def all_see(self, other, state):
        for host in self.hosts:
            if host is not other:
                host.see(other, state)
        self.clock.advance(0)


@pytest.fixture
def fleet(clock) -> Fleet:
    clock.advance(1000)
    return Fleet(clock)


def test_each_host_serves_what_all_hosts_have(fleet):
    """Tasks, VIPs, names and nodes: the same everywhere, though each source is on one host."""
    first = fleet.hosts[0]
    assert first.backends() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert first.resolves("web") == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert sorted(first.views.snapshot.value.nodes) == ["node/host-1", "node/host-2", "node/host-3"]
    assert all(host.shown() == first.shown() for host in fleet.hosts)


def test_news_travels_over_others(fleet):
    """Two hosts that have no link with each other still know the same."""
    first, second, third = fleet.hosts
    third.source.tell(facts(task("new", third)))
    fleet.clock.advance(0)
    second.hear(third)
    first.hear(second)
    fleet.clock.advance(0)
    assert first.resolves("new") == ["10.0.0.3"]
    assert first.resolves("host-3") is None


def test_backends_on_an_unreachable_host_get_nothing_new_at_once(fleet):
    """Its names stay: that is quick, and often wrong; the names are right again when it is back."""
    first, _, third = fleet.hosts
    fleet.all_see(third, UNREACHABLE)
    assert first.backends() == ["10.0.0.1", "10.0.0.2"]
    assert first.resolves("host-3") == ["10.0.0.3"]
    fleet.all_see(third, ALIVE)
    assert first.backends() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


@pytest.mark.parametrize("state", [DEAD, LEFT])
def test_what_a_dead_host_said_is_gone_everywhere(fleet, state):
    """Its backends, its names and its entry among the nodes: they were leases."""
    first, second, third = fleet.hosts
    fleet.all_see(third, UNREACHABLE)
    fleet.all_see(third, state)
    assert first.backends() == second.backends() == ["10.0.0.1", "10.0.0.2"]
    assert first.resolves("host-3") is None
    assert first.resolves("web") == ["10.0.0.1", "10.0.0.2"]
    assert "node/host-3" not in first.views.snapshot.value.nodes


def test_a_host_that_comes_back_brings_all_that_it_has(fleet):
    """It was only cut off: it says nothing anew, and others fetch its keys again."""
    first, _, third = fleet.hosts
    before = first.shown()
    fleet.all_see(third, UNREACHABLE)
    fleet.all_see(third, DEAD)
    assert first.shown() != before
    fleet.all_see(third, ALIVE)
    fleet.gossip()
    assert all(host.shown() == before for host in fleet.hosts)


def test_a_host_that_is_cut_off_keeps_what_it_has_alone(fleet):
    """A VIP whose backends are all unreachable keeps them; when they are dead, what is left is its own."""
    first, second, third = fleet.hosts
    only = "tcp//web.other:80"
    far = Task(TaskId("other", "o"), "o", "other", second.address, (second.address,), task("web", second).ports)
    second.source.tell(facts(task("web", second), far))
    fleet.gossip()
    for other in (second, third):
        first.see(other, UNREACHABLE)
    fleet.clock.advance(0)
    assert first.backends() == ["10.0.0.1"]
    assert [str(each.agent) for each in first.views.vips.value[only].backends] == ["10.0.0.2"]
    for other in (second, third):
        first.see(other, DEAD)
    fleet.clock.advance(0)
    assert first.backends() == ["10.0.0.1"]
    assert only not in first.views.vips.value


def test_an_agent_that_is_no_member_is_told_of_by_the_leading_master_and_reachable(fleet):
    """Hosts without dcosnet stay in service."""
    first, second, _ = fleet.hosts
    stranger = ip_address("10.0.0.99")
    first.source.tell(
        facts(task("web", first), task("web", first, agent=stranger), leader=Leader(Endpoint(first.address, 5050), ()))
    )
    fleet.gossip()
    assert "10.0.0.99" in second.backends()


def test_the_leading_masters_node_tells_of_the_tasks_of_a_dead_member(fleet):
    """Mesos knows better who runs what: names stay. Its backends get nothing: the host is more likely dead than not."""
    first, second, third = fleet.hosts
    leader = Leader(Endpoint(first.address, 5050), ())
    first.source.tell(facts(*(task("web", host) for host in fleet.hosts), leader=leader))
    fleet.gossip()
    key = task("web", third).id.key
    assert second.views.snapshot.value.tasks[key].owner == "host-3"
    fleet.all_see(third, UNREACHABLE)
    fleet.gossip(third)
    assert second.views.snapshot.value.tasks[key].owner == "host-3", "that is quick, and passes"
    fleet.all_see(third, DEAD)
    fleet.gossip(third)
    assert second.views.snapshot.value.tasks[key].owner == "host-1"
    assert second.resolves("web") == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert second.backends() == ["10.0.0.1", "10.0.0.2"]
    fleet.all_see(third, ALIVE)
    fleet.gossip()
    assert second.backends() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    # Two tell the same now. The one written last counts: the next that the member itself has to say.
    third.source.tell(facts(attrs.evolve(task("web", third), weight=5)))
    fleet.gossip()
    assert second.views.snapshot.value.tasks[key].owner == "host-3"
    assert second.views.snapshot.value.tasks[key].value.weight == 5
    third.source.tell(facts())
    fleet.gossip()
    assert second.resolves("web") == ["10.0.0.1", "10.0.0.2"], "the leading master's node tells of it no more"


def test_a_host_that_joins_denies_no_name_of_others(fleet, clock):
    """Its own source has spoken; the others have not been heard."""
    new = Host(4, clock, unsynced="no peer has been heard yet")
    new.source.tell(facts(task("own", new)))
    clock.advance(0)
    assert new.resolves("own") == ["10.0.0.4"]
    assert new.resolves("host-1") == "SERVFAIL"
    new.hear(fleet.hosts[0])
    new.membership.unsynced.publish(None)
    clock.advance(0)
    assert new.resolves("host-1") == ["10.0.0.1"]
    assert new.resolves("nobody") is None


def test_every_host_answers_the_question_of_one(fleet):
    """Each with one write, though it hears the question from everybody."""
    first = fleet.hosts[0]
    fleet.clock.advance(60)
    number = first.views.refresh()
    fleet.gossip()
    for host in fleet.hosts:
        nodes = [owned.value for owned in host.views.snapshot.value.nodes.values()]
        assert [(node.refresh, node.updated) for node in nodes] == [(number, 1060.0)] * 3
    before = {host.name: host.store.known()[host.name] for host in fleet.hosts}
    fleet.gossip()
    assert {host.name: host.store.known()[host.name] for host in fleet.hosts} == before
