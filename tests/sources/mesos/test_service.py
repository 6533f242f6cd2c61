"""The source against masters and agents of the fake kind, over real sockets."""

from __future__ import annotations

from random import Random

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from dcosnet.interfaces import IMetrics, ITaskSource
from dcosnet.model.net import parse_address
from dcosnet.model.node import Node
from dcosnet.model.task import TaskId
from dcosnet.sources.mesos.plugin import Settings, make_part
from dcosnet.testing.fake_mesos import ClusterPort, FakeAgent, FakeCluster, FakeMaster

PATIENCE = 15.0


class Toolbox:
    """What the part is made from."""

    def __init__(self, reactor, address="127.0.0.1"):
        self.reactor = reactor
        self.rng = Random(1)
        self.node = Node("host-a", parse_address(address))


class Rig:
    """A source that runs, and all that it told."""

    def __init__(self, part):
        self.part = part
        self.told = []
        self._waiting = []
        self.source.watch(self._take)
        part.service.privilegedStartService()
        part.service.startService()

    @property
    def source(self):
        return next(each for interface, each in self.part.contributes if interface is ITaskSource)

    def _take(self, facts):
        # As it was told: its tasks may be a live view.
        facts = attrs.evolve(facts, tasks=dict(facts.tasks))
        self.told.append(facts)
        for wanted in list(self._waiting):
            if wanted[0](facts):
                self._waiting.remove(wanted)
                wanted[1].callback(facts)

    def until(self, holds):
        """Fires with the first facts that hold, told before or to come."""
        from twisted.internet import reactor

        found = Deferred()
        if self.told and holds(self.told[-1]):
            found.callback(self.told[-1])
        else:
            self._waiting.append((holds, found))
        return found.addTimeout(PATIENCE, reactor)

    def metric(self, name):
        families = next(each for interface, each in self.part.contributes if interface is IMetrics).collect()
        (family,) = [each for each in families if each.name == f"dcosnet_mesos_{name}"]
        return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def names(facts):
    return {task.name for task in facts.tasks.values()}


async def turn_until(holds):
    """Let the reactor turn until something holds."""
    from twisted.internet import reactor

    until = reactor.seconds() + PATIENCE
    while not holds():
        assert reactor.seconds() < until
        await deferLater(reactor, 0.01)


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def serve():
    """Start masters and agents; all are gone after the test."""
    from twisted.internet import reactor

    servers = []

    def start(make, *arguments, **more):
        server = make(reactor, *arguments, **more)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        pytest_twisted.blockon(server.stop())


@pytest.fixture
def run():
    """Start a source with these settings; it is stopped after the test."""
    from twisted.internet import reactor

    rigs = []

    def start(*, address="127.0.0.1", **settings):
        rigs.append(Rig(make_part(Settings(**settings), Toolbox(reactor, address))))
        return rigs[-1]

    yield start
    for rig in rigs:
        stopping = rig.part.service.stopService()
        if stopping is not None:
            pytest_twisted.blockon(stopping)


@pytest_twisted.ensureDeferred
async def test_a_stream_tells_tasks_and_their_changes(cluster, serve, run):
    """The snapshot first, then each event as it comes."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    web = cluster.add_task("web", marathon, agent)
    master = serve(FakeMaster, cluster)
    rig = run(masters=(master.url,))
    facts = await rig.until(lambda facts: names(facts) == {"web"})
    assert facts.leader.master.port == master.port
    assert facts.unsynced == ()
    cluster.add_task("api", marathon, agent)
    facts = await rig.until(lambda facts: names(facts) == {"web", "api"})
    assert {task.task for task in facts.changed} == {task.task for task in facts.tasks if task.task != web[1]}
    cluster.update_task(web, state="TASK_KILLED")
    await rig.until(lambda facts: names(facts) == {"api"})
    assert rig.part.ready() is None


@pytest_twisted.ensureDeferred
async def test_problems_beyond_a_thousand_are_counted(cluster, serve, run):
    """A framework whose every task has a port that cannot be used; the list is bounded, and says so."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    for _ in range(1100):
        cluster.add_task("web", marathon, agent, ports=[ClusterPort(80, protocol="sctp")])
    rig = run(masters=(serve(FakeMaster, cluster).url,))
    await rig.until(lambda facts: len(facts.tasks) == 1100)
    status = rig.source.status()
    assert (len(status.problems), status.more) == (1000, 100)
    assert rig.metric("problems")[()] == 1100


