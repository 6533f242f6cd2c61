"""The part `ops` as it is assembled, over real sockets."""

from __future__ import annotations

import json
import socket
import stat
from types import SimpleNamespace

import attrs
import pytest
import pytest_twisted
from treq import content
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from dcosnet.errors import ConfigError
from dcosnet.interfaces import IMetrics, IRestResource
from dcosnet.io.listening import ListenError
from dcosnet.model.metric import Metric, Sample
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.ops.plugin import Settings, make_part


@implementer(IRestResource)
@attrs.frozen
class Extra:
    """What another part may bring."""

    path: str = "/v1/extra"
    methods: frozenset[str] = frozenset({"GET", "POST"})
    local: bool = True

    def respond(self, request: RestRequest) -> RestReply:
        return RestReply({"came": request.body.decode(), "local": request.local})


@implementer(IMetrics)
class Counted:
    name = "extra"

    def collect(self):
        yield Metric("dcosnet_extra_total", "Extra.", "counter", [Sample(4)])


@implementer(IAgentEndpointFactory)
@attrs.frozen
class Through:
    """Connects to one UNIX socket whatever the address says."""

    path: str

    def endpointForURI(self, uri):
        from twisted.internet import reactor

        return UNIXClientEndpoint(reactor, self.path)


@pytest.fixture
def started(toolbox, tmp_path):
    """The part on a TCP port and a UNIX socket, with a manhole."""
    from twisted.internet import reactor

    toolbox.reactor = reactor
    toolbox.contributed |= {IRestResource: [Extra()], IMetrics: [Counted()]}
    settings = Settings(
        listen=("tcp:0:interface=127.0.0.1", "unix:api.sock:mode=600"), manhole="unix:manhole.sock:mode=600"
    )
    part = make_part(settings, toolbox)
    assert part.ready() == "not listening yet"
    root, other = MultiService(), Service()
    other.setName("other")
    other.setServiceParent(root)
    part.service.setName("ops")
    part.service.setServiceParent(root)
    root.privilegedStartService()
    root.startService()
    yield SimpleNamespace(part=part, root=root, tmp_path=tmp_path)
    pytest_twisted.blockon(root.stopService())
    assert list(tmp_path.glob("*.sock")) == []


@pytest_twisted.ensureDeferred
async def test_it_answers_over_tcp_and_unix_sockets(started) -> None:
    """The same resources; those of other parts, too; local ones over the UNIX socket alone."""
    from twisted.internet import reactor

    assert started.part.ready() is None
    tcp, unix = started.part.describe()["listen"]
    path = unix.removeprefix("unix:")
    near = Agent.usingEndpointFactory(reactor, Through(path))
    for agent, base, status in ((Agent(reactor), f"http://{tcp}", 403), (near, "http://localhost", 200)):
        response = await agent.request(b"GET", f"{base}/v1/version".encode())
        assert json.loads(await content(response)) == {"Service": "dcos-dns", "Version": "1.2.3"}
        response = await agent.request(b"GET", f"{base}/v1/extra".encode())
        told = json.loads(await content(response))
        assert response.code == status
    assert told == {"came": "", "local": True}
    assert stat.S_IMODE((started.tmp_path / "api.sock").stat().st_mode) == 0o600


@pytest_twisted.ensureDeferred
async def test_metrics_are_those_of_every_part_and_our_own(started) -> None:
    """One page for a scraper."""
    from twisted.internet import reactor

    tcp, _ = started.part.describe()["listen"]
    response = await Agent(reactor).request(b"GET", f"http://{tcp}/metrics".encode())
    text = (await content(response)).decode()
    assert "dcosnet_extra_total 4.0\n" in text
    assert 'dcosnet_ops_replies_total{status="2xx"} 0.0\n' in text


class Typing(Protocol):
    """Types lines at the prompt and waits for what is shown."""

    def __init__(self, wanted: bytes) -> None:
        self.wanted = wanted
        self.shown = b""
        self.seen: Deferred[None] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"print(sorted(parts), root.running, toolbox.node.version * 2)\r")

    def dataReceived(self, data: bytes) -> None:
        self.shown += data
        if self.wanted in self.shown and not self.seen.called:
            self.seen.callback(None)

    def connectionLost(self, reason) -> None:
        self.closed.callback(None)


@pytest_twisted.ensureDeferred
async def test_the_manhole_is_a_prompt_inside_the_process(started) -> None:
    """It knows the root service, the parts and the toolbox, and belongs to its owner alone."""
    from twisted.internet import reactor

    path = started.tmp_path / "manhole.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    typing = await connectProtocol(UNIXClientEndpoint(reactor, str(path)), Typing(b"['ops', 'other'] 1 1.2.31.2.3"))
    await typing.seen.addTimeout(10, reactor)
    typing.transport.loseConnection()
    await typing.closed.addTimeout(10, reactor)


def test_there_is_no_manhole_unless_it_is_set(toolbox) -> None:
    """A default node has one door less."""
    assert make_part(Settings(), toolbox).describe()["manhole"] == []


def test_a_part_that_listens_nowhere_is_refused(toolbox) -> None:
    """It would not be ready for ever, and nobody could ask why."""
    with pytest.raises(ConfigError, match=r"^ops\.listen: names nothing to listen on; leave \[ops\] out"):
        make_part(Settings(listen=()), toolbox)


@pytest.mark.parametrize("text", ["tcp:6023", "unix:m.sock:mode=660", "unix:m.sock:mode=606"])
def test_a_manhole_that_admits_others_is_refused(toolbox, text: str) -> None:
    """Whoever connects is this process."""
    with pytest.raises(ConfigError, match=r"^ops\.manhole: "):
        make_part(Settings(manhole=text), toolbox)


def test_two_parts_may_not_answer_the_same(toolbox) -> None:
    """It is said at start, with the path."""
    toolbox.contributed[IRestResource] = [Extra(path="/v1/vips")]
    with pytest.raises(ConfigError, match="two resources answer GET /v1/vips"):
        make_part(Settings(), toolbox)


def test_a_port_in_use_stops_the_start(toolbox) -> None:
    """With one line that says which, why and what to do."""
    from twisted.internet import reactor

    toolbox.reactor = reactor
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        part = make_part(Settings(listen=(f"tcp:{other.getsockname()[1]}:interface=127.0.0.1",)), toolbox)
        with pytest.raises(
            ListenError, match=r"Address already in use; stop what listens there, or change ops\.listen"
        ):
            part.service.privilegedStartService()
