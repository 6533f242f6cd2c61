"""Twisted's own lines of listening ports."""

from __future__ import annotations

import io

import pytest
import pytest_twisted
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import globalLogPublisher, textFileLogObserver

from dcosnet.io.quiet import quietly


@pytest.fixture
def console():
    """What twistd would write."""
    out = io.StringIO()
    observer = textFileLogObserver(out)
    globalLogPublisher.addObserver(observer)
    yield out
    globalLogPublisher.removeObserver(observer)


@pytest_twisted.ensureDeferred
async def test_a_port_begins_to_listen_without_a_word(console) -> None:
    """Beside it the log works as ever."""
    from twisted.internet import reactor

    factory = ServerFactory.forProtocol(Protocol)
    factory.noisy = False
    for listen, told in ((reactor.listenTCP, True), (lambda *a, **k: quietly(reactor.listenTCP, *a, **k), False)):
        port = listen(0, factory, interface="127.0.0.1")
        await port.stopListening()
        assert ("starting on" in console.getvalue()) is told
        console.truncate(0)
