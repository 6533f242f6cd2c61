"""
Masters and agents of Mesos as HTTP servers: the v1 operator API, and all that can go wrong with it.

A FakeMaster serves a FakeCluster, or a Recording of a real one: SUBSCRIBE as
RecordIO over chunked HTTP, the GET_ calls, `/state`, and 307 while another one
leads. A FakeAgent answers GET_STATE and GET_AGENT. Both listen on loopback on a
port of the system's choice, run on the reactor they are given, and take time
(heartbeats only) from the clock they are given.

    master = FakeMaster(reactor, cluster, clock=clock)
    master.start()                        # master.url is what a client is told
    await master.next_request("SUBSCRIBE")
    cluster.add_task("web", marathon, agent)    # sent as it happens
    master.cut_streams()                  # ends in the midst of a record
    await master.stop()

What goes wrong is said beforehand, with `refuse`, `answer`, `reset` and `stall`,
and holds until `recover`. It does not check what a master would not: who may ask
is one header, compared as it is.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.protocols.policies import WrappingFactory
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from dcosnet.testing.fake_cluster import ClusterPort, Document, FakeCluster

__all__ = ["Asked", "ClusterPort", "FakeAgent", "FakeCluster", "FakeMaster", "Recording", "basic", "record"]

_JSON = "application/json"
_REQUESTS_KEPT = 1000


def record(document: bytes) -> bytes:
    """One record of a stream: its length, a newline, and as many bytes."""
    return b"%d\n%b" % (len(document), document)


def basic(principal: str, secret: str) -> str:
    """The Authorization header of a principal."""
    return f"Basic {b64encode(f'{principal}:{secret}'.encode()).decode()}"


@attrs.frozen
class Asked:
    """A request as it came; `call` is the type of the v1 call, header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    call: str = ""


@attrs.frozen
class _Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)


def _json(document: Document) -> _Reply:
    return _Reply(200, msgspec.json.encode(document), {"Content-Type": _JSON})


def _text(status: int, text: str, **headers: str) -> _Reply:
    return _Reply(status, text.encode(), {"Content-Type": "text/plain", **headers})


_RESET = _Reply(0)


# --- what is served ---------------------------------------------------------


class Content(Protocol):
    """What a master tells; FakeCluster through `_Cluster`, or a Recording."""

    def beginning(self, heartbeat: float) -> Sequence[bytes]:
        """The documents that a new stream starts with, SUBSCRIBED first."""

    def watch(self, receive: Callable[[bytes], None]) -> Callable[[], None]:
        """Call `receive(document)` for each later event; returns what ends it."""

    def get(self, call: str) -> Document | None:
        """What a GET_ call answers; None if it does not."""

    def state(self, leader: str) -> Document | None:
        """The document of `/state`."""


class Recording:
    """
    Events that a real master sent, one JSON document each.

    A stream starts with those played so far, the first one at least, since all
    subscribers come to the same state; `play` sends the next ones. Other calls
    are not answered: a recording has no snapshot of its end.
    """

    def __init__(self, lines: Sequence[bytes], played: int = 1) -> None:
        assert 1 <= played <= len(lines), "a stream begins with SUBSCRIBED"
        self.lines = tuple(lines)
        self.played = played
        self._watchers: list[Callable[[bytes], None]] = []

    @classmethod
    def read(cls, text: bytes, played: int = 1) -> Recording:
        """From a file with one document a line."""
        return cls([line for line in text.splitlines() if line.strip()], played)

    def play(self, count: int | None = None) -> int:
        """Send the next events, all that are left if no count is given; how many were sent."""
        end = len(self.lines) if count is None else min(self.played + count, len(self.lines))
        events, self.played = self.lines[self.played : end], end
        for event in events:
            for receive in tuple(self._watchers):
                receive(event)
        return len(events)

    def beginning(self, heartbeat: float) -> Sequence[bytes]:  # noqa: ARG002 - the recording tells its own
        return self.lines[: self.played]

    def watch(self, receive: Callable[[bytes], None]) -> Callable[[], None]:
        self._watchers.append(receive)
        return lambda: self._watchers.remove(receive)

    def get(self, call: str) -> Document | None:  # noqa: ARG002
        return None

    def state(self, leader: str) -> Document | None:  # noqa: ARG002
        return None


