"""A Mesos cluster's tasks become names and open connections, and stay so through its troubles."""

from __future__ import annotations

import json
import signal

import dns.message
import dns.query
import pytest
import pytest_twisted
from daemon import vip_net
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.names.error import DNSNameError

from dcosnet.testing.fake_mesos import ClusterPort, FakeAgent, FakeCluster, FakeMaster, Recording

PATIENCE = 15.0
DCOS, L4LB = "dcos.thisdcos.directory", "l4lb.thisdcos.directory"
WEB = f"web.marathon.agentip.{DCOS}"

CONFIG = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[mesos]
{mesos}
[l4lb]
plane = "userspace"
named_vips = ["{{first}}-{{last}}"]
[dns]
listen = ["127.0.0.1:0"]
[ops]
listen = ["unix:api.sock:mode=600"]
"""


def config(*masters):
    urls = ", ".join(f'"{master.url}"' for master in masters)
    return CONFIG.format(mesos=f"masters = [{urls}]")


@pytest.fixture
def make_master():
    """Masters that listen, and that are gone after the test."""
    from twisted.internet import reactor

    made = []

    def make(content, **more):
        made.append(FakeMaster(reactor, content, **more))
        made[-1].start()
        return made[-1]

    yield make
    for master in made:
        pytest_twisted.blockon(master.stop())


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def marathon(cluster):
    return cluster.add_framework("marathon")


@pytest.fixture
def agent(cluster):
    return cluster.add_agent("127.0.0.1")


def served(*names):
    """Whether a zone has all of these names."""
    return lambda zone: all(name in zone.records for name in names)


# --- a recording ------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_recorded_cluster_is_looked_up_over_the_wire(make_daemon, make_master, fixtures_dir):
    """What the upstream test asks of the same recording, asked of a running daemon."""
    folder = fixtures_dir / "mesos"
    recording = Recording.read((folder / "operator-api.json").read_bytes())
    lookups = json.loads((folder / "operator-api.expected.json").read_bytes())["lookups"]
    assert len(lookups) == 36
    master = make_master(recording)
    daemon = make_daemon(config(master).format(first=f"{vip_net()}.1", last=f"{vip_net()}.250"))
    subscribed = master.next_request("SUBSCRIBE")
    daemon.start()
    await subscribed.addTimeout(PATIENCE, this_reactor())
    recording.play()

    def look_up():
        # In a thread of its own, since the masters live in this one.
        address, port = daemon.dns
        daemon.until("/v1/tasks", lambda tasks: sum(task["state"] == "running" for task in tasks) == 12)
        return [ask(address, int(port), each["name"], each["type"]) for each in lookups]

    answers = await deferToThread(look_up)
    assert answers == [sorted(each["values"]) for each in lookups]
    assert await deferToThread(daemon.stop) == -signal.SIGTERM


def this_reactor():
    from twisted.internet import reactor

    return reactor


def ask(address, port, name, kind):
    """The values of one answer, over UDP, sorted."""
    reply = dns.query.udp(dns.message.make_query(name, kind), address, timeout=PATIENCE, port=port)
    return sorted(str(value) for rrset in reply.answer for value in rrset)


# --- tasks ------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_task_has_names_from_when_it_runs_until_it_is_killed(make_node, make_master, cluster, marathon, agent):
    task = cluster.add_task("web", marathon, agent, state="TASK_STAGING", addresses=["9.0.0.1"])
    cluster.add_task("other", marathon, agent)
    node = make_node(config=config(make_master(cluster)))
    zone = node.zone(DCOS)
    await node.until(zone, served(f"other.marathon.agentip.{DCOS}"))
    with pytest.raises(DNSNameError):
        await node.addresses(WEB)
    cluster.update_task(task, state="TASK_RUNNING")
    await node.until(zone, served(WEB))
    assert await node.addresses(WEB) == ["127.0.0.1"]
    assert await node.addresses(f"web.marathon.containerip.{DCOS}") == ["9.0.0.1"]
    cluster.update_task(task, state="TASK_KILLED")
    await node.until(zone, lambda value: WEB not in value.records)
    with pytest.raises(DNSNameError):
        await node.addresses(WEB)


class Greeter(Protocol):
    def connectionMade(self):
        self.transport.write(b"hello")
        self.transport.loseConnection()


class Reader(Protocol):
    """Collects until the other side closes."""

    def __init__(self):
        self.data, self.done = b"", Deferred()

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.done.callback(self.data)


@pytest_twisted.ensureDeferred
async def test_a_task_with_a_vip_label_takes_connections(make_node, make_master, cluster, marathon, agent):
    """Launched while the node listens: the label is served within the same second as the task runs."""
    node = make_node(config=config(make_master(cluster)))
    greeter = Factory.forProtocol(Greeter)
    greeter.noisy = False
    backend = node.reactor.listenTCP(0, greeter, interface="127.0.0.1")
    try:
        name = f"web.marathon.{L4LB}"
        port = ClusterPort(backend.getHost().port, vips=["/web:8000"])
        task = cluster.add_task("web", marathon, agent, ports=[port], host=True)
        await node.until(node.zone(L4LB), served(name))
        (vip,) = await node.addresses(name)
        reader = await connectProtocol(HostnameEndpoint(node.reactor, vip, 8000), Reader())
        assert await reader.done.addTimeout(PATIENCE, node.reactor) == b"hello"
        cluster.update_task(task, state="TASK_KILLED")
        await node.until(node.zone(L4LB), lambda value: name not in value.records)
    finally:
        await backend.stopListening()


# --- troubles ---------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_master_that_says_another_one_leads_is_passed_over(make_node, make_master, cluster, marathon, agent):
    """With a 307, as a standby does; and the other way round after an election."""
    task = cluster.add_task("web", marathon, agent)
    first, second = make_master(cluster), make_master(cluster)
    first.step_down(second)
    node = make_node(config=config(first, second))
    await node.until(node.zone(DCOS), served(WEB))
    assert (first.streams, second.streams) == (0, 1)
    assert first.requests[0].call == "SUBSCRIBE"
    first.lead()
    second.step_down(first)
    cluster.update_task(task, state="TASK_KILLED")
    await node.until(node.zone(DCOS), lambda zone: WEB not in zone.records)
    assert (first.streams, second.streams) == (1, 0)


@pytest_twisted.ensureDeferred
async def test_a_master_that_refuses_its_stream_is_polled(make_node, make_master, cluster, marathon, agent):
    task = cluster.add_task("web", marathon, agent)
    master = make_master(cluster)
    master.streaming = False
    node = make_node(config=config(master).replace("[l4lb]", 'refresh = "1s"\n[l4lb]'))
    await node.until(node.zone(DCOS), served(WEB))
    assert master.requests[-1].call == "GET_STATE"
    cluster.update_task(task, state="TASK_KILLED")
    await node.until(node.zone(DCOS), lambda zone: WEB not in zone.records)


@pytest_twisted.ensureDeferred
async def test_answers_stay_when_a_stream_is_cut_and_change_again_when_it_is_back(
    make_node, make_master, cluster, marathon, agent
):
    task = cluster.add_task("web", marathon, agent)
    master = make_master(cluster)
    node = make_node(config=config(master))
    await node.until(node.zone(DCOS), served(WEB))
    refused = master.next_request("SUBSCRIBE")
    master.refuse(503)
    master.cut_streams()
    await refused.addTimeout(PATIENCE, node.reactor)
    assert await node.addresses(WEB) == ["127.0.0.1"]
    cluster.update_task(task, state="TASK_KILLED")
    assert await node.addresses(WEB) == ["127.0.0.1"]
    master.recover()
    await node.until(node.zone(DCOS), lambda zone: WEB not in zone.records)


async def shows(daemon, what):
    """What a daemon tells of its mesos part in the three places: readiness, its source, and how old its facts are."""

    def look():
        _, ready = daemon.get("/readyz?verbose")
        _, sources = daemon.get("/v1/sources")
        _, metrics = daemon.get("/metrics")
        (mesos,) = [source for source in sources if source["name"] == "mesos"]
        age = next(
            line for line in metrics.splitlines() if line.startswith(f'dcosnet_mesos_stale_seconds{{of="{what}"')
        )
        return (
            next(line for line in ready.splitlines() if "mesos" in line),
            [problem["reason"] for problem in mesos["problems"]],
            float(age.rpartition(" ")[2]),
        )

    return await deferToThread(look)


@pytest.mark.parametrize("what", ["masters", "agent"])
@pytest_twisted.ensureDeferred
async def test_what_is_lost_shows_in_three_places_until_it_is_back(
    what, make_daemon, make_master, cluster, marathon, agent
):
    """A page, an alert and a load balancer each read another one; the names are told all the while."""
    task = cluster.add_task("web", marathon, agent)
    if what == "masters":
        server = make_master(cluster)
        text = config(server)
    else:
        server = FakeAgent.of_cluster(this_reactor(), cluster, agent)
        server.start()
        text = CONFIG.format(mesos=f'agent = "{server.url}"\npoll = "0.2s"')
    daemon = make_daemon(text.format(first=f"{vip_net()}.1", last=f"{vip_net()}.250"))
    try:
        daemon.start()
        address, port = await deferToThread(lambda: daemon.dns)
        ready, problems, age = await shows(daemon, what)
        assert (problems, age) == ([], 0)
        for _ in range(2):
            await server.stop()
            await deferToThread(daemon.until, "/v1/sources", lambda sources: sources[-1]["problems"])
            ready, (problem,), age = await shows(daemon, what)
            assert server.address in ready
            assert server.address in problem
            assert age > 0
            assert await deferToThread(ask, address, int(port), WEB, "A") == ["127.0.0.1"]
            server.start(server.port)
            await deferToThread(daemon.ready)
            assert (await shows(daemon, what))[1:] == ([], 0)
        cluster.update_task(task, state="TASK_KILLED")
        await deferToThread(daemon.until, "/v1/tasks", lambda tasks: not tasks)
        assert await deferToThread(daemon.stop) == -signal.SIGTERM
    finally:
        await server.stop()


async def turns(node, holds):
    """Look again and again, for what has no cell that tells."""
    for _ in range(1000):
        if holds():
            return
        await deferLater(node.reactor, 0.01)
    raise AssertionError(f"it never held; at last: {node.toolbox.readiness()}")


async def fail_over(node, first, second):
    """The first is gone, and the second leads and is listened to."""
    second.lead()
    await first.stop()
    while not second.streams:
        await second.next_request().addTimeout(PATIENCE, node.reactor)


@pytest_twisted.ensureDeferred
async def test_the_next_leader_is_heard_and_no_name_goes_meanwhile(make_node, make_master, cluster, marathon, agent):
    """The masters' own names neither: dcos-net was without `master.` for a while after each election (D16)."""
    cluster.add_task("web", marathon, agent)
    names = (WEB, f"leader.{DCOS}", f"master.{DCOS}")
    first, second = make_master(cluster), make_master(cluster, leading=False)
    node = make_node(config=config(first, second))
    zone = node.zone(DCOS)
    await node.until(zone, served(*names))
    seen = []
    stop = zone.subscribe(lambda value, changed: seen.append(served(*names)(value)))
    await fail_over(node, first, second)
    assert await node.addresses(WEB) == ["127.0.0.1"]
    cluster.add_task("new", marathon, agent)
    await node.until(zone, served(WEB, f"new.marathon.agentip.{DCOS}"))
    stop()
    assert all(seen)


