"""Whole parts with real sockets, and a store in memory: they find each other, and say how they fare."""

from __future__ import annotations

import time
from datetime import timedelta
from ipaddress import ip_address
from random import Random

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from dcosnet.gossip import service
from dcosnet.gossip.addressbook import EVERY
from dcosnet.gossip.cluster import HELLO_PATIENCE
from dcosnet.gossip.membership import Membership
from dcosnet.gossip.metrics import GossipMetrics
from dcosnet.gossip.service import Gossip, Setup
from dcosnet.io.listening import Socket
from dcosnet.io.turns import Turns
from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.member import MemberState
from dcosnet.model.node import Node
from dcosnet.model.stamp import Stamp

HERE = ip_address("127.0.0.1")


class Replica:
    """Whole namespaces in memory."""

    fresh = False

    def __init__(self, node: str, generation: int = 1) -> None:
        self.node, self.generation = node, generation
        self.spaces = {node: {}}
        self.knows = {node: Known(generation, 0)}
        self.told: list = []
        self.judged: dict[str, MemberState] = {}
        self.stored: list = []

    def write(self, key: str) -> None:
        version = self.knows[self.node].version + 1
        stamp = Stamp(version, 0, self.node)
        self.spaces[self.node][key] = Entry(key, self.node, b"", Lifetime.LEASE, version, stamp, stamp)
        self._known(self.node, Known(self.generation, version))

    def _known(self, owner: str, known: Known) -> None:
        self.knows[owner] = known
        for told in self.told:
            told(owner)

    def known(self):
        return self.knows

    def missing(self, owner, known, limit):
        here = self.knows.get(owner, NOTHING)
        return Delta(owner, *here[:1], 0, here.version, self.spaces[owner]) if known < here else None

    def take(self, delta):
        if delta.known <= self.knows.get(delta.owner, NOTHING) or delta.owner == self.node:
            return False
        self.spaces[delta.owner] = dict(delta.changes)
        self._known(delta.owner, delta.known)
        return True

    def follow(self, told):
        self.told.append(told)
        return lambda: self.told.remove(told)

    def judge(self, owner, state):
        self.judged[owner] = state

    def forget(self, owner):
        return True

    def recover(self):
        """It is not fresh."""

    def recovered(self):
        """It never recovers."""

    def expect(self, copies):
        """Nothing durable is written."""

    def confirm(self, peer, known):
        """Nothing durable is written."""

    def follow_copies(self, stored):
        self.stored.append(stored)
        return lambda: self.stored.remove(stored)


class Host:
    """A part `gossip`, and all that is around it."""

    def __init__(
        self, hosts, name, *, tls=None, seeds=(), cluster="prod", generation=1, state=None, leave=False
    ) -> None:
        self.name, self.replica = name, Replica(name, generation)
        node = Node(name, HERE)
        turns = Turns(hosts.reactor.clock)
        setup = Setup(
            cluster,
            [Socket("tcp:0:interface=127.0.0.1", "gossip.listen")],
            tuple(seeds),
            None,
            tls,
            hosts.folder / (state or name) / "gossip" / "peers",
            leave,
        )
        setup.book.parent.parent.mkdir(exist_ok=True)
        self.membership = Membership(node, turns.later, hosts.reactor.seconds, service.WAITING)
        self.metrics = GossipMetrics(self.membership)
        self.metrics.tls = tls
        self.part = Gossip(
            hosts.reactor,
            hosts.reactor,
            setup,
            node,
            self.replica,
            self.membership,
            self.metrics,
            later=turns.later,
            rng=Random(name),
            wall=hosts.wall,
        )
        self.tree = MultiService()
        self.part.setServiceParent(self.tree)
        self.tree.privilegedStartService()
        self.tree.startService()

    @property
    def endpoint(self):
        return self.part.endpoints[0]

    def state(self, name):
        member = self.membership.members.value.get(name)
        return None if member is None else member.state

    def metric(self, name, **labels):
        (family,) = [one for one in self.metrics.collect() if one.name == f"dcosnet_gossip_{name}"]
        return sum(sample.value for sample in family.samples if labels.items() <= sample.labels.items())

    def refusals(self):
        return {(one.peer, one.reason, one.theirs) for one in self.membership.refusals()}


PATIENCE = 60.0
"""Seconds until what does not come is a failure."""


