"""HTTP in front of the resources, on a transport in memory."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.ops.http import BODY_MAX, IDLE_TIMEOUT, Root, encode, make_site
from dcosnet.ops.routes import Routes

TCP = IPv4Address("TCP", "127.0.0.1", 62080)
UNIX = UNIXAddress("/run/api.sock")


@implementer(IRestResource)
@attrs.frozen
class Canned:
    path: str
    answer: Callable[[RestRequest], object]
    methods: frozenset[str] = frozenset({"GET"})
    local: bool = False

    def respond(self, request: RestRequest):
        return self.answer(request)


def told(request: RestRequest) -> RestReply:
    return RestReply({**attrs.asdict(request), "body": request.body.decode()})


def explode(_: RestRequest) -> RestReply:
    raise RuntimeError("the secret of the house")


class Front:
    """The HTTP front with some resources, and a client in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.waiting: Deferred[RestReply] = Deferred()
        both = frozenset({"GET", "POST"})
        self.root = Root(
            Routes(
                [
                    Canned("/v1/hosts/<name>", told, both),
                    Canned("/v1/secret", told, both, local=True),
                    Canned("/v1/broken", explode),
                    Canned("/v1/later", lambda _: self.waiting),
                    Canned("/v1/unwritable", lambda _: RestReply(object())),
                    Canned("/text", lambda _: RestReply("hi\n", content_type="text/plain", headers={"etag": '"1"'})),
                    Canned("/same", lambda _: RestReply(status=304, headers={"etag": '"1"'})),
                ]
            ),
            frozenset({"localhost", "host-a"}),
        )
        self.site = make_site(self.root, self.clock)

    def connect(self, address=TCP) -> StringTransport:
        transport = StringTransport(hostAddress=address)
        self.protocol = self.site.buildProtocol(None)
        self.protocol.makeConnection(transport)
        return transport

    def ask(self, line: str, *headers: str, body: bytes = b"", address=TCP) -> Reply:
        transport = self.connect(address)
        lines = [f"{line} HTTP/1.1", *headers]
        if not any(header.lower().startswith("host:") for header in headers):
            lines.append("Host: 127.0.0.1:62080")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        reply = Reply.of(transport.value())
        self.protocol.connectionLost(Failure(ConnectionDone()))
        return reply


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Reply:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return cls(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


@pytest.fixture
def front() -> Front:
    return Front()


def test_a_resource_sees_the_request_in_our_terms(front: Front) -> None:
    """Named parts and parameters are decoded, the first value of a parameter counts, header names are lower case."""
    reply = front.ask(
        "POST /v1/hosts/a%2Fb%C3%BC?name=x%20y&name=z&bare", "X-Two: 1", "X-Two: 2", "Content-Length: 4", body=b"body"
    )
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    asked = reply.json
    assert asked["method"] == "POST"
    assert asked["arguments"] == {"name": "a/bü"}
    assert asked["query"] == {"name": "x y", "bare": ""}
    assert asked["headers"]["x-two"] == "1, 2"
    assert asked["body"] == "body"
    assert asked["local"] is False


def test_text_goes_out_as_it_is(front: Front) -> None:
    """With its type, its headers, and those that keep browsers from mischief."""
    reply = front.ask("GET /text")
    assert (reply.status, reply.body) == (200, b"hi\n")
    assert reply.headers["content-type"] == "text/plain"
    assert reply.headers["content-length"] == "3"
    assert reply.headers["etag"] == '"1"'
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in reply.headers


def test_head_is_a_get_without_its_body(front: Front) -> None:
    """Same status, same length."""
    reply = front.ask("HEAD /text")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, "3", b"")


def test_not_modified_has_no_body_and_keeps_the_connection(front: Front) -> None:
    """Two requests in one connection: the second is answered where the first one ended."""
    transport = front.connect()
    front.protocol.dataReceived(
        b"GET /same HTTP/1.1\r\nHost: localhost\r\n\r\nGET /text HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    first, second = transport.value().split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"304")
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b"hi\n")
    front.protocol.connectionLost(Failure(ConnectionDone()))


def test_an_unknown_path_says_what_is_near(front: Front) -> None:
    """Three sentences: what, why, what to do."""
    reply = front.ask("GET /v1/host/x")
    assert reply.status == 404
    assert reply.json == {
        "error": "/v1/host/x is not here",
        "reason": "no resource has this path",
        "remedy": "did you mean /v1/hosts/<name>?",
    }
    assert "/ to see" in front.ask("GET /zzzzzzzzzzzzzz").json["remedy"]


@pytest.mark.parametrize("path", ["/v1/hosts/%ff", "/text?" + "a&" * 70])
def test_an_address_that_cannot_be_read_is_a_bad_request(front: Front, path: str) -> None:
    """Not UTF-8; too many parameters."""
    assert front.ask(f"GET {path}").status == 400


def test_a_method_that_is_not_there_says_which_are(front: Front) -> None:
    """RFC 9110 15.5.6 wants Allow."""
    reply = front.ask("DELETE /v1/hosts/x")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
    assert set(reply.json) == {"error", "reason", "remedy"}
    assert front.ask("BREW /text").status == 405


def test_local_resources_answer_over_unix_sockets_only(front: Front) -> None:
    """The file's permissions vouch for who asks there."""
    assert front.ask("GET /v1/secret").status == 403
    assert "unix:" in front.ask("GET /v1/secret").json["remedy"]
    reply = front.ask("GET /v1/secret", address=UNIX)
    assert (reply.status, reply.json["local"]) == (200, True)
    assert front.root.counts.refused["local"] == 2


