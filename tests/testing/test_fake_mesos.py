"""The fake masters and agents do what Mesos does, and go wrong as they are told to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import BytesIO

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions, DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.web.client import Agent, FileBodyProducer, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers

from dcosnet.testing.fake_cluster import TERMINAL
from dcosnet.testing.fake_mesos import (
    ClusterPort,
    FakeAgent,
    FakeCluster,
    FakeMaster,
    Recording,
    basic,
    record,
)

PATIENCE = 10.0


class Listener(Protocol):
    """Collects what a stream sends, and how it ended."""

    def __init__(self, reactor):
        self.data, self.pieces, self.ended = b"", [], Deferred()
        self._reactor, self._waiting = reactor, []

    def dataReceived(self, data):
        self.data += data
        self.pieces.append(data)
        for waiting in [each for each in self._waiting if each[0](self)]:
            self._waiting.remove(waiting)
            waiting[1].callback(None)

    def connectionLost(self, reason):
        self.ended.callback(reason.value)

    def until(self, holds):
        done = Deferred()
        if holds(self):
            done.callback(None)
        else:
            self._waiting.append((holds, done))
        return done.addTimeout(PATIENCE, self._reactor)

    @property
    def documents(self):
        """The whole records so far."""
        left, found = self.data, []
        while b"\n" in left:
            length, _, left = left.partition(b"\n")
            if len(left) < int(length):
                break
            found.append(json.loads(left[: int(length)]))
            left = left[int(length) :]
        return found

    @property
    def types(self):
        return [document["type"] for document in self.documents]


class Client:
    def __init__(self, reactor):
        self.reactor = reactor
        self._agent = Agent(reactor)

    def ask(self, url, call, path="/api/v1", method=b"POST", kind="application/json", authorization=None):
        headers = Headers({"Content-Type": [kind]})
        if authorization:
            headers.addRawHeader("Authorization", authorization)
        body = FileBodyProducer(BytesIO(json.dumps(call).encode())) if method == b"POST" else None
        asked = self._agent.request(method, f"{url}{path}".encode(), headers, body)
        return asked.addTimeout(PATIENCE, self.reactor)

    async def get(self, url, call="", **more):
        """Status, headers and body."""
        response = await self.ask(url, {"type": call}, **more)
        listener = Listener(self.reactor)
        response.deliverBody(listener)
        await listener.ended.addTimeout(PATIENCE, self.reactor)
        return response.code, response.headers, listener.data

    async def turns(self, holds):
        """Let the reactor turn until it holds; on a busy machine that may be many times."""
        end = self.reactor.seconds() + PATIENCE
        while not holds():
            assert self.reactor.seconds() < end, "it never held"
            await deferLater(self.reactor, 0)

    async def listen(self, master):
        response = await self.ask(master.url, {"type": "SUBSCRIBE"})
        assert response.code == 200
        listener = Listener(self.reactor)
        response.deliverBody(listener)
        return listener


@pytest.fixture
def client():
    from twisted.internet import reactor

    return Client(reactor)


@pytest.fixture
def start(client):
    """Starts a server, and stops it at the end."""
    started = []

    def begin(server, **more):
        server.start(**more)
        started.append(server)
        return server

    yield begin
    for server in started:
        pytest_twisted.blockon(server.stop())


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def marathon(cluster):
    return cluster.add_framework("marathon")


@pytest.fixture
def agent(cluster):
    return cluster.add_agent("10.0.0.5")


@pytest.fixture
def master(start, client, cluster, clock):
    return start(FakeMaster(client.reactor, cluster, clock=clock))


# --- streams ----------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_stream_begins_with_the_snapshot_and_a_heartbeat(client, master, cluster, marathon, agent):
    """As a master does; the interval is told."""
    cluster.add_task("web", marathon, agent, addresses=["9.0.0.1"])
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    first, second = listener.documents
    assert second == {"type": "HEARTBEAT"}
    assert first == json.loads(json.dumps(cluster.subscribed(15.0)))
    assert first["subscribed"]["get_state"]["get_tasks"]["tasks"][0]["name"] == "web"
    assert master.requests[-1].call == "SUBSCRIBE"


@pytest_twisted.ensureDeferred
async def test_each_change_of_the_cluster_is_sent_to_all_who_listen(client, master, cluster, marathon, agent):
    first, second = [await client.listen(master) for _ in range(2)]
    assert master.streams == 2
    task = cluster.add_task("web", marathon, agent)
    cluster.update_task(task, state="TASK_KILLED")
    for listener in (first, second):
        await listener.until(lambda each: len(each.documents) == 5)
        assert listener.types[2:] == ["TASK_ADDED", "TASK_UPDATED", "TASK_UPDATED"]
        assert listener.documents[2:] == json.loads(json.dumps(cluster.log[2:]))


@pytest_twisted.ensureDeferred
async def test_heartbeats_follow_the_clock_that_was_given(client, master, clock):
    listener = await client.listen(master)
    clock.advance(14.9)
    clock.advance(0.2)
    clock.advance(15.0)
    await listener.until(lambda each: len(each.documents) == 4)
    assert listener.types == ["SUBSCRIBED", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT"]


@pytest_twisted.ensureDeferred
async def test_pieces_cut_records_anywhere(client, start, cluster, clock):
    """So that a framer meets each boundary there is."""
    master = start(FakeMaster(client.reactor, cluster, clock=clock, piece=3))
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    assert max(map(len, listener.pieces)) <= 3


@pytest_twisted.ensureDeferred
async def test_a_cut_ends_in_the_midst_of_a_record(client, master):
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    whole = len(listener.data)
    master.cut_streams()
    reason = await listener.ended.addTimeout(PATIENCE, client.reactor)
    assert not isinstance(reason, ResponseDone)
    assert 0 < len(listener.data) - whole < len(record(b'{"type":"HEARTBEAT"}'))
    assert master.streams == 0


@pytest_twisted.ensureDeferred
async def test_an_end_comes_between_records(client, master):
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    master.end_streams()
    reason = await listener.ended.addTimeout(PATIENCE, client.reactor)
    assert isinstance(reason, ResponseDone)
    assert listener.types == ["SUBSCRIBED", "HEARTBEAT"]


@pytest_twisted.ensureDeferred
async def test_a_reset_stream_ends_with_a_failure(client, master):
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    master.reset_streams()
    reason = await listener.ended.addTimeout(PATIENCE, client.reactor)
    assert isinstance(reason, ResponseFailed)


@pytest_twisted.ensureDeferred
async def test_a_stall_sends_nothing_until_it_is_over(client, master, cluster, clock):
    """A client that hears no heartbeat for long enough has to notice by itself."""
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    master.stall()
    cluster.add_agent("10.0.0.6")
    clock.advance(60.0)
    late = client.ask(master.url, {"type": "SUBSCRIBE"})
    assert listener.types == ["SUBSCRIBED", "HEARTBEAT"]
    assert not late.called
    heard = master.next_request("SUBSCRIBE")
    await client.turns(lambda: master._held)  # it is on its way
    master.recover()
    await listener.until(lambda each: len(each.documents) == 3)
    assert listener.types[2] == "AGENT_ADDED"
    await heard.addTimeout(PATIENCE, client.reactor)
    second = Listener(client.reactor)
    (await late).deliverBody(second)
    await second.until(lambda each: len(each.documents) == 2)
    assert len(second.documents[0]["subscribed"]["get_state"]["get_agents"]["agents"]) == 1


@pytest_twisted.ensureDeferred
async def test_anything_can_be_written_into_a_stream(client, master):
    """Nonsense is sent as it is."""
    listener = await client.listen(master)
    master.write(b"1073741824\n<html>")
    await listener.until(lambda each: each.data.endswith(b"1073741824\n<html>"))


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_is_forgotten(client, master):
    listener = await client.listen(master)
    listener.transport.loseConnection()
    await listener.ended
    await client.turns(lambda: not master.streams)


# --- leadership -------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_master_that_does_not_lead_says_who_does(client, start, master, cluster, clock):
    other = start(FakeMaster(client.reactor, cluster, clock=clock, leading=False))
    status, _, _ = await client.get(other.url, "SUBSCRIBE")
    assert status == 503
    listener = await client.listen(master)
    master.step_down(other)
    other.lead()
    await listener.ended.addTimeout(PATIENCE, client.reactor)
    status, headers, _ = await client.get(master.url, "SUBSCRIBE")
    assert (status, headers.getRawHeaders("location")) == (307, [f"//{other.address}/api/v1"])
    status, headers, _ = await client.get(other.url, path="/master/redirect", method=b"GET")
    assert (status, headers.getRawHeaders("location")) == (307, [f"//{other.address}"])
    await client.listen(other)


@pytest_twisted.ensureDeferred
async def test_a_master_that_is_gone_refuses_and_comes_back_on_its_port(client, master):
    listener = await client.listen(master)
    port = master.port
    await master.stop()
    await listener.ended.addTimeout(PATIENCE, client.reactor)
    with pytest.raises(error.ConnectionRefusedError):
        await client.get(master.url, "GET_STATE")
    master.start(port)
    assert (await client.get(master.url, "GET_STATE"))[0] == 200


# --- other calls, and what goes wrong ---------------------------------------


@pytest.mark.parametrize("call", ["GET_STATE", "GET_TASKS", "GET_AGENTS", "GET_FRAMEWORKS", "GET_MASTER", "GET_HEALTH"])
@pytest_twisted.ensureDeferred
async def test_a_call_is_answered_under_its_own_name(client, master, call):
    status, headers, body = await client.get(master.url, call)
    assert (status, headers.getRawHeaders("content-type")) == (200, ["application/json"])
    document = json.loads(body)
    assert document["type"] == call
    assert call.lower() in document


@pytest_twisted.ensureDeferred
async def test_the_state_document_has_the_names_of_old(client, master, cluster, agent):
    """`/state` is what Mesos-DNS has always read."""
    framework = cluster.add_framework("chronos", pid="scheduler@10.0.0.9:4711")
    cluster.add_task("job", framework, agent, ports=[ClusterPort(31000)], host=True)
    _, _, body = await client.get(master.url, path="/master/state", method=b"GET")
    state = json.loads(body)
    assert state["leader"] == f"master@{master.address}"
    assert [(each["hostname"], each["pid"]) for each in state["slaves"]] == [("10.0.0.5", "slave(1)@10.0.0.5:5051")]
    (task,) = state["frameworks"][0]["tasks"]
    assert (task["slave_id"], task["resources"]["ports"]) == (agent, "[31000-31000]")
    assert task["statuses"][0]["container_status"]["network_infos"][0]["ip_addresses"][0]["ip_address"] == "10.0.0.5"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"method": b"GET"}, 405),
        ({"kind": "text/plain"}, 415),
        ({"path": "/nothing"}, 404),
        ({"call": ""}, 400),
        ({"call": "REMOVE_QUOTA"}, 501),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_wrong_call_is_refused_as_mesos_does(client, master, more, status):
    assert (await client.get(master.url, **{"call": "GET_STATE", **more}))[0] == status


@pytest_twisted.ensureDeferred
async def test_who_may_ask_is_told_by_one_header(client, master):
    master.authorization = basic("me", "secret")
    status, headers, _ = await client.get(master.url, "GET_STATE")
    assert status == 401
    assert headers.hasHeader("www-authenticate")
    assert (await client.get(master.url, "GET_STATE", authorization="Basic bWU6c2VjcmV0"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_trouble_holds_until_it_recovers(client, master):
    master.refuse(503)
    assert (await client.get(master.url, "SUBSCRIBE"))[0] == 503
    master.answer(b"<html>log in</html>")
    assert (await client.get(master.url, "SUBSCRIBE"))[::2] == (200, b"<html>log in</html>")
    master.reset()
    with pytest.raises(Exception, match=r"Connection|Response"):
        await client.get(master.url, "SUBSCRIBE")
    master.recover()
    assert (await client.get(master.url, "GET_STATE"))[0] == 200


@pytest_twisted.ensureDeferred
async def test_a_master_may_refuse_the_stream_alone(client, master):
    master.streaming = False
    assert (await client.get(master.url, "SUBSCRIBE"))[0] == 403
    assert (await client.get(master.url, "GET_STATE"))[0] == 200


def self_signed(name, path):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), 1, begin, begin.replace(year=2120))
    ).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    return DefaultOpenSSLContextFactory(str(path), str(path))


@pytest_twisted.ensureDeferred
async def test_a_master_speaks_tls_with_the_certificate_it_is_given(client, start, cluster, clock, tmp_path):
    """Whether to believe it is the client's matter; this one believes all."""
    tls = self_signed("localhost", tmp_path / "pem")
    master = start(FakeMaster(client.reactor, cluster, clock=clock), tls=tls)
    assert master.url == f"https://{master.address}"
    endpoint = SSL4ClientEndpoint(client.reactor, "127.0.0.1", master.port, CertificateOptions())
    listener = await connectProtocol(endpoint, Listener(client.reactor)).addTimeout(PATIENCE, client.reactor)
    listener.transport.write(b"GET /redirect HTTP/1.1\r\nHost: master\r\nConnection: close\r\n\r\n")
    await listener.ended.addTimeout(PATIENCE, client.reactor)
    assert b" 307 " in listener.data


