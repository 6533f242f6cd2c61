"""Ends with real sockets and real certificates, and a core that only records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from dcosnet.cli.authority import CA, CERT, KEY, Authority
from dcosnet.gossip.effects import Dial, Hang, Write
from dcosnet.gossip.identity import Identity
from dcosnet.gossip.peers import Peers
from dcosnet.gossip.tls import Tls, TlsFiles
from dcosnet.io.drive import Drive

PATIENCE = 10.0
"""Seconds after which what does not come is a failure."""

GREETING = b"hello from "


class FakeCore:
    """Greets on each link as the real one does; everything it is told is in `calls`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[tuple] = []
        self.says: list = []
        self._numbers = 1000
        self._waiting: list[tuple] = []

    def _call(self, *call) -> None:
        from twisted.internet import reactor

        self.calls.append(call)
        for one in list(self._waiting):
            holds, found = one
            if holds(call):
                self._waiting.remove(one)
                # On the next turn: who waits may want something of the core, which is in the midst of this.
                reactor.callLater(0, found.callback, call)

    def until(self, *start) -> Deferred:
        """The first call that begins so, whether it was or comes."""
        from twisted.internet import reactor

        found: Deferred = Deferred()
        holds = lambda call: call[: len(start)] == start
        for call in self.calls:
            if holds(call):
                found.callback(call)
                return found
        self._waiting.append((holds, found))
        return found.addTimeout(PATIENCE, reactor)

    def heard(self, link) -> bytes:
        return b"".join(call[2] for call in self.calls if call[:2] == ("feed", link))

    def accept(self):
        self._numbers += 1
        return self._numbers

    def opened(self, link, name, endpoint, dialled, now):
        self.says.append(Write(link, GREETING + self.name.encode()))
        self._call("opened", name, link, dialled)

    def feed(self, data, now):
        self._call("feed", *data)

    def writable(self, link, room):
        self._call("writable", link, room)

    def closed(self, link, now, reason):
        self._call("closed", link, reason)

    def unreached(self, link, now, why, text):
        self._call("unreached", link, why, text)

    def due(self):
        return None

    def tick(self, now):
        """Never due."""

    def take_output(self):
        said, self.says = self.says, []
        return said

    def take_events(self):
        return ()


class Mixed:
    """Real sockets; time passes only when the test says so."""

    def __init__(self, reactor, clock: Clock) -> None:
        self._reactor = reactor
        self.callLater, self.seconds, self.clock = clock.callLater, clock.seconds, clock

    def __getattr__(self, name):
        return getattr(self._reactor, name)


class End:
    """A node as far as connections go."""

    def __init__(self, reactor, name: str, tls: Tls | None, **more) -> None:
        self.core = FakeCore(name)
        self.tls = tls
        self.refusals: list[tuple] = []
        self.clock = reactor.clock
        self.drive = Drive(self.core, reactor, send=self._send, tell=print, name=name)
        self.peers = Peers(
            reactor,
            self.core,
            self.drive.do,
            tls,
            refused=lambda who, refusal: self.refusals.append((who, refusal.reason, refusal.text)),
            **more,
        )
        self.drive.start()
        self.port = reactor.listenTCP(0, self.peers.door(), interface="127.0.0.1")
        self.endpoint = f"127.0.0.1:{self.port.getHost().port}"
        self._dials = 0

    def _send(self, effect) -> None:
        self.peers.send(effect)

    def do(self, *effects) -> None:
        """As if the core wanted it."""
        self.core.says += effects
        self.drive.do(lambda now: None)

    def dial(self, other, name: str | None = None) -> int:
        self._dials += 1
        self.do(Dial(self._dials, getattr(other, "endpoint", other), name, 60.0))
        return self._dials

    def hang(self, link: int, *, graceful: bool = True) -> None:
        self.do(Hang(link, graceful))

    def write(self, link: int, data: bytes) -> None:
        self.do(Write(link, data))

    async def stop(self) -> None:
        from twisted.internet import reactor

        await self.port.stopListening()
        left = self.peers.leave()
        self.peers.cut()
        await left.addTimeout(PATIENCE, reactor)
        self.drive.stop()


class Hosts:
    """An authority, files of certificates, and the ends that use them; `now` is what their clocks say."""

    def __init__(self, folder: Path) -> None:
        from twisted.internet import reactor

        self.folder = folder
        self.now = datetime.now(UTC)
        self.reactor = Mixed(reactor, Clock())
        self.authority = Authority.make(folder / "ca", "prod", 3650, self.now)
        self.ends: list[End] = []

    def other_authority(self, name="other", cluster="prod") -> Authority:
        return Authority.make(self.folder / name, cluster, 3650, self.now)

    def files(self, name: str, *, authority: Authority | None = None, days=365, age=0, folder=None, renew=False):
        """What `dcosnet ca issue` makes, `age` days ago."""
        place = self.folder / (folder or name)
        made = self.now - timedelta(days=age)
        (authority or self.authority).issue(name, place, days, made, renew=renew)
        return TlsFiles(place / CA, place / CERT, place / KEY)

    def trust(self, files: TlsFiles, *authorities: Path) -> None:
        files.ca.write_bytes(b"".join((self.folder / one / CA).read_bytes() for one in authorities))

    def tls(self, files: TlsFiles, name: str, cluster="prod") -> Tls:
        return Tls(files, Identity(name, cluster), self.wall)

    def wall(self) -> float:
        return self.now.timestamp()

    def end(self, name: str, tls: Tls | bool | None = True, **more) -> End:
        if tls is True:
            tls = self.tls(self.files(name), name)
        self.ends.append(End(self.reactor, name, tls or None, **more))
        return self.ends[-1]

    async def eventually(self, holds) -> None:
        """For what nobody tells."""
        from twisted.internet import reactor

        deadline = reactor.seconds() + PATIENCE
        while not holds():
            assert reactor.seconds() < deadline, "it never came"
            await deferLater(reactor, 0.001)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Stopped at the end of the test."""
    made = Hosts(tmp_path)
    yield made
    for end in made.ends:
        pytest_twisted.blockon(Deferred.fromCoroutine(end.stop()))
