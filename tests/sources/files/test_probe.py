"""Probes against real sockets on loopback, and the reading of answers."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Literal

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Factory, Protocol

from dcosnet.model.net import Endpoint
from dcosnet.model.task import TaskId
from dcosnet.sources.files.checks import Outcome, Probe, Result
from dcosnet.sources.files.probe import NotHttp, probe, status_of
from dcosnet.sources.services import Check


def made(port: int, kind: Literal["http", "tcp"], timeout: float = 10.0) -> Probe:
    endpoint = Endpoint(ip_address("127.0.0.1"), port)
    return Probe(7, TaskId("f", "t"), Check(kind, endpoint, "/health", 5.0, timeout))


async def ask(kind: Literal["http", "tcp"], answer: bytes | None, patience: float = 10.0) -> tuple[Outcome, bytes]:
    """Probe a server that gives this answer, or none and stays silent."""
    from twisted.internet import reactor

    heard: list[bytes] = []

    class Server(Protocol):
        def dataReceived(self, data: bytes) -> None:
            heard.append(data)
            if answer is not None:
                self.transport.write(answer)
                self.transport.loseConnection()

    listening: Any = reactor.listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
    try:
        return await probe(reactor, made(listening.getHost().port, kind, patience)), b"".join(heard)
    finally:
        await listening.stopListening()


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Result.GOOD),
        (b"HTTP/1.0 302 Found\r\n\r\n", Result.GOOD),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Result.STATUS),
        (b"HTTP/1.1 503\r\n\r\n", Result.STATUS),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Result.GOOD),
        (b"SSH-2.0-OpenSSH\r\n", Result.GARBAGE),
        (b"", Result.GARBAGE),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_status_decides(answer: bytes, result: Result) -> None:
    """200 to 399 is healthy; what is not HTTP is not."""
    outcome, heard = await ask("http", answer)
    assert (outcome.number, outcome.result) == (7, result)
    assert heard.startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest_twisted.ensureDeferred
async def test_a_connection_is_enough_for_tcp() -> None:
    """Nothing is sent on it."""
    outcome, heard = await ask("tcp", None)
    assert (outcome.result, heard) == (Result.GOOD, b"")


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_a_timeout() -> None:
    """The deadline covers the whole probe."""
    outcome, _ = await ask("http", None, patience=0.05)
    assert outcome.result is Result.TIMEOUT


@pytest_twisted.ensureDeferred
async def test_a_closed_port_is_refused() -> None:
    """Somebody listened there a moment ago, and nobody does now."""
    from twisted.internet import reactor

    listening: Any = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    port = listening.getHost().port
    await listening.stopListening()
    assert (await probe(reactor, made(port, "tcp"))).result is Result.REFUSED


HEADS = st.binary() | st.lists(
    st.sampled_from([b"HTTP/1.1 ", b"100 ", b"200", b"\r\n", b"\n", b" OK", b"A: b"]), max_size=12
).map(b"".join)


@given(head=HEADS)
def test_reading_a_status_is_total_and_does_not_depend_on_segments(head: bytes) -> None:
    """What is known early stays true when more arrives."""

    def read(data: bytes) -> int | str | None:
        try:
            return status_of(data)
        except NotHttp:
            return "not http"

    whole = read(head)
    for cut in range(len(head)):
        assert read(head[:cut]) in {None, whole}