# --- recordings and agents --------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_recording_is_played_to_all_and_from_the_start_to_the_next(client, start, clock):
    recording = Recording.read(b'{"type":"SUBSCRIBED","subscribed":{}}\n{"type":"ONE"}\n\n{"type":"TWO"}\n')
    master = start(FakeMaster(client.reactor, recording, clock=clock))
    listener = await client.listen(master)
    assert recording.play(1) == 1
    await listener.until(lambda each: "ONE" in each.types)
    second = await client.listen(master)
    await second.until(lambda each: "HEARTBEAT" in each.types)
    assert second.types == ["SUBSCRIBED", "ONE", "HEARTBEAT"]
    assert recording.play() == 1
    assert recording.play() == 0
    await second.until(lambda each: "TWO" in each.types)
    assert (await client.get(master.url, "GET_STATE"))[0] == 501


@pytest_twisted.ensureDeferred
async def test_an_agent_tells_of_its_own_tasks_only(client, start, cluster, marathon, agent):
    other = cluster.add_agent("10.0.0.6")
    cluster.add_task("mine", marathon, agent)
    cluster.add_task("foreign", marathon, other)
    server = start(FakeAgent.of_cluster(client.reactor, cluster, agent))
    _, _, body = await client.get(server.url, "GET_STATE")
    state = json.loads(body)["get_state"]
    assert [task["name"] for task in state["get_tasks"]["launched_tasks"]] == ["mine"]
    assert [each["framework_info"]["name"] for each in state["get_frameworks"]["frameworks"]] == ["marathon"]
    _, _, body = await client.get(server.url, "GET_AGENT")
    assert json.loads(body)["get_agent"]["agent_info"]["id"]["value"] == agent
    assert (await client.get(server.url, "SUBSCRIBE"))[0] == 501


