"""Masters elected in a real ZooKeeper: whatever happens to it or to them, names stay right."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest
import pytest_twisted
from daemon import vip_net
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from dcosnet.testing.fake_mesos import FakeCluster, FakeMaster

pytestmark = pytest.mark.system

JAR = Path("/usr/share/java/zookeeper.jar")
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
PATIENCE = 60.0
HALF = 0.5
NAME = "{}.marathon.agentip.dcos.thisdcos.directory"
CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[mesos]
zk = "zk://mesos:secret@127.0.0.1:{port}/mesos"
[l4lb]
plane = "userspace"
named_vips = ["{net}.1-{net}.250"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""


def free_port():
    """A port that nobody has now; ZooKeeper cannot be given port 0 and asked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ZooKeeper:
    """One server with its data below a folder; it can be killed and started again."""

    def __init__(self, java, folder):
        self.java = java
        self.folder = folder
        self.port = free_port()
        self.process = None
        (folder / "zoo.cfg").write_text(
            f"tickTime=1000\ndataDir={folder}/data\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
            "admin.enableServer=false\n"
        )

    def start(self):
        with (self.folder / "zookeeper.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.java, "-Xmx128m", "-cp", str(JAR), MAIN, str(self.folder / "zoo.cfg")],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
            )  # fmt: skip

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None


@pytest.fixture
def zookeeper(tmp_path, require_program):
    java = require_program("java")
    if not JAR.is_file():
        reason = f"{JAR} is not there; Debian has it in zookeeperd"
        pytest.fail(reason) if os.environ.get("DCOSNET_TEST_REQUIRE") == "all" else pytest.skip(reason)
    folder = tmp_path / "zookeeper"
    folder.mkdir()
    server = ZooKeeper(java, folder)
    server.start()
    yield server
    server.kill()


class Election:
    """What masters do in ZooKeeper, done for them: each has a node while it stands."""

    def __init__(self, port):
        from kazoo.client import KazooClient
        from kazoo.retry import KazooRetry

        credentials = [("digest", "mesos:secret")]
        retry = KazooRetry(max_tries=-1, max_delay=1.0)
        self.client = KazooClient(
            f"127.0.0.1:{port}", auth_data=credentials, connection_retry=retry, command_retry=retry
        )
        self.nodes = {}

    def begin(self):
        from kazoo.security import make_digest_acl

        self.client.start(PATIENCE)
        # Only who has the password may read it, so a daemon that did not use it would see nothing.
        self.client.create("/mesos", acl=[make_digest_acl("mesos", "secret", all=True)])

    def stand(self, master):
        info = {"address": {"ip": "127.0.0.1", "port": master.port}, "hostname": "localhost"}
        self.nodes[master.port] = self.client.create(
            "/mesos/json.info_", json.dumps(info).encode(), sequence=True, ephemeral=False
        )

    def fall(self, master):
        self.client.delete(self.nodes.pop(master.port))

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
    """Between the daemon and ZooKeeper; while it is stalled, nothing passes and connections stay open."""

    noisy = False

    def __init__(self, reactor, port):
        self.reactor = reactor
        self.target = port
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

        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.target)
        connectProtocol(endpoint, _End(self)).addCallbacks(joined, lambda _: near.transport.abortConnection())
        return near

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
        reply = dns.query.udp(dns.message.make_query(name, "A"), address, timeout=2, port=port)
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
        assert reactor.seconds() < deadline, why
        await deferLater(reactor, 0.1)


def problems(daemon):
    """What the source says is wrong."""
    _, sources = daemon.get("/v1/sources")
    return json.dumps(sources)


@pytest_twisted.ensureDeferred
async def test_names_stay_right_through_all_that_happens_to_the_election(zookeeper, tmp_path, make_daemon):
    """The leader is killed, the session expires, ZooKeeper restarts: never a wrong answer, and each change is heard."""
    from twisted.internet import reactor

    cluster = FakeCluster()
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.1.1.1")
    cluster.add_task("web", marathon, agent)
    masters = [FakeMaster(reactor, cluster, heartbeat=1.0) for _ in range(3)]
    first, second, third = masters
    for master in masters:
        master.start()
    second.step_down(first)
    third.step_down(first)
    election, proxy = Election(zookeeper.port), Proxy(reactor, zookeeper.port)
    daemon = make_daemon(CONFIG.format(port=proxy.port, net=vip_net()))
    asker = None
    try:
        await deferToThread(election.begin)
        for master in masters:
            await deferToThread(election.stand, master)
        daemon.start()
        address, port = await deferToThread(lambda: daemon.dns)

        async def served(name):
            cluster.add_task(name, marathon, agent)
            await until(
                lambda: look_up(address, int(port), NAME.format(name)) == ["10.1.1.1"], f"{name} is never served"
            )

        await served("zero")
        asker = Asker(address, port, NAME.format("web"))
        asker.start()

        # The leader is killed: the next one is elected.
        await first.stop()
        second.lead()
        await deferToThread(election.fall, first)
        await served("one")
        assert second.streams == 1

        # The session expires while nothing passes; an election after it is heard.
        proxy.stalled = True
        await until(lambda: "cannot be reached" in problems(daemon), "that ZooKeeper is gone does not show")
        assert await deferToThread(look_up, address, int(port), NAME.format("web")) == ["10.1.1.1"]
        await deferLater(reactor, 12.0)  # the session is one of 10 s
        proxy.stalled = False
        await until(lambda: "cannot be reached" not in problems(daemon), "ZooKeeper is never reached again")
        second.step_down(third)
        third.lead()
        await deferToThread(election.fall, second)
        await served("two")
        assert third.streams == 1

        # ZooKeeper restarts, and the leader is killed meanwhile: the last known masters are asked.
        await deferToThread(zookeeper.kill)
        await until(lambda: "cannot be reached" in problems(daemon), "that ZooKeeper is gone does not show")
        await served("three")
        await third.stop()
        second.lead()
        zookeeper.start()
        await deferToThread(election.fall, third)
        await deferToThread(election.stand, second)
        await served("four")
        assert second.streams == 1
        await until(lambda: daemon.get("/v1/status")[1]["ready"], "the daemon is never ready again")
    finally:
        if asker is not None:
            asker.over.set()
            await deferToThread(asker.join)
        await deferToThread(election.end)
        if daemon.process is not None:
            await deferToThread(daemon.stop)
        await proxy.stop()
        for master in masters:
            await master.stop()
    assert len(asker.answers) > 20
    assert [answer for answer in asker.answers if answer != ["10.1.1.1"]] == []