@attrs.frozen
class _Cluster:
    cluster: FakeCluster

    def beginning(self, heartbeat: float) -> Sequence[bytes]:
        return [msgspec.json.encode(self.cluster.subscribed(heartbeat))]

    def watch(self, receive: Callable[[bytes], None]) -> Callable[[], None]:
        return self.cluster.watch(lambda event: receive(msgspec.json.encode(event)))

    def get(self, call: str) -> Document | None:
        documents = {
            "GET_STATE": self.cluster.get_state,
            "GET_TASKS": self.cluster.get_tasks,
            "GET_AGENTS": self.cluster.get_agents,
            "GET_FRAMEWORKS": self.cluster.get_frameworks,
        }
        return documents[call]() if call in documents else None

    def state(self, leader: str) -> Document | None:
        return self.cluster.master_state(leader)


# --- servers ----------------------------------------------------------------


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, render: Callable[[Request], None]) -> None:
        super().__init__()
        self._render = render

    def render(self, request: Request) -> int:
        self._render(request)
        return NOT_DONE_YET


class _Site(Site):
    noisy = False

    def log(self, request: http.Request) -> None:
        """Say nothing; `requests` has it."""


class _Server:
    """
    What masters and agents have in common: a port, who may ask, and what goes wrong.

    `authorization`, if it is set, is the Authorization header without which a
    request gets 401. `requests` has the last thousand.
    """

    def __init__(self, reactor: Any, authorization: str | None) -> None:
        self.authorization = authorization
        self.requests: deque[Asked] = deque(maxlen=_REQUESTS_KEPT)
        self._reactor = reactor
        self._factory: WrappingFactory | None = None
        self._listening: Any = None
        self._tls = False
        self._address = ""
        self._trouble: _Reply | None = None
        self._stalled = False
        self._held: list[Callable[[], None]] = []
        self._waiting: list[tuple[str | None, Deferred[Asked]]] = []

    # --- the port -----------------------------------------------------------

    def start(self, port: int = 0, interface: str = "127.0.0.1", tls: Any = None) -> None:
        """Listen, with a context factory for TLS if there is one. After `stop`, it may start again."""
        assert self._listening is None, "it listens already"
        site = _Site(_Leaf(self._respond), reactor=self._reactor, timeout=None)
        self._factory = WrappingFactory(site)
        self._factory.noisy = False
        self._tls = tls is not None
        if tls is None:
            self._listening = self._reactor.listenTCP(port, self._factory, interface=interface)
        else:
            self._listening = self._reactor.listenSSL(port, self._factory, tls, interface=interface)
        self._address = f"{interface}:{self._listening.getHost().port}"

    def stop(self) -> Deferred[None]:
        """Be gone as a killed process is: nobody listens, and all connections are reset. Idempotent."""
        listening, self._listening = self._listening, None
        if listening is None:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        self._held.clear()
        assert self._factory is not None
        for connection in tuple(self._factory.protocols):
            connection.abortConnection()
        stopped: Deferred[None] = listening.stopListening()
        return stopped

    @property
    def address(self) -> str:
        """Where it listens, or did: "127.0.0.1:5050"."""
        return self._address

    @property
    def port(self) -> int:
        """The port of `address`."""
        return int(self._address.rpartition(":")[2])

    @property
    def url(self) -> str:
        """What a client is told, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://{self._address}"

    def next_request(self, call: str | None = None) -> Deferred[Asked]:
        """
        Fires with the next request, of this call if one is named, when its answer has begun.

        A stream is open by then. A stalled request has not come yet.
        """
        waiting: Deferred[Asked] = Deferred(lambda gone: self._waiting.remove((call, gone)))
        self._waiting.append((call, waiting))
        return waiting

    # --- what goes wrong ----------------------------------------------------

    def refuse(self, status: int = 503, text: str = "not now", **headers: str) -> None:
        """Answer each request so."""
        self._trouble = _text(status, text, **headers)

    def answer(self, body: bytes, content_type: str = "text/html", status: int = 200) -> None:
        """Answer each request with this, as a proxy's page in the way would."""
        self._trouble = _Reply(status, body, {"Content-Type": content_type})

    def reset(self) -> None:
        """Reset the connection of each request."""
        self._trouble = _RESET

    def stall(self) -> None:
        """Take requests and send nothing more, on streams neither; connections stay open."""
        self._stalled = True

    def recover(self) -> None:
        """All is well again; what was held back while it stalled is sent."""
        self._trouble, self._stalled = None, False
        held, self._held = self._held, []
        for go_on in held:
            go_on()

    # --- a request ----------------------------------------------------------

    def _respond(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def go_on() -> None:
            if not gone:
                self._begin(request)

        if self._stalled:
            self._held.append(go_on)
        else:
            go_on()

    def _begin(self, request: Request) -> None:
        asked = _read(request)
        self.requests.append(asked)
        reply = self._trouble or self._may(asked)
        if reply is None:
            reply = self._serve(asked, request)
        if reply is _RESET:
            _abort(request)
        elif reply is not None:
            request.setResponseCode(reply.status)
            for name, value in reply.headers.items():
                request.setHeader(name, value)
            request.setHeader("Content-Length", str(len(reply.body)))
            request.write(reply.body)
            request.finish()
        for wanted in [each for each in self._waiting if each[0] in {None, asked.call}]:
            self._waiting.remove(wanted)
            wanted[1].callback(asked)

    def _may(self, asked: Asked) -> _Reply | None:
        if self.authorization is not None and asked.headers.get("authorization") != self.authorization:
            return _text(401, "who are you?", **{"WWW-Authenticate": 'Basic realm="mesos"'})
        return None

    def _serve(self, asked: Asked, request: Request) -> _Reply | None:
        """The reply; None where a stream is the reply."""
        raise NotImplementedError


def _read(request: Request) -> Asked:
    headers = {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    path, method = request.path.decode("latin-1"), request.method.decode("latin-1")
    assert request.content is not None
    try:
        document = msgspec.json.decode(request.content.read())
    except msgspec.DecodeError:
        document = None
    call = document.get("type") if isinstance(document, dict) else None
    return Asked(method, path, headers, call if isinstance(call, str) else "")


def _abort(request: Request) -> None:
    """Reset its connection."""
    transport: Any = request.channel.transport
    transport.abortConnection()


def _misasked(asked: Asked) -> _Reply | None:
    """What Mesos says to a v1 call that is not one."""
    if asked.method != "POST":
        return _text(405, "Expecting one of { 'POST' }", Allow="POST")
    if asked.headers.get("content-type", "").partition(";")[0].strip() != _JSON:
        return _text(415, f"Expecting 'Content-Type' of {_JSON}")
    if not asked.call:
        return _text(400, "Failed to parse body into Call")
    return None


class _Stream:
    """An answer to SUBSCRIBE, until either side ends it."""

    def __init__(self, request: Request, heartbeat: LoopingCall) -> None:
        self.request = request
        self.heartbeat = heartbeat
        self.open = True

    def write(self, data: bytes, piece: int | None) -> None:
        if not self.open:
            return
        if piece is None:
            self.request.write(data)
            return
        for start in range(0, len(data), piece):
            self.request.write(data[start : start + piece])

    def close(self) -> None:
        self.open = False
        if self.heartbeat.running:
            self.heartbeat.stop()


class FakeMaster(_Server):
    """
    A master that serves a cluster or a recording, and leads unless it is told otherwise.

    Several masters may serve one cluster. `heartbeat` is the interval in seconds
    that it announces and keeps by `clock`; 0 sends none after the first. `piece`,
    if it is set, cuts what streams send into chunks of at most so many bytes.
    `streaming` False refuses SUBSCRIBE with 403 and nothing else.
    """

    def __init__(
        self,
        reactor: Any,
        content: FakeCluster | Recording,
        *,
        clock: Any = None,
        leading: bool = True,
        heartbeat: float = 15.0,
        authorization: str | None = None,
        piece: int | None = None,
    ) -> None:
        super().__init__(reactor, authorization)
        self.piece = piece
        self.streaming = True
        self.leading = leading
        self.heartbeat = heartbeat
        self._leader = ""
        self._clock = clock or reactor
        self._content: Content = _Cluster(content) if isinstance(content, FakeCluster) else content
        self._unwatch: Callable[[], None] | None = None
        self._streams: list[_Stream] = []
        self._unsent: list[bytes] = []

    @property
    def streams(self) -> int:
        """How many listen."""
        return len(self._streams)

    def start(self, port: int = 0, interface: str = "127.0.0.1", tls: Any = None) -> None:
        super().start(port, interface, tls)
        self._unwatch = self._content.watch(self.send)

    def stop(self) -> Deferred[None]:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._unsent.clear()
        for stream in tuple(self._streams):
            self._forget(stream)
        return super().stop()

    # --- leadership ---------------------------------------------------------

    def lead(self) -> None:
        """Be the leading master."""
        self.leading = True

    def step_down(self, leader: FakeMaster | None = None) -> None:
        """
        Another one leads, or nobody does yet: streams end, and calls are sent there.

        Without a leader they get 503, as they do while masters elect one.
        """
        self.leading = False
        self._leader = leader.address if leader is not None else ""
        self._close_streams(Request.loseConnection)

    # --- streams ------------------------------------------------------------

    def send(self, document: bytes) -> None:
        """Send one record to all who listen: an event, or something that is none."""
        self.write(record(document))

    def write(self, data: bytes) -> None:
        """Send bytes to all who listen, as they are; held back while it is stalled."""
        if self._stalled:
            self._unsent.append(data)
            return
        for stream in tuple(self._streams):
            stream.write(data, self.piece)

    def end_streams(self) -> None:
        """End all streams between records, and tell the end as HTTP does."""
        self._close_streams(Request.finish)

    def cut_streams(self) -> None:
        """End all streams in the midst of a record, without the end that HTTP would tell."""
        cut = record(b'{"type":"HEARTBEAT"}')
        for stream in self._streams:
            stream.write(cut[: len(cut) // 2], None)
        self._close_streams(Request.loseConnection)

    def reset_streams(self) -> None:
        """Reset the connections of all streams; what was sent last may not arrive."""
        self._close_streams(_abort)

    def recover(self) -> None:
        """All is well again; what was held back is sent, to new streams what they missed as their beginning."""
        self._stalled = False
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            self.write(data)
        super().recover()

    # ------------------------------------------------------------------------

    def _close_streams(self, close: Callable[[Request], object]) -> None:
        for stream in tuple(self._streams):
            self._forget(stream)
            close(stream.request)

    def _serve(self, asked: Asked, request: Request) -> _Reply | None:
        if asked.path in {"/redirect", "/master/redirect"}:
            leader = self.address if self.leading else self._leader
            return _text(307, "", Location=f"//{leader}") if leader else _text(503, "No leader elected")
        if asked.path in {"/state", "/master/state"}:
            document = self._content.state(self.address) if self.leading else None
            return self._elsewhere(asked) or (_json(document) if document else _text(501, "not recorded"))
        if asked.path != "/api/v1":
            return _text(404, "")
        return self._elsewhere(asked) or _misasked(asked) or self._call(asked, request)

    def _elsewhere(self, asked: Asked) -> _Reply | None:
        if self.leading:
            return None
        if not self._leader:
            return _text(503, "No leader elected")
        return _text(307, "", Location=f"//{self._leader}{asked.path}")

    def _call(self, asked: Asked, request: Request) -> _Reply | None:
        if asked.call == "SUBSCRIBE":
            if not self.streaming:
                return _text(403, "")
            self._subscribe(request)
            return None
        if asked.call == "GET_MASTER":
            return _json({"type": "GET_MASTER", "get_master": {"master_info": self._info()}})
        if asked.call == "GET_HEALTH":
            return _json({"type": "GET_HEALTH", "get_health": {"healthy": True}})
        document = self._content.get(asked.call)
        if document is None:
            return _text(501, f"{asked.call} is not played")
        return _json({"type": asked.call, asked.call.lower(): document})

    def _info(self) -> Document:
        host, _, port = self.address.rpartition(":")
        # Mesos keeps the address also as a number in network order, read as the host's.
        number = int.from_bytes(ip_address(host).packed, "little")
        return {
            "id": f"master-{self.port}",
            "ip": number,
            "port": int(port),
            "pid": f"master@{self.address}",
            "hostname": host,
            "version": "1.11.0",
            "address": {"hostname": host, "ip": host, "port": int(port)},
        }

    def _subscribe(self, request: Request) -> None:
        request.setHeader("Content-Type", _JSON)
        beat = LoopingCall(self._beat, request)
        beat.clock = self._clock
        stream = _Stream(request, beat)
        for document in self._content.beginning(self.heartbeat):
            stream.write(record(document), self.piece)
        self._streams.append(stream)
        request.notifyFinish().addBoth(lambda _: self._forget(stream))
        if self.heartbeat:
            beat.start(self.heartbeat)
        else:
            self._beat(request)

    def _beat(self, request: Request) -> None:
        for stream in self._streams:
            if stream.request is request and not self._stalled:
                stream.write(record(b'{"type":"HEARTBEAT"}'), self.piece)

    def _forget(self, stream: _Stream) -> None:
        stream.close()
        if stream in self._streams:
            self._streams.remove(stream)


class FakeAgent(_Server):
    """
    An agent: answers GET_STATE and GET_AGENT, from what `state` and `info` give when it is asked.

    `of_cluster` and `recorded` make one from a cluster or from a recorded answer.
    """

    def __init__(
        self,
        reactor: Any,
        state: Callable[[], Document],
        info: Callable[[], Document],
        *,
        authorization: str | None = None,
    ) -> None:
        super().__init__(reactor, authorization)
        self._state = state
        self._info = info

    @classmethod
    def of_cluster(cls, reactor: Any, cluster: FakeCluster, agent: str, **more: Any) -> FakeAgent:
        """One agent of a cluster, by its id."""
        return cls(reactor, lambda: cluster.get_agent_state(agent), lambda: cluster.get_agent_info(agent), **more)

    @classmethod
    def recorded(cls, reactor: Any, answer: bytes, **more: Any) -> FakeAgent:
        """From one recorded answer to GET_STATE that also names the agent, in `get_agents`."""
        state = msgspec.json.decode(answer)["get_state"]
        (agent,) = state["get_agents"]["agents"]
        return cls(reactor, lambda: state, lambda: agent["agent_info"], **more)

    def _serve(self, asked: Asked, request: Request) -> _Reply | None:  # noqa: ARG002
        if asked.path not in {"/api/v1", "/slave(1)/api/v1"}:
            return _text(404, "")
        if (refusal := _misasked(asked)) is not None:
            return refusal
        if asked.call == "GET_STATE":
            return _json({"type": "GET_STATE", "get_state": self._state()})
        if asked.call == "GET_AGENT":
            return _json({"type": "GET_AGENT", "get_agent": {"agent_info": self._info()}})
        return _text(501, f"{asked.call} is not played")