@pytest_twisted.ensureDeferred
async def test_an_agent_is_polled(cluster, serve, run):
    """It has no stream; what changed shows with the next poll."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    web = cluster.add_task("web", marathon, id_)
    agent = serve(FakeAgent.of_cluster, cluster, id_)
    rig = run(agent=agent.url, poll=0.2)
    facts = await rig.until(lambda facts: names(facts) == {"web"})
    assert facts.leader is None
    cluster.update_task(web, state="TASK_FINISHED")
    await rig.until(lambda facts: not facts.tasks)


@pytest_twisted.ensureDeferred
async def test_what_an_agent_told_outlives_it(cluster, serve, run):
    """An agent that is restarted takes no name away; that it is gone shows."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    cluster.add_task("web", marathon, id_)
    agent = serve(FakeAgent.of_cluster, cluster, id_)
    rig = run(agent=agent.url, poll=0.2)
    await rig.until(lambda facts: names(facts) == {"web"})
    await agent.stop()
    await turn_until(lambda: rig.part.ready() is not None)
    assert names(rig.told[-1]) == {"web"}
    assert rig.metric("stale_seconds")["agent",] > 0
    assert rig.source.status().synced


@pytest_twisted.ensureDeferred
async def test_the_master_makes_the_agent_be_polled_at_once(cluster, serve, run):
    """Where both are on this node, nothing waits for the next poll."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    web = cluster.add_task("web", marathon, id_)
    master, agent = serve(FakeMaster, cluster), serve(FakeAgent.of_cluster, cluster, id_)
    rig = run(agent=agent.url, masters=(master.url,), poll=3600.0)
    await rig.until(lambda facts: names(facts) == {"web"} and facts.leader is not None and not facts.unsynced)
    cluster.update_task(web, healthy=False)
    await rig.until(lambda facts: facts.tasks[TaskId(*web)].serving_weight == 0)
    cluster.update_task(web, state="TASK_KILLED")
    await rig.until(lambda facts: not facts.tasks)


@pytest_twisted.ensureDeferred
async def test_a_standby_is_synced_and_has_nothing(cluster, serve, run):
    """A 307 of the master on this node: another one tells."""
    other = serve(FakeMaster, cluster)
    master = serve(FakeMaster, cluster)
    master.step_down(other)
    # The other one is on another host, as far as this node knows.
    rig = run(masters=(master.url,))
    facts = await rig.until(lambda facts: not facts.unsynced)
    assert (facts.tasks, facts.leader) == ({}, None)
    assert rig.part.ready() is None
    assert other.streams == 0


@pytest_twisted.ensureDeferred
async def test_with_an_agent_no_master_elsewhere_is_followed(cluster, serve, run):
    """A thousand agents do not each listen to the whole cluster."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    cluster.add_task("web", marathon, id_)
    agent = serve(FakeAgent.of_cluster, cluster, id_)
    rig = run(agent=agent.url, masters=("http://192.0.2.1:5050",))
    facts = await rig.until(lambda facts: names(facts) == {"web"} and not facts.unsynced)
    assert facts.leader is None
    assert rig.part.ready() is None