class Cluster:
    """Hosts whose time goes on while the test waits, a hundredth of a second a turn."""

    def __init__(self, hosts) -> None:
        self.hosts = hosts
        self.running: list[Host] = []

    def host(self, name, **more) -> Host:
        if more.pop("secured", False):
            more["tls"] = self.hosts.tls(self.hosts.files(name), name)
        self.running.append(Host(self.hosts, name, **more))
        return self.running[-1]

    async def until(self, holds) -> None:
        from twisted.internet import reactor

        # By the clock, and not by turns: what is done in threads takes as many of them as it likes.
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "it never came"
            self.hosts.reactor.clock.advance(0.01)
            await deferLater(reactor, 0)

    def begin_stop(self, host) -> list:
        """Something is in the list when it has stopped."""
        self.running.remove(host)
        stopped: list = []
        maybeDeferred(host.tree.stopService).addBoth(stopped.append)
        return stopped

    async def stop(self, host) -> None:
        stopped = self.begin_stop(host)
        await self.until(lambda: stopped)


@pytest.fixture
def cluster(hosts):
    """Stopped at the end of the test."""
    made = Cluster(hosts)
    yield made
    for host in list(made.running):
        pytest_twisted.blockon(Deferred.fromCoroutine(made.stop(host)))


@pytest.fixture
def logged():
    """The events of this package meanwhile."""
    events = []

    def observe(event):
        if event.get("log_namespace", "").startswith("dcosnet.gossip"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def alive(*hosts):
    return lambda: all(one.state(other.name) is MemberState.ALIVE for one in hosts for other in hosts)


@pytest_twisted.ensureDeferred
async def test_hosts_find_each_other_by_one_seed_and_know_what_each_says(cluster):
    """With certificates; the third learns of the second from the first."""
    a = cluster.host("a", secured=True)
    b, c = (cluster.host(name, secured=True, seeds=[a.endpoint]) for name in ("b", "c"))
    await cluster.until(alive(a, b, c))
    b.replica.write("x")
    await cluster.until(lambda: "x" in c.replica.spaces.get("b", {}))
    await cluster.until(lambda: sorted(c.part.describe()["links"]) == ["a", "b"])
    assert c.membership.details()["b"].endpoints == (b.endpoint,)
    assert c.metric("members", state="alive") == 3
    assert c.metric("links") == 2
    assert c.metric("bytes_total", direction="in") > 0
    assert c.metric("certificate_left_seconds") > 0
    assert c.part.unready() is None


@pytest_twisted.ensureDeferred
async def test_names_may_be_denied_once_a_peer_has_told_what_it_knows(cluster):
    """And at once where there is nobody to ask."""
    a = cluster.host("a")
    assert a.membership.unsynced.value is None
    a.replica.write("x")
    b = cluster.host("b", seeds=[a.endpoint])
    assert b.membership.unsynced.value == service.WAITING
    await cluster.until(lambda: b.membership.unsynced.value is None)
    assert "x" in b.replica.spaces["a"]


@pytest_twisted.ensureDeferred
async def test_a_node_that_reaches_nobody_goes_by_itself_after_a_while_and_says_so(cluster):
    """It is ready, since it serves what it knows; what is missing is a problem that is told."""
    a = cluster.host("a", seeds=["127.0.0.1:1"])
    assert a.part.unready() is None
    (problem,) = a.part.describe()["problems"]
    assert problem["subject"] == "seeds"
    assert "127.0.0.1:1" in problem["reason"]
    began = cluster.hosts.reactor.seconds()
    await cluster.until(lambda: a.membership.unsynced.value is None)
    assert cluster.hosts.reactor.seconds() - began >= service.ALONE_AFTER


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_to_leave_has_left_when_it_is_stopped(cluster, logged):
    """Others do not wait for it; one event tells it."""
    a = cluster.host("a")
    b = cluster.host("b", seeds=[a.endpoint], leave=True)
    await cluster.until(alive(a, b))
    began = cluster.hosts.reactor.seconds()
    stopped = cluster.begin_stop(b)
    await cluster.until(lambda: a.state("b") is MemberState.LEFT)
    assert cluster.hosts.reactor.seconds() - began <= service.LEAVE
    await cluster.until(lambda: stopped)
    assert a.replica.judged["b"] is MemberState.LEFT
    told = [(one["member"], one["state"], one["was"]) for one in logged if "member" in one]
    assert told.count(("b", "left", "alive")) == 1


@pytest_twisted.ensureDeferred
async def test_a_node_that_is_stopped_is_unreachable_at_once_and_dead_later(cluster, logged):
    """A restart of a daemon takes no names away; one that stays away loses them."""
    a = cluster.host("a")
    b = cluster.host("b", seeds=[a.endpoint])
    await cluster.until(alive(a, b))
    began = cluster.hosts.reactor.seconds()
    stopped = cluster.begin_stop(b)
    await cluster.until(lambda: a.state("b") is MemberState.UNREACHABLE)
    assert cluster.hosts.reactor.seconds() - began < service.LEAVE, "its links are cut at once"
    (accusation,) = a.membership.details()["b"].accused_by
    assert accusation.accuser == "a"
    await cluster.until(lambda: stopped and a.state("b") is MemberState.DEAD)
    told = [(one["state"], one["accused_by"]) for one in logged if one.get("member") == "b"]
    assert ("unreachable", [f"a: {accusation.reason}"]) in told


@pytest_twisted.ensureDeferred
async def test_a_node_without_seeds_finds_those_that_it_knew(cluster):
    """Seeds are for the first time only."""
    a = cluster.host("a")
    b = cluster.host("b", seeds=[a.endpoint])
    await cluster.until(alive(a, b))
    book = cluster.hosts.folder / "b" / "gossip" / "peers"
    cluster.hosts.reactor.clock.advance(EVERY)
    await cluster.until(book.exists)
    await cluster.stop(b)
    again = cluster.host("b", generation=2)
    assert again.membership.unsynced.value == service.WAITING
    await cluster.until(alive(a, again))


@pytest_twisted.ensureDeferred
async def test_another_cluster_is_refused_where_people_look(cluster, logged):
    """By both ends, once in the log, and counted."""
    a = cluster.host("a")
    b = cluster.host("b", seeds=[a.endpoint], cluster="trial")
    await cluster.until(lambda: a.membership.refusals() and b.membership.refusals())
    assert {one[1] for one in a.refusals() | b.refusals()} == {"wrong_cluster"}
    assert a.metric("links_refused_total", reason="wrong_cluster") > 0
    assert a.state("b") is None
    assert len([one for one in logged if one.get("code") == "wrong_cluster"]) <= 4


@pytest_twisted.ensureDeferred
async def test_a_refused_certificate_is_told_where_people_look(cluster, logged):
    """The one that refuses and the one that is refused."""
    a = cluster.host("a", secured=True)
    files = cluster.hosts.files("b", days=5, age=10)
    b = cluster.host("b", tls=cluster.hosts.tls(files, "b"), seeds=[a.endpoint])
    await cluster.until(lambda: a.membership.refusals() and b.membership.refusals())
    assert a.refusals() == {("127.0.0.1", "expired", False)}
    assert b.refusals() == {("a", "certificate", True)}
    assert a.metric("connections_refused_total", reason="expired") > 0
    assert "has expired" in b.part.describe()["problems"][0]["reason"]
    await cluster.until(lambda: a.membership.refusals()[0].count > 2)
    assert len([one for one in logged if one.get("code") == "expired"]) == 1, "what goes on is told once"
    cluster.hosts.files("b", renew=True)
    await cluster.until(alive(a, b))
    assert b.metric("certificate_reloads_total") == 1


@pytest_twisted.ensureDeferred
async def test_the_older_of_two_nodes_of_one_name_stands_aside(cluster):
    """It is not ready and says why; the newer one takes part."""
    a = cluster.host("a")
    old = cluster.host("b", seeds=[a.endpoint])
    await cluster.until(alive(a, old))
    new = cluster.host("b", seeds=[a.endpoint], generation=2, state="b2")
    await cluster.until(lambda: old.part.unready() is not None)
    assert "b" in old.part.unready()
    assert old.metric("superseded") == 1
    assert old.membership.details()["b"].problem == old.part.unready()
    await cluster.until(alive(a, new))


@pytest_twisted.ensureDeferred
async def test_a_client_that_says_nothing_is_cut(cluster):
    """Also in plaintext, where there is no handshake."""
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
    from twisted.internet.protocol import Protocol

    lost = []

    class Silent(Protocol):
        def connectionLost(self, reason):
            lost.append(reason)

    a = cluster.host("a")
    port = int(a.endpoint.rpartition(":")[2])
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Silent())
    began = cluster.hosts.reactor.seconds()
    await cluster.until(lambda: lost)
    assert cluster.hosts.reactor.seconds() - began >= HELLO_PATIENCE


@pytest_twisted.ensureDeferred
async def test_renewed_files_are_looked_at_in_the_course_of_time(cluster):
    """Nobody has to tell a daemon."""
    a = cluster.host("a", secured=True)
    left = a.metric("certificate_left_seconds")
    cluster.hosts.files("a", days=700, renew=True)
    await cluster.until(lambda: a.metric("certificate_reloads_total") == 1)
    assert a.metric("certificate_left_seconds") > left + timedelta(days=300).total_seconds()