@pytest_twisted.ensureDeferred
async def test_an_agent_is_made_from_a_recorded_answer(client, start, fixtures_dir):
    recorded = (fixtures_dir / "mesos" / "vip-labels.json").read_bytes()
    server = start(FakeAgent.recorded(client.reactor, recorded))
    assert json.loads((await client.get(server.url, "GET_STATE"))[2]) == json.loads(recorded)
    agent = json.loads((await client.get(server.url, "GET_AGENT"))[2])["get_agent"]["agent_info"]
    assert agent["hostname"] == "172.17.0.3"


# --- the cluster ------------------------------------------------------------


class Mirror:
    """What a client that believes each event knows: names by task."""

    def __init__(self):
        self.agents, self.frameworks, self.tasks = set(), {}, {}

    def take(self, event):
        getattr(self, event["type"].lower())(event[event["type"].lower()])

    def agent_added(self, content):
        self.agents.add(content["agent"]["agent_info"]["id"]["value"])

    def agent_removed(self, content):
        self.agents.remove(content["agent_id"]["value"])

    def framework_added(self, content):
        info = content["framework"]["framework_info"]
        self.frameworks[info["id"]["value"]] = info["name"]

    framework_updated = framework_added

    def framework_removed(self, content):
        del self.frameworks[content["framework_info"]["id"]["value"]]

    def task_added(self, content):
        task = content["task"]
        self.tasks[task["framework_id"]["value"], task["task_id"]["value"]] = task["state"]

    def task_updated(self, content):
        key = content["framework_id"]["value"], content["status"]["task_id"]["value"]
        if content["state"] in TERMINAL:
            del self.tasks[key]
        else:
            self.tasks[key] = content["state"]