@pytest.mark.parametrize(("trouble", "documents"), [("cut_streams", 1), ("reset_streams", 0), ("end_streams", 0)])
@pytest_twisted.ensureDeferred
async def test_a_lost_stream_is_followed_again(trouble, documents, cluster, serve, run):
    """Facts stay in between, and are those of the new stream after it."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    cluster.add_task("web", marathon, agent)
    master = serve(FakeMaster, cluster)
    rig = run(masters=(master.url,))
    await rig.until(lambda facts: names(facts) == {"web"})
    told = len(rig.told)
    again = master.next_request("SUBSCRIBE")
    getattr(master, trouble)()
    await again.addTimeout(PATIENCE, master._reactor)
    assert rig.metric("rejected_total")["document",] == documents, "one that was cut in the midst of a record"
    cluster.add_task("api", marathon, agent)
    await rig.until(lambda facts: names(facts) == {"web", "api"})
    assert all("web" in names(facts) for facts in rig.told[told:])


@pytest.mark.parametrize(
    "nonsense",
    [
        b"1073741824\n",
        b"999999999999\n",
        b"<html>",
        b"5\n[1,2]",
        b'7\n"HTML!"',
        b"12345678901234567890\n",
        b'21\n{"type":"SUBSCRIBED"}',
        b'51\n{"type":"SUBSCRIBED","subscribed":{"get_state":{}}}',
    ],
)
@pytest_twisted.ensureDeferred
async def test_nonsense_costs_the_stream_and_nothing_else(nonsense, cluster, serve, run):
    """The last good facts stay, and the master is followed again."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    cluster.add_task("web", marathon, agent)
    master = serve(FakeMaster, cluster)
    rig = run(masters=(master.url,))
    await rig.until(lambda facts: names(facts) == {"web"})
    again = master.next_request("SUBSCRIBE")
    master.write(nonsense)
    await again.addTimeout(PATIENCE, master._reactor)
    assert rig.metric("rejected_total")["document",] == 1
    cluster.add_task("api", marathon, agent)
    await rig.until(lambda facts: names(facts) == {"web", "api"})
    assert all("web" in names(facts) for facts in rig.told)


@pytest.mark.parametrize("nonsense", [b"{}", b"[]", b'{"type":"GET_STATE","get_state":{}}', b"<html>", b""])
@pytest_twisted.ensureDeferred
async def test_what_an_agent_told_outlives_an_answer_that_is_none(nonsense, cluster, serve, run):
    """An answer of 200 that holds no state is not one of an agent without tasks."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    cluster.add_task("web", marathon, id_)
    agent = serve(FakeAgent.of_cluster, cluster, id_)
    rig = run(agent=agent.url, poll=0.2)
    await rig.until(lambda facts: names(facts) == {"web"})
    agent.answer(nonsense, "application/json")
    await turn_until(lambda: rig.part.ready() is not None)
    assert rig.metric("polls_total")["failed",] == rig.metric("rejected_total")["document",] > 0
    agent.recover()
    cluster.add_task("api", marathon, id_)
    await rig.until(lambda facts: names(facts) == {"web", "api"})
    assert all("web" in names(facts) for facts in rig.told)


@pytest_twisted.ensureDeferred
async def test_a_page_in_place_of_an_answer_is_no_answer(cluster, serve, run):
    """A proxy's HTML is neither a state nor an empty one."""
    master = serve(FakeMaster, cluster)
    master.answer(b"<html>please log in</html>")
    agent = serve(FakeAgent.of_cluster, cluster, cluster.add_agent("127.0.0.1"))
    agent.answer(b"<html>please log in</html>")
    rig = run(agent=agent.url, masters=(master.url,))
    await turn_until(lambda: agent.requests and master.requests and "not JSON" in str(rig.part.ready()))
    assert rig.told == []
    assert not rig.source.status().synced


