"""
HTTP in front of the resources: one twisted.web leaf that serves them all.

Checks who asks, finds the resource, waits for its reply and writes it. What a
resource raises becomes a 500 that says nothing of it; the log has it. Limits:
bodies of 1 MiB, headers as twisted.web has them (16 KiB in all, 500 lines), a
minute of silence on a connection, and as many connections as `connections` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

import attrs
import msgspec
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from dcosnet.model.rest import RestReply, RestRequest, refuse
from dcosnet.ops.connections import Bounded, Connection
from dcosnet.ops.guard import foreign_write, host_known
from dcosnet.ops.routes import Routes

BODY_MAX = 1 << 20
IDLE_TIMEOUT = 60.0
_PARAMETERS_MAX = 64

# RFC 9110 15.5.20; twisted.web does not know it.
_REASONS = {**http.RESPONSES, 421: b"Misdirected Request"}

# No page of another site may frame or sniff what is answered here, and nothing
# of it is kept: it is old after a second.
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@attrs.define
class Counts:
    """What the HTTP interface did since it started; replies by class of status."""

    replies: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(("2xx", "3xx", "4xx", "5xx"), 0))
    refused: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(("host", "site", "body", "local"), 0))
    failures: int = 0
    abandoned: int = 0


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    if isinstance(value, Iterable):
        return list(value)
    raise NotImplementedError(f"{type(value).__name__} is not a JSON value")


def encode(body: object) -> bytes:
    """The bytes of a reply's body; JSON ends with a newline, for terminals."""
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    return msgspec.json.encode(body, enc_hook=_plain) + b"\n"


def _ready_to_send(reply: RestReply) -> RestReply:
    """The reply with its bytes made, so that a body that has none is an error while it can be told."""
    return attrs.evolve(reply, body=encode(reply.body))


