"""Real UDP sockets on loopback."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dcosnet.io.udp import BATCH, RECEIVE_BUFFER, CannotBind, RealUdp
from dcosnet.model.net import Endpoint, parse_endpoint

ANY = Endpoint(IPv4Address("127.0.0.1"), 0)


@pytest.fixture
def udp():
    from twisted.internet import reactor

    return RealUdp(reactor)


@pytest.fixture
def caught_log():
    from twisted.logger import globalLogPublisher

    found = []

    def observe(event):
        if "log_failure" in event:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest_twisted.ensureDeferred
async def test_what_the_receiver_returns_is_sent_back(udp) -> None:
    """And what it sends later arrives as well; many datagrams are all served."""
    from twisted.internet import reactor

    server = udp.bind(ANY)
    late = []

    def receive(data, sender):
        if data == b"later":
            late.append(sender)
            return None
        return data.upper()

    server.start(receive)
    heard, enough = [], Deferred()

    def answered(data, _sender):
        heard.append(data)
        if len(heard) == 2 * BATCH:
            enough.callback(None)

    client = udp.connect(server.endpoint)
    client.start(answered)
    for index in range(2 * BATCH - 1):
        assert client.send(b"a%d" % index)
    client.send(b"later")
    try:
        reactor.callLater(0.01, lambda: None)
        while not late:
            await _turn(reactor)
        server.send(b"done", late[0])
        await enough.addTimeout(5, reactor)
        assert sorted(heard) == sorted([b"done", *(b"A%d" % index for index in range(2 * BATCH - 1))])
    finally:
        client.close()
        server.close()
        await _turn(reactor)


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_raises_does_not_end_the_socket(udp, caught_log) -> None:
    """One datagram that meets a mistake must not take the server away; it is logged."""
    from twisted.internet import reactor

    server, heard = udp.bind(ANY), Deferred()
    server.start(lambda data, _sender: data[: 1000 // (len(data) - 1)])
    client = udp.connect(server.endpoint)
    client.start(lambda data, _sender: heard.callback(data))
    try:
        client.send(b"x")
        client.send(b"well")
        assert await heard.addTimeout(5, reactor) == b"well"
        assert [event["log_failure"].type for event in caught_log] == [ZeroDivisionError]
    finally:
        client.close()
        server.close()
        await _turn(reactor)


def _turn(reactor) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(0.005, done.callback, None)
    return done


@pytest_twisted.ensureDeferred
async def test_a_closed_port_is_reported_to_who_asked_it(udp) -> None:
    """ICMP comes back on the connected socket."""
    from twisted.internet import reactor

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = parse_endpoint(f"127.0.0.1:{unused.getsockname()[1]}")
    refused: Deferred[None] = Deferred()
    client = udp.connect(endpoint)
    client.start(lambda data, sender: None, lambda: refused.called or refused.callback(None))
    client.send(b"x")
    try:
        await refused.addTimeout(5, reactor)
    finally:
        client.close()


def test_a_burst_finds_room(udp) -> None:
    """The buffer is what was asked for, or what the system allows."""
    server = udp.bind(ANY)
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    size = server._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert size >= min(RECEIVE_BUFFER, allowed)
    server.close()


def test_closing_twice_is_closing_once(udp) -> None:
    """And nothing is sent any more."""
    server = udp.bind(ANY)
    server.close()
    server.close()
    assert not server.send(b"x", ("127.0.0.1", 9))


def test_an_address_in_use_is_refused_with_a_remedy(udp) -> None:
    """Address, why, what to do."""
    server = udp.bind(ANY)
    with pytest.raises(CannotBind, match=r"cannot listen on UDP 127.0.0.1:\d+: Address already in use; stop what"):
        udp.bind(server.endpoint)
    server.close()