@pytest.mark.parametrize("hostname", ["no..host", "x" * 300, "nul\0nul"])
@pytest_twisted.ensureDeferred
async def test_an_agent_that_cannot_be_resolved_costs_only_its_own_tasks(hostname, cluster, serve, run):
    """Where its pid has an address, not even those; it is counted, and shown where it costs something."""
    marathon, good = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    cluster.add_task("web", marathon, good)
    for name in ("api", "db"):
        cluster.add_task(name, marathon, cluster.add_agent(f"{name}{hostname}", pid="slave(1)@10.0.0.6:5051"))
    master = serve(FakeMaster, cluster)
    rig = run(masters=(master.url,))
    facts = await rig.until(lambda facts: bool(facts.tasks))
    assert {task.name: str(task.agent) for task in facts.tasks.values()} == {
        "web": "10.0.0.5",
        "api": "10.0.0.6",
        "db": "10.0.0.6",
    }
    assert rig.metric("lookup_failures_total")[()] == 2
    lost = cluster.add_agent(hostname, pid="slave(1)@nowhere:5051")
    cluster.add_task("lost", marathon, lost)
    await turn_until(lambda: rig.source.status().problems)
    assert [problem.reference for problem in rig.source.status().problems] == [f"agent {lost}"]
    cluster.add_task("more", marathon, good)
    facts = await rig.until(lambda facts: "more" in names(facts))
    assert names(facts) == {"web", "api", "db", "more"}


@pytest_twisted.ensureDeferred
async def test_one_bad_pid_costs_nothing_but_a_line(cluster, serve, run):
    """It is only needed where the host name is of no use."""
    marathon, bad = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5", pid="slave(1)@nowhere")
    cluster.add_task("web", marathon, bad)
    cluster.add_task("api", marathon, cluster.add_agent("10.0.0.6"))
    rig = run(masters=(serve(FakeMaster, cluster).url,))
    await rig.until(lambda facts: names(facts) == {"web", "api"})
    (problem,) = rig.source.status().problems
    assert (problem.reference, "slave(1)@nowhere" in problem.reason) == (f"agent {bad}", True)
    assert rig.metric("rejected_total")["field",] == 1


@pytest_twisted.ensureDeferred
async def test_ten_thousand_events_at_once_are_all_taken(cluster, serve, run):
    """The last word on each task is what is told, in few tellings, and nothing is lost or left behind."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    tasks = [cluster.add_task(f"t{n}", marathon, agent) for n in range(100)]
    master = serve(FakeMaster, cluster)
    rig = run(masters=(master.url,))
    await rig.until(lambda facts: len(facts.tasks) == 100)
    told, records = len(rig.told), rig.metric("records_total")[()]
    for n in range(9_900):
        cluster.update_task(tasks[n % 100], healthy=n >= 9_800)
    for task in tasks[50:]:
        cluster.update_task(task, state="TASK_KILLED")
    cluster.add_task("last", marathon, agent)
    facts = await rig.until(lambda facts: "last" in names(facts))
    assert names(facts) == {"last", *(f"t{n}" for n in range(50))}
    assert all(task.health == "healthy" for task in facts.tasks.values() if task.name != "last")
    assert rig.metric("records_total")[()] >= records + 9_951
    assert len(rig.told) - told < 300
    assert rig.part.ready() is None


@pytest_twisted.ensureDeferred
async def test_a_master_without_a_stream_is_polled(cluster, serve, run):
    """Its state tells the same, later."""
    marathon, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.5")
    cluster.add_task("web", marathon, agent)
    master = serve(FakeMaster, cluster)
    master.streaming = False
    rig = run(masters=(master.url,), refresh=1.0)
    await rig.until(lambda facts: names(facts) == {"web"})
    cluster.add_task("api", marathon, agent)
    await rig.until(lambda facts: names(facts) == {"web", "api"})


@pytest_twisted.ensureDeferred
async def test_a_token_is_read_before_each_request(cluster, serve, run, tmp_path):
    """One that is wrong shows as that; a renewed one is used without a restart."""
    marathon, id_ = cluster.add_framework("marathon"), cluster.add_agent("127.0.0.1")
    cluster.add_task("web", marathon, id_)
    agent = serve(FakeAgent.of_cluster, cluster, id_, authorization="token=good")
    token = tmp_path / "token"
    token.write_text("old\n")
    rig = run(agent=agent.url, token_file=token, poll=0.2)
    await turn_until(lambda: "401" in str(rig.part.ready()))
    token.write_text("good\n")
    await rig.until(lambda facts: names(facts) == {"web"})