def snapshot(cluster):
    state = cluster.get_state()
    return (
        {each["agent_info"]["id"]["value"] for each in state["get_agents"]["agents"]},
        {
            each["framework_info"]["id"]["value"]: each["framework_info"]["name"]
            for each in state["get_frameworks"]["frameworks"]
        },
        {
            (each["framework_id"]["value"], each["task_id"]["value"]): each["state"]
            for each in state["get_tasks"]["tasks"]
        },
    )


STEPS = ["agent", "framework", "task", "running", "killing", "finished", "rename", "gone", "torn", "over", "again"]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), max_size=40))
def test_the_events_of_a_cluster_lead_to_its_snapshot(steps):
    """Or a property test of a client would find faults that are the fake's."""
    cluster, mirror = FakeCluster(), Mirror()
    cluster.watch(mirror.take)
    # Most histories need these, and chance would seldom put them first.
    for step, number in [("agent", 0), ("framework", 0), ("task", 0), ("task", 1), *steps]:
        play(cluster, step, number)
        if step == "over":
            mirror.agents, mirror.frameworks, mirror.tasks = snapshot(cluster)
        assert snapshot(cluster) == (mirror.agents, mirror.frameworks, mirror.tasks)


def play(cluster, step, number):
    def pick(values):
        return sorted(values)[number % len(values)]

    living = [agent.id for agent in cluster.agents.values() if not agent.recovered]
    frameworks = [each.id for each in cluster.frameworks.values() if each.known]
    tasks = [task.key for task in cluster.tasks.values() if task.agent in living]
    if step == "agent":
        cluster.add_agent(f"10.0.0.{number}")
    elif step == "framework":
        cluster.add_framework(f"framework-{number}")
    elif step == "task" and living and frameworks:
        cluster.add_task("web", pick(frameworks), pick(living), identity=str(number), state="TASK_STAGING")
    elif step in {"running", "killing", "finished"} and tasks:
        cluster.update_task(pick(tasks), state=f"TASK_{step.upper()}")
    elif step == "rename" and frameworks:
        cluster.update_framework(pick(frameworks), name=f"renamed-{number}")
    elif step == "gone" and living:
        cluster.remove_agent(pick(living))
    elif step == "torn" and frameworks:
        cluster.remove_framework(pick(frameworks))
    elif step == "over":
        cluster.fail_over()
    elif step == "again" and (recovered := cluster.agents.keys() - set(living)):
        cluster.register_again(pick(recovered))