@pytest_twisted.ensureDeferred
async def test_names_stay_while_agents_have_not_registered_with_the_next_leader(
    make_node, make_master, cluster, marathon, agent
):
    """It has read its agents from the registry and knows of no task yet (DCOS_OSS-5463)."""
    cluster.add_task("web", marathon, agent)
    first, second = make_master(cluster), make_master(cluster, leading=False)
    node = make_node(config=config(first, second))
    await node.until(node.zone(DCOS), served(WEB))
    cluster.fail_over()
    await fail_over(node, first, second)
    await turns(node, lambda: "not whole" in (node.toolbox.readiness()["mesos"] or ""))
    assert await node.addresses(WEB) == ["127.0.0.1"]


@pytest_twisted.ensureDeferred
async def test_a_page_of_html_is_no_cluster_without_tasks(make_node, make_master, cluster, marathon, agent):
    """A proxy's log-in page, with status 200: what was known stays."""
    cluster.add_task("web", marathon, agent)
    master = make_master(cluster)
    node = make_node(config=config(master))
    await node.until(node.zone(DCOS), served(WEB))
    answered = master.next_request("SUBSCRIBE")
    master.answer(b"<html>please log in</html>")
    master.end_streams()
    await answered.addTimeout(PATIENCE, node.reactor)
    assert await node.addresses(WEB) == ["127.0.0.1"]
