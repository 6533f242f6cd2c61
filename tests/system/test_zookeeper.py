"""Masters elected in a real ZooKeeper ensemble: whatever happens to it or to them, names stay right."""

from __future__ import annotations

import contextlib
import json
import threading

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest
import pytest_twisted
from daemon import vip_net
from ensemble import JAR, PATIENCE, Ensemble
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError, NoNodeError
from kazoo.retry import KazooRetry
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from dcosnet.sources.mesos.leader import Known, ZooKeeperWatch
from dcosnet.sources.mesos.masterinfo import parse_zk
from dcosnet.testing.fake_mesos import FakeCluster, FakeMaster

pytestmark = pytest.mark.system

HALF = 0.5
STALE = 'dcosnet_mesos_stale_seconds{of="zookeeper"}'
NAME = "{}.marathon.agentip.dcos.thisdcos.directory"
CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[mesos]
zk = "zk://{credentials}@{hosts}{path}"
[l4lb]
plane = "userspace"
named_vips = ["{net}.1-{net}.250"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""


@pytest.fixture(scope="module")
def servers(require_program, require_file, tmp_path_factory):
    """Of all tests of this file."""
    require_file(JAR, "zookeeperd")
    made = Ensemble(require_program("java"), tmp_path_factory.mktemp("zookeeper"))
    yield made
    made.kill()


@pytest.fixture
def ensemble(servers):
    """Each test finds all three running, and uses a path of its own."""
    servers.start()
    servers.wait()
    return servers


class Election:
    """
    What masters do in ZooKeeper, done for them: each has a node while it stands.

    The numbers are given here and not by ZooKeeper, so that a node whose making
    was not confirmed may be made again.
    """

    def __init__(self, hosts, path, *, open_to_all=False):
        self.retry = KazooRetry(max_tries=-1, max_delay=1.0, deadline=PATIENCE)
        self.client = KazooClient(
            hosts,
            auth_data=[("digest", "mesos:secret")],
            connection_retry=KazooRetry(max_tries=-1, max_delay=1.0),
            command_retry=self.retry,
        )
        self.path = path
        # Only who has the password may read it, so a daemon that did not use it would see nothing.
        self.acl = OPEN_ACL_UNSAFE if open_to_all else [make_digest_acl("mesos", "secret", all=True)]
        self.number = 0
        self.nodes = {}
        self.client.start(PATIENCE)

    def begin(self):
        self.client.retry(self.client.ensure_path, self.path)
        self.client.retry(self.client.set_acls, self.path, self.acl)

    def leave(self, name, data):
        """A node below the path, with what a master leaves in it."""
        with contextlib.suppress(NodeExistsError):
            self.client.retry(self.client.create, f"{self.path}/{name}", data, acl=self.acl)

    def stand(self, master):
        self.number += 1
        self.nodes[master.port] = name = f"json.info_{self.number:010}"
        info = {"address": {"ip": "127.0.0.1", "port": master.port}, "hostname": "localhost"}
        self.leave(name, json.dumps(info).encode())

    def fall(self, master):
        with contextlib.suppress(NoNodeError):
            self.client.retry(self.client.delete, f"{self.path}/{self.nodes.pop(master.port)}")

    @property
    def session(self):
        return self.client.client_id[0]

    def end(self):
        self.client.stop()
        self.client.close()


class _End(Protocol):
    """One side of a connection through the proxy."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.other = None
        self.kept = []

    def connectionMade(self):
        self.proxy.ends.add(self)

    def dataReceived(self, data):
        if self.proxy.stalled:
            return
        if self.other is None:
            self.kept.append(data)
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason):
        self.proxy.ends.discard(self)
        if self.other is not None:
            self.other.transport.loseConnection()


class Proxy(Factory):
    """Between the daemon and a server; while it is stalled, nothing passes and connections stay open."""

    noisy = False

    def __init__(self, reactor, server):
        self.reactor = reactor
        self.server = server
        self.stalled = False
        self.ends = set()
        self.listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.port = self.listening.getHost().port

    def buildProtocol(self, addr):
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        near = _End(self)

        def joined(far):
            near.other, far.other = far, near
            for data in near.kept:
                far.transport.write(data)

        endpoint = TCP4ClientEndpoint(self.reactor, self.server.address, self.server.port)
        connectProtocol(endpoint, _End(self)).addCallbacks(joined, lambda _: near.transport.abortConnection())
        return near

    @property
    def joined(self):
        """Whether a connection leads through it."""
        return any(end.other is not None for end in self.ends)

    def stop(self):
        for end in tuple(self.ends):
            end.transport.abortConnection()
        return self.listening.stopListening()


class Asker(threading.Thread):
    """A client that asks for a name twice a second, and keeps what it was told."""

    def __init__(self, address, port, name):
        super().__init__()
        self.where = (address, int(port))
        self.name_asked = name
        self.over = threading.Event()
        self.answers = []

    def run(self):
        while not self.over.wait(HALF):
            self.answers.append(look_up(*self.where, self.name_asked))


def look_up(address, port, name):
    """The addresses of a name, or what was told in their place."""
    try:
        reply = dns.query.udp(dns.message.make_query(name, "A"), address, timeout=5, port=port)
    except dns.exception.Timeout:
        return "no answer"
    if reply.rcode() != dns.rcode.NOERROR:
        return dns.rcode.to_text(reply.rcode())
    return [str(value) for rrset in reply.answer for value in rrset]


async def until(holds, why):
    """Look again and again while the reactor turns."""
    from twisted.internet import reactor

    deadline = reactor.seconds() + PATIENCE
    while not await deferToThread(holds):
        assert reactor.seconds() < deadline, why() if callable(why) else why
        await deferLater(reactor, 0.1)


def problems(daemon):
    """What the source says is wrong."""
    _, sources = daemon.get("/v1/sources")
    return json.dumps(sources)


def stale(daemon):
    """Seconds without a word of ZooKeeper, as the metric tells."""
    _, text = daemon.get("/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith(STALE)]
    return float(line.rpartition(" ")[2])


class Cluster:
    """Three masters of one cluster that stand in a row; the first of the row leads."""

    def __init__(self, reactor, election):
        self.content = FakeCluster()
        self.marathon, self.agent = self.content.add_framework("marathon"), self.content.add_agent("10.1.1.1")
        self.masters = [FakeMaster(reactor, self.content, heartbeat=1.0) for _ in range(3)]
        self.election = election
        self._every = tuple(self.masters)

    def add_task(self, name):
        self.content.add_task(name, self.marathon, self.agent)

    @property
    def leader(self):
        return self.masters[0]

    async def start(self):
        for master in self.masters:
            master.start()
        self._follow()
        for master in self.masters:
            await deferToThread(self.election.stand, master)

    def _follow(self):
        self.leader.lead()
        for master in self.masters[1:]:
            master.step_down(self.leader)

    async def kill_leader(self):
        """The next in the row leads, whether or not ZooKeeper can be told."""
        killed = self.masters.pop(0)
        await killed.stop()
        self._follow()
        return killed

    async def depose_leader(self):
        """ZooKeeper says that the next in the row leads, and the old one does not know it: it goes on as it did."""
        deposed = self.masters.pop(0)
        self.leader.lead()
        await deferToThread(self.election.fall, deposed)
        return deposed

    async def step_back(self, deposed):
        """It has learnt it, and stands behind the others."""
        await deferToThread(self.election.stand, deposed)
        self.masters.append(deposed)
        self._follow()

    async def rejoin(self, killed):
        """It starts again and stands behind the others."""
        killed.step_down(self.leader)
        killed.start(killed.port)
        await deferToThread(self.election.stand, killed)
        self.masters.append(killed)

    async def stop(self):
        for master in self._every:
            await master.stop()


class Rig:
    """A daemon that sees the ensemble through proxies, and the client that asks it."""

    def __init__(self, reactor, ensemble, cluster):
        self.reactor = reactor
        self.ensemble = ensemble
        self.cluster = cluster
        self.proxies = [Proxy(reactor, server) for server in ensemble.servers]
        self.daemon = None
        self.asker = None
        self.where = None

    def config(self, path):
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.proxies)
        return CONFIG.format(credentials="mesos:secret", hosts=hosts, path=path, net=vip_net())

    async def start(self, daemon):
        self.daemon = daemon
        daemon.start()
        address, port = await deferToThread(lambda: daemon.dns)
        self.where = (address, int(port))
        await self.serves("web")
        self.asker = Asker(address, port, NAME.format("web"))
        self.asker.start()

    async def serves(self, name):
        """A task that starts now gets its name."""
        self.cluster.add_task(name)
        await until(lambda: look_up(*self.where, NAME.format(name)) == ["10.1.1.1"], f"{name} is never served")

    async def changes_leader(self, name):
        """The leading master is killed; the next one is heard, and what it tells is served."""
        killed = await self.cluster.kill_leader()
        await deferToThread(self.cluster.election.fall, killed)
        await self.serves(name)
        assert self.cluster.leader.streams == 1
        await self.cluster.rejoin(killed)

    async def hears_election(self, name):
        """Of another leader, which nobody but ZooKeeper can have told."""
        deposed = await self.cluster.depose_leader()
        await until(lambda: self.cluster.leader.streams == 1, "the new leader is never followed")
        await self.cluster.step_back(deposed)
        await self.serves(name)

    async def misses_zookeeper(self):
        """In all three places."""
        await until(lambda: "cannot be reached" in problems(self.daemon), "that ZooKeeper is gone does not show")
        assert "cannot be reached" in (await deferToThread(self.daemon.get, "/readyz?verbose"))[1]
        await until(lambda: stale(self.daemon) > 0, "the metric does not show it")

    async def is_well(self):
        """In all three places."""
        await until(lambda: self.daemon.get("/readyz")[0] == 200, "the daemon is never ready again")
        assert "cannot be reached" not in await deferToThread(problems, self.daemon)
        assert await deferToThread(stale, self.daemon) == 0

    def session(self):
        """The daemon's; None while it has none."""
        others = self.ensemble.sessions() - {self.cluster.election.session}
        return next(iter(others), None)

    @property
    def connected(self):
        """The server that the daemon is connected to; None while there is none."""
        return next((proxy.server for proxy in self.proxies if proxy.joined), None)

    async def stop(self):
        if self.asker is not None:
            self.asker.over.set()
            await deferToThread(self.asker.join)
        if self.daemon is not None and self.daemon.process is not None:
            await deferToThread(self.daemon.stop)
        for proxy in self.proxies:
            await proxy.stop()


@pytest_twisted.ensureDeferred
async def test_names_stay_right_through_all_that_happens_to_the_election(ensemble, make_daemon):
    """Masters and servers are killed, the session expires, the ensemble restarts: no answer is ever wrong."""
    from twisted.internet import reactor

    path = "/dcos/cluster-a/mesos"
    election = await deferToThread(Election, ensemble.hosts, path)
    cluster = Cluster(reactor, election)
    rig = Rig(reactor, ensemble, cluster)
    try:
        await deferToThread(election.begin)
        await cluster.start()
        await rig.start(make_daemon(rig.config(path)))

        # The leading master is killed.
        await rig.changes_leader("one")

        # The session expires while nothing passes; an election after it is heard.
        before = await deferToThread(rig.session)
        for proxy in rig.proxies:
            proxy.stalled = True
        await rig.misses_zookeeper()
        await until(lambda: before not in ensemble.sessions(), "the session never expires")
        for proxy in rig.proxies:
            proxy.stalled = False
        await rig.is_well()
        assert await deferToThread(rig.session) not in {None, before}
        await rig.hears_election("two")

        # The server that the daemon talks to is killed; another one tells it of the next election.
        lost = rig.connected
        await deferToThread(lost.kill)
        await until(lambda: rig.connected not in {None, lost}, "no other server is found")
        await rig.hears_election("three")
        await deferToThread(ensemble.start)
        await deferToThread(ensemble.wait)

        # The server that leads the others is killed: they elect another one, and answer nobody meanwhile.
        leader = await deferToThread(lambda: ensemble.leader)
        await deferToThread(leader.kill)
        await rig.changes_leader("four")
        await deferToThread(ensemble.start)
        await deferToThread(ensemble.wait)
        await rig.is_well()
        await rig.hears_election("five")

        # The whole ensemble is gone, and the leading master is killed meanwhile: those known last are asked.
        await deferToThread(ensemble.kill)
        await rig.misses_zookeeper()
        killed = await cluster.kill_leader()
        await rig.serves("six")
        assert cluster.leader.streams == 1
        await deferToThread(ensemble.start)
        await deferToThread(election.fall, killed)
        await cluster.rejoin(killed)
        await rig.is_well()
        await rig.hears_election("seven")
    finally:
        await rig.stop()
        await deferToThread(election.end)
        await cluster.stop()
    assert len(rig.asker.answers) > 20
    assert [answer for answer in rig.asker.answers if answer != ["10.1.1.1"]] == []


# --- what ZooKeeper is told, and what it holds ------------------------------


class Seen:
    """A watch of the ensemble, in this process."""

    def __init__(self, reactor, url):
        self.watch = ZooKeeperWatch(reactor, parse_zk(url), "http")
        self.watch.start(lambda: None)

    async def until(self, holds, why):
        await until(lambda: holds(self.watch), lambda: f"{why}: {self.watch.known}, {self.watch.problems}")


@pytest.fixture
def see():
    """Watches that end with their test."""
    from twisted.internet import reactor

    seen = []

    def start(url):
        seen.append(Seen(reactor, url))
        return seen[-1]

    yield start
    for each in seen:
        pytest_twisted.blockon(each.watch.stop())


@pytest.fixture
def elect(ensemble):
    """Elections that end with their test."""
    elections = []

    def begin(path, **more):
        elections.append(Election(ensemble.hosts, path, **more))
        return elections[-1]

    yield begin
    for each in elections:
        each.end()


def json_info(port):
    return json.dumps({"address": {"ip": "10.0.0.1", "port": port}}).encode()


# A MasterInfo of Mesos 0.22 as its bytes are: id, ip (as a number of x86), port, pid and hostname.
PROTOBUF = b"\x0a\x02m1\x10\x8a\x80\x80\x10\x18\xba\x27\x22\x14master@10.0.0.1:5050\x2a\x02h1"


@pytest_twisted.ensureDeferred
async def test_masters_that_leave_protobuf_are_read_until_one_leaves_json(ensemble, elect, see):
    """A cluster is upgraded master by master."""
    election = elect("/older/mesos", open_to_all=True)
    await deferToThread(election.begin)
    await deferToThread(election.leave, "info_0000000004", PROTOBUF)
    seen = see(f"zk://{ensemble.hosts}/older/mesos")
    older = Known(("http://10.0.0.1:5050",), "http://10.0.0.1:5050", 5)
    await seen.until(lambda watch: watch.known == older, "the older form is never read")
    await deferToThread(election.leave, "json.info_0000000006", json_info(5051))
    newer = Known(("http://10.0.0.1:5051",), "http://10.0.0.1:5051", 7)
    await seen.until(lambda watch: watch.known == newer, "the newer form is never read")
    assert seen.watch.problems == ()


@pytest_twisted.ensureDeferred
async def test_a_path_that_masters_make_later_is_watched(ensemble, elect, see):
    """A host of a new cluster may come up before its masters; none of the nodes above the path is there."""
    seen = see(f"zk://mesos:secret@{ensemble.hosts}/later/cluster-b/mesos")
    await seen.until(lambda watch: "no master stands" in str(watch.problems), "that there are none does not show")
    election = elect("/later/cluster-b/mesos")
    await deferToThread(election.begin)
    await deferToThread(election.leave, "json.info_0000000000", json_info(5050))
    await seen.until(lambda watch: watch.known and watch.known.leader == "http://10.0.0.1:5050", "it is never seen")
    assert seen.watch.problems == ()


@pytest.mark.parametrize("credentials", ["mesos:wrong@", ""])
@pytest_twisted.ensureDeferred
async def test_a_password_that_may_not_read_is_said_and_nothing_is_made_up(credentials, ensemble, elect, see):
    """Who reads it learns what to correct, and not the password."""
    path = f"/closed{len(credentials)}/mesos"
    election = elect(path)
    await deferToThread(election.begin)
    await deferToThread(election.leave, "json.info_0000000000", json_info(5050))
    seen = see(f"zk://{credentials}{ensemble.hosts}{path}")
    await seen.until(lambda watch: "user and password" in str(watch.problems), "the refusal does not show")
    assert seen.watch.known is None
    assert "wrong" not in str(seen.watch.problems)