def test_after_a_failover_agents_bring_their_frameworks_and_tasks(cluster, marathon, agent):
    """The order in which a real master told it (recovered-agents.json)."""
    cluster.add_task("web", marathon, agent)
    cluster.fail_over()
    state = cluster.get_state()
    assert state["get_tasks"]["tasks"] == []
    assert state["get_frameworks"]["frameworks"] == []
    assert [each["id"]["value"] for each in state["get_agents"]["recovered_agents"]] == [agent]
    told = len(cluster.log)
    cluster.register_again(agent)
    assert [event["type"] for event in cluster.log[told:]] == ["AGENT_ADDED", "FRAMEWORK_ADDED", "TASK_ADDED"]
    assert len(cluster.get_state()["get_tasks"]["tasks"]) == 1


def test_a_mapped_port_is_told_as_marathon_and_mesos_tell_it(cluster, marathon, agent):
    port = ClusterPort(8080, host_port=31000, name="http", vips=["/web:80"])
    cluster.add_task("web", marathon, agent, ports=[port], addresses=["172.31.254.3", "fd01:b::3"])
    (task,) = cluster.get_state()["get_tasks"]["tasks"]
    (told,) = task["discovery"]["ports"]["ports"]
    assert told["number"] == 31000
    assert told["labels"]["labels"] == [
        {"key": "VIP_0", "value": "/web:80"},
        {"key": "network-scope", "value": "host"},
    ]
    (info,) = task["container"]["network_infos"]
    assert info["port_mappings"] == [{"container_port": 8080, "host_port": 31000, "protocol": "tcp"}]
    (addresses,) = task["statuses"][0]["container_status"]["network_infos"]
    assert [each["protocol"] for each in addresses["ip_addresses"]] == ["IPv4", "IPv6"]


def test_a_cluster_that_nobody_heard_grow_is_kept_small():
    """50 000 tasks with no log keep no documents."""
    cluster = FakeCluster(keep_log=False)
    framework, agent = cluster.add_framework("marathon"), cluster.add_agent("10.0.0.1")
    for _ in range(100):
        cluster.add_task("web", framework, agent)
    assert cluster.log == []
    assert len(cluster.get_state()["get_tasks"]["tasks"]) == 100


def test_a_status_tells_nothing_but_what_statuses_tell(cluster, marathon, agent):
    task = cluster.add_task("web", marathon, agent)
    with pytest.raises(AssertionError, match="name"):
        cluster.update_task(task, name="other")


@pytest_twisted.ensureDeferred
async def test_without_an_interval_the_first_heartbeat_is_the_last(client, start, cluster, clock):
    master = start(FakeMaster(client.reactor, cluster, clock=clock, heartbeat=0))
    listener = await client.listen(master)
    await listener.until(lambda each: len(each.documents) == 2)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(("forgotten", "told"), [(False, ["TASK_UPDATED", "AGENT_REMOVED"]), (True, ["AGENT_REMOVED"])])
def test_an_agent_goes_with_a_word_on_its_tasks_or_without(cluster, marathon, agent, forgotten, told):
    cluster.add_task("web", marathon, agent)
    before = len(cluster.log)
    (cluster.forget_agent if forgotten else cluster.remove_agent)(agent)
    assert [event["type"] for event in cluster.log[before:]] == told
    assert bool(cluster.get_state()["get_tasks"]["tasks"]) == forgotten