class BoundedRequest(Request):
    """A request whose body is refused, and the connection closed, beyond 1 MiB."""

    oversize = False
    lost = False

    def gotLength(self, length: int | None) -> None:
        """Refuse what is announced too long before it is sent."""
        self.content = BytesIO()
        if length is not None and length > BODY_MAX:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body; refuse when a chunked one grows too long."""
        if self.oversize:
            return
        assert self.content is not None
        if self.content.tell() + len(data) > BODY_MAX:
            self._refuse()
        else:
            self.content.write(data)

    def process(self) -> None:
        """Go on to the resource, unless the reply was given already."""
        if not self.oversize:
            cast("Connection", self.channel.transport).asked()
            super().process()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone; nothing can be written any more."""
        self.lost = True
        super().connectionLost(reason)

    def _refuse(self) -> None:
        self.oversize = True
        self.requestHeaders.removeHeader(b"expect")  # or the channel says 100 after our final word
        channel = self.channel
        counts = cast("Root", cast("Any", channel).site.resource).counts
        counts.refused["body"] += 1
        counts.replies["4xx"] += 1
        body = encode(refuse(413, "the body is too long", f"more than {BODY_MAX} bytes", "send less").body)
        head = (
            "HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        assert channel.transport is not None
        channel.transport.write(head.encode() + body)
        channel.loseConnection()


class Root(Resource):
    """The one resource that twisted.web knows; it serves all of ours."""

    isLeaf = True
    log = Logger()

    def __init__(self, routes: Routes, names: frozenset[str]) -> None:
        super().__init__()
        self.counts = Counts()
        self._routes = routes
        self._names = names

    def render(self, request: BoundedRequest) -> int:
        """Answer now or later; twisted.web is told that it is later."""
        asked: Deferred[Any] = maybeDeferred(self._reply, request)
        gone = request.notifyFinish()
        gone.addErrback(lambda _: self._abandon(asked))
        asked.addCallback(_ready_to_send)
        asked.addErrback(self._failed, request)
        asked.addCallback(self._write, request)
        # The connection may die between a reply and its bytes; nobody waits for this one.
        asked.addErrback(lambda failure: self.log.failure("could not write a reply", failure))
        return NOT_DONE_YET

    def _abandon(self, asked: Deferred[Any]) -> None:
        self.counts.abandoned += 1
        asked.cancel()

    def _reply(self, request: BoundedRequest) -> RestReply | Deferred[RestReply]:
        method = request.method.decode("ascii", "replace")
        local = isinstance(request.getHost(), UNIXAddress)
        refusal = None if local else self._refuse_astray(method, request)
        if refusal is not None:
            return refusal
        raw_path, _, raw_query = request.uri.partition(b"?")
        try:
            path = raw_path.decode("ascii")
            parts = [unquote(part, errors="strict") for part in path.split("/")[1:]]
            pairs = parse_qsl(raw_query.decode("ascii"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
        except ValueError:
            why = f"it is not UTF-8, or has more than {_PARAMETERS_MAX} parameters"
            return refuse(400, "the address is not understood", why, "encode it as RFC 3986 says")
        found = self._routes.find(parts)
        if found is None:
            nearest = self._routes.nearest(path)
            remedy = f"did you mean {nearest}?" if nearest else "ask for / to see what there is"
            return refuse(404, f"{path} is not here", "no resource has this path", remedy)
        route, arguments = found
        resource = route.resources.get("GET" if method == "HEAD" else method)
        if resource is None:
            allowed = ", ".join(route.methods)
            reply = refuse(
                405, f"{method} is not possible here", f"{route.pattern} takes {allowed}", "use one of those"
            )
            return attrs.evolve(reply, headers={"allow": allowed})
        if resource.local and not local:
            self.counts.refused["local"] += 1
            why = f"{method} {route.pattern} answers only over the UNIX socket"
            return refuse(403, "not over TCP", why, "connect to the unix: socket of `listen` in [ops]")
        query: dict[str, str] = {}
        for key, value in pairs:
            query.setdefault(key, value)
        headers = {
            name.decode("latin-1").lower(): ", ".join(value.decode("latin-1") for value in values)
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        assert request.content is not None
        return resource.respond(
            RestRequest(method, path, arguments, query, headers, request.content.read(), local),
        )

    def _refuse_astray(self, method: str, request: BoundedRequest) -> RestReply | None:
        hosts = [host.decode("latin-1") for host in request.requestHeaders.getRawHeaders(b"host") or ()]
        if len(hosts) > 1 or not host_known(hosts[0] if hosts else None, self._names):
            self.counts.refused["host"] += 1
            known = ", ".join(sorted(self._names))
            return refuse(
                421, "this node is not that host", "the Host header is no name of it", f"use {known} or an address"
            )
        if foreign_write(method, request.getHeader("sec-fetch-site")):
            self.counts.refused["site"] += 1
            return refuse(
                403, "not from another site", "a page elsewhere asked for a change", "ask from this node's page"
            )
        return None

    def _failed(self, failure: Failure, request: BoundedRequest) -> RestReply | None:
        if failure.check(CancelledError) and request.lost:
            return None
        self.counts.failures += 1
        path = request.path.decode("latin-1")
        self.log.failure("{method} {path} failed", failure, method=request.method.decode("latin-1"), path=path)
        return refuse(500, "the request failed", "an error of this node", "its log has the details")

    def _write(self, reply: RestReply | None, request: BoundedRequest) -> None:
        if reply is None or request.lost:
            return
        body = encode(reply.body)  # bytes already, unless it is an error of our own making
        self.counts.replies[f"{reply.status // 100}xx"] += 1
        request.setResponseCode(reply.status, _REASONS.get(reply.status))
        request.setHeader("server", "dcosnet")
        if reply.status != 304:  # RFC 9110 15.4.5: it would speak of the body that is not sent
            request.setHeader("content-type", reply.content_type)
            request.setHeader("content-length", str(len(body)))
        for name, value in {**_HEADERS, **reply.headers}.items():
            request.setHeader(name, value)
        request.write(body)
        request.finish()


class QuietSite(Site):
    """A site that counts requests and writes no log of them: a probe asks every second, for ever."""

    noisy = False

    def log(self, _request: http.Request) -> None:
        """Nothing: what happens per request is a counter."""


def make_site(root: Root, reactor: IReactorTime) -> Bounded:
    """What speaks HTTP with each client; `reactor` tells when a silent one is dropped."""
    return Bounded(QuietSite(root, requestFactory=BoundedRequest, timeout=IDLE_TIMEOUT, reactor=reactor))
