"""
Making one probe: connect, and for http ask once and read the status.

The answer's body is not read, redirects are not followed, and nothing is kept
open. An outcome always comes, at the latest when the check's timeout is over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from dcosnet import __version__
from dcosnet.sources.files.checks import Outcome, Probe, Result
from dcosnet.sources.services import Check

# More head than any server sends before the end of its status line, even after
# interim answers (RFC 9110 15.2).
_HEAD_MAX = 16 << 10
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?")


class NotHttp(ValueError):  # noqa: N818 - it tells what came, for people
    """What came is no HTTP/1 answer."""


def status_of(head: bytes) -> int | None:
    """
    The final status in what a server sent so far; None until it is there.

    Interim answers (1xx) are passed over. Raises NotHttp.
    """
    while True:
        line, newline, rest = head.partition(b"\n")
        if not newline:
            if len(head) > _HEAD_MAX or not b"HTTP/1.".startswith(head[:7]):
                raise NotHttp("the answer is not HTTP/1")
            return None
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise NotHttp("the answer is not HTTP/1")
        status = int(match[1])
        if status >= 200:
            return status
        end = re.search(rb"(?:^|\n)\r?\n", rest)
        if end is None:
            if len(rest) > _HEAD_MAX:
                raise NotHttp("an interim answer has no end")
            return None
        head = rest[end.end() :]
        if not head:
            return None


def request(check: Check) -> bytes:
    """The one request of a probe (RFC 9112 3)."""
    lines = (
        f"GET {check.path} HTTP/1.1",
        f"Host: {check.endpoint}",
        f"User-Agent: dcosnet/{__version__}",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class _Connect(Protocol):
    """Is content with the connection."""

    def __init__(self, check: Check, answer: Deferred[tuple[Result, str]]) -> None:
        self.check = check
        self.answer: Deferred[tuple[Result, str]] | None = answer

    def connectionMade(self) -> None:
        self.finish(Result.GOOD, "connected")

    def finish(self, result: Result, detail: str) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback((result, detail))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.finish(Result.GARBAGE, f"closed without an answer: {reason.getErrorMessage()}")


class _Get(_Connect):
    """Asks, and reads the status."""

    head = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(request(self.check))

    def dataReceived(self, data: bytes) -> None:
        if self.answer is None:
            return
        self.head += data
        try:
            status = status_of(self.head)
        except NotHttp as error:
            self.finish(Result.GARBAGE, str(error))
            return
        if status is not None:
            self.finish(Result.GOOD if 200 <= status < 400 else Result.STATUS, f"status {status}")


def probe(reactor: Any, made: Probe) -> Deferred[Outcome]:
    """Make a probe. Fires with its outcome, never fails; the connection is closed then."""
    check = made.check
    kind: Callable[[Check, Deferred[tuple[Result, str]]], _Connect] = _Get if check.kind == "http" else _Connect
    answer: Deferred[tuple[Result, str]] = Deferred()
    protocol = kind(check, answer)
    endpoint = TCP4ClientEndpoint if check.endpoint.address.version == 4 else TCP6ClientEndpoint
    factory = Factory.forProtocol(lambda: protocol)
    factory.noisy = False  # it would log two lines for each probe
    connecting = endpoint(reactor, str(check.endpoint.address), check.endpoint.port).connect(factory)

    def judge(found: tuple[Result, str] | Failure) -> Outcome:
        protocol.answer = None
        if protocol.transport is not None:
            ITCPTransport(protocol.transport).abortConnection()
        if not isinstance(found, Failure):
            return Outcome(made.number, *found)
        # The one deadline ends whichever wait it meets, each with an error of its own.
        if found.check(defer.TimeoutError, ConnectingCancelledError) is not None:
            return Outcome(made.number, Result.TIMEOUT, f"no answer within {check.timeout:g} s")
        return Outcome(made.number, Result.REFUSED, found.getErrorMessage())

    return connecting.addCallback(lambda _: answer).addTimeout(check.timeout, reactor).addBoth(judge)