def test_a_rebound_name_is_refused(front: Front) -> None:
    """A page whose name was pointed at us reads nothing."""
    reply = front.ask("GET /text", "Host: evil.example")
    assert (reply.status, front.root.counts.refused["host"]) == (421, 1)
    assert b"hi\n" not in reply.body
    assert front.ask("GET /text", "Host: localhost", "Host: evil.example").status in (400, 421)
    assert front.ask("GET /text", "Host: host-a:1").status == 200
    assert front.ask("GET /text", "Host: any", address=UNIX).status == 200


def test_a_write_from_another_site_is_refused(front: Front) -> None:
    """A page elsewhere may not change anything here."""
    assert front.ask("POST /v1/hosts/x", "Sec-Fetch-Site: cross-site", "Content-Length: 0").status == 403
    assert front.ask("POST /v1/hosts/x", "Sec-Fetch-Site: same-origin", "Content-Length: 0").status == 200
    assert front.ask("GET /text", "Sec-Fetch-Site: cross-site").status == 200
    assert front.root.counts.refused["site"] == 1


def test_a_body_that_is_announced_too_long_is_refused_unread(front: Front) -> None:
    """The connection is closed: what follows would be the body."""
    transport = front.connect()
    head = ["POST /v1/hosts/x HTTP/1.1", "Host: localhost", "Expect: 100-continue", f"Content-Length: {BODY_MAX + 1}"]
    front.protocol.dataReceived("\r\n".join([*head, "", ""]).encode())
    reply = Reply.of(transport.value())
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert set(reply.json) == {"error", "reason", "remedy"}
    assert transport.disconnecting
    front.protocol.connectionLost(Failure(ConnectionDone()))
    assert front.root.counts.refused["body"] == 1


def test_a_body_that_grows_too_long_is_refused(front: Front) -> None:
    """Chunked bodies announce nothing; they are kept up to the limit, and answered once."""
    transport = front.connect()
    front.protocol.dataReceived(b"POST /v1/hosts/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(BODY_MAX // 65536):
        front.protocol.dataReceived(chunk)
    assert not transport.value()
    front.protocol.dataReceived(chunk + chunk + b"0\r\n\r\n")
    assert transport.value().count(b"HTTP/1.1 413") == 1
    assert b"HTTP/1.1 200" not in transport.value()
    front.protocol.connectionLost(Failure(ConnectionDone()))


def test_a_body_of_the_limit_is_taken(front: Front) -> None:
    """One byte less than too long."""
    body = b"x" * BODY_MAX
    assert front.ask("POST /v1/hosts/x", f"Content-Length: {BODY_MAX}", body=body).json["body"] == body.decode()


@pytest.mark.parametrize("path", ["/v1/broken", "/v1/unwritable"])
def test_an_error_of_ours_says_nothing_of_itself(front: Front, path: str) -> None:
    """The log has it, the client learns only that; it is counted."""
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        reply = front.ask(f"GET {path}")
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"Traceback" not in reply.body
    assert set(reply.json) == {"error", "reason", "remedy"}
    assert front.root.counts.failures == 1
    assert front.root.counts.replies["5xx"] == 1
    assert [event["path"] for event in events if "log_failure" in event] == [path]


def test_a_reply_may_come_later(front: Front) -> None:
    """Nothing is written before."""
    transport = front.connect()
    front.protocol.dataReceived(b"GET /v1/later HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert not transport.value()
    front.waiting.callback(RestReply([1]))
    assert Reply.of(transport.value()).json == [1]
    front.protocol.connectionLost(Failure(ConnectionDone()))


def test_a_client_that_leaves_ends_what_was_begun_for_it(front: Front) -> None:
    """The resource's Deferred is cancelled; that is no failure."""
    cancelled = []
    front.waiting = Deferred(cancelled.append)
    front.connect()
    front.protocol.dataReceived(b"GET /v1/later HTTP/1.1\r\nHost: localhost\r\n\r\n")
    front.protocol.connectionLost(Failure(ConnectionDone()))
    assert len(cancelled) == 1
    assert (front.root.counts.abandoned, front.root.counts.failures) == (1, 0)


def test_a_silent_client_is_dropped(front: Front) -> None:
    """Connections are not kept for those who say nothing."""
    transport = front.connect()
    front.clock.advance(IDLE_TIMEOUT)
    assert transport.disconnecting
    front.protocol.connectionLost(Failure(ConnectionDone()))


def test_headers_have_a_limit(front: Front) -> None:
    """Not one byte of a reply is owed to 17 KiB of headers."""
    transport = front.connect()
    front.protocol.dataReceived(b"GET /text HTTP/1.1\r\n" + b"X-A: " + b"x" * 17_000 + b"\r\n\r\n")
    assert b"hi\n" not in transport.value()
    front.protocol.connectionLost(Failure(ConnectionDone()))


def test_bodies_become_bytes() -> None:
    """JSON ends with a newline; addresses and mappings of any kind are values."""
    from ipaddress import ip_address
    from types import MappingProxyType

    assert encode(None) == b""
    assert encode(b"x") == b"x"
    assert encode("ü") == "ü".encode()
    assert encode(MappingProxyType({"a": (ip_address("::1"),)})) == b'{"a":["::1"]}\n'
