"""
A node: the real core of gossip and the real store, on a simulated host with a disk.

What the daemon's shells do between them is done here: bytes to the core, the
core's wishes to the network, the store's news to the core on the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from struct import Struct as Layout
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from dcosnet.gossip.cluster import Cluster, Options
from dcosnet.gossip.counts import KINDS
from dcosnet.gossip.effects import Dial, Event, Hang, LinkRefused, MembersChanged, Paused, Write
from dcosnet.gossip.messages import Reason, Told
from dcosnet.kv.service import KeyValue
from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Lifetime
from dcosnet.model.member import MemberState
from dcosnet.sim.clock import Clock
from dcosnet.sim.network import Dialling, Network, Socket
from dcosnet.sim.process import FRAME_COST, Identity, Process
from dcosnet.testing.memory_disk import MemoryDisk, PowerCut

PORT = 62501
EPOCH = 1_700_000_000.0
"""The hosts' time when the clock shows 0."""

SYNC = 0.002
"""Seconds for a commit of the journal, in a thread of its own."""

_DISK = Path("/disk")
_HEAD = Layout(">IB")
_REFUSALS = 64


@attrs.define(eq=False)
class Written:
    """A write that was asked for: when it was acknowledged, or why not."""

    node: str
    changes: Mapping[str, bytes | None]
    lifetime: Lifetime
    begun: float
    known: Known | None = None
    """What the store came to by it."""
    acknowledged: float | None = None
    refused: str | None = None

    @property
    def over(self) -> bool:
        """Whether it is known what became of it."""
        return self.acknowledged is not None or self.refused is not None


@attrs.frozen
class Watch:
    """Who is told what nodes find: verdicts (observer, member, state), keys (observer, owner, known, from whom)."""

    verdict: Callable[[str, str, MemberState], None]
    keys: Callable[[str, str, Known, str | None], None]


class Node:
    """
    A host with its disk, and the process on it while there is one.

    Everything but `boot`, `kill`, `stop` and the plain attributes happens within
    the process, in its turn.
    """

    def __init__(
        self, clock: Clock, network: Network, rng: Random, watch: Watch, name: str, address: str, cluster: str
    ) -> None:
        self.clock = clock
        self.network = network
        self.name = name
        self.host = network.host(address)
        self.cluster = cluster
        self.seeds: tuple[str, ...] = ()
        self.remembered: tuple[str, ...] = ()
        self.verified = True
        self.authority = "ca"
        self.expired = False
        self.ahead = 0.0
        """Seconds that the host's time is ahead of the right one."""
        self.disk = MemoryDisk(_DISK)
        self.process: Process | None = None
        self.core: Cluster
        self.store: KeyValue
        self.meant = False
        """Whether it is to run: it was started, or will be, and nobody ended it."""
        self.refusals: list[LinkRefused] = []
        self.pauses = 0
        self.octets_in = dict.fromkeys(KINDS.values(), 0)
        """By kind of frame, whatever process there was."""
        self.states: dict[str, MemberState] = {}
        """What this process last found of each member."""
        self._rng = rng
        self._watch = watch
        self._sockets: dict[int, Socket] = {}
        self._diallings: dict[int, Dialling] = {}
        self._commit: Callable[[], None] | None = None
        self._source: str | None = None

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    @property
    def endpoint(self) -> str:
        """Where it is dialled."""
        return f"{self.host.address}:{PORT}"

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None

    # From outside of the process

    def boot(self) -> None:
        """Start a process."""
        assert self.process is None, f"{self.name} runs already"
        self.meant = self.host.up = True
        identity = (
            Identity(self.name, f"{self.authority}/{self.cluster}", self.expired)
            if self.verified
            else Identity(self.name)
        )
        self.process = self.network.process(self.host, identity, self._cost)
        self.process.put(self._boot)

    def kill(self) -> None:
        """End the process at once; what it had written to its disk is there."""
        assert self.process is not None
        self.meant = False
        self._forget()
        self.network.kill(self.process)
        self.process = None
        self.disk.kill()

    def stop(self) -> None:
        """Take the power: nobody hears of it, and the disk keeps what it likes of what was not synced."""
        assert self.process is not None
        self.meant = False
        if self._commit is not None:
            # In the midst of it: after none, some or all of its calls to the disk.
            self.disk.last = len(self.disk.calls) + self._rng.randrange(4)
            try:
                self._commit()
            except (PowerCut, OSError):
                self.disk.last = None
        self._forget()
        self.network.stop(self.host, [self.process])
        self.process = None
        self.disk.crash(self._rng)

    def put(self, call: Callable[[], None]) -> None:
        """Have something done in the process, in its turn."""
        assert self.process is not None
        self.process.put(partial(self._do, call))

    def write(self, changes: Mapping[str, bytes | None], lifetime: Lifetime) -> Written:
        """Write to the store."""
        written = Written(self.name, dict(changes), lifetime, self.clock.now)
        self.put(partial(self._write, written))
        return written

    def learn(self, said: Iterable[tuple[Told, Delta | None]]) -> None:
        """Take, in the process, what others say of themselves, as if it had come over links."""
        for told, delta in said:
            if told.record.name != self.name:
                self.core.table.take(told, self.clock.now)
                if delta is not None:
                    self.store.take(delta)

    def skew(self, seconds: float) -> None:
        """Let the host's time jump."""
        self.ahead += seconds
        if self.process is not None:
            self.put(lambda: self.core.set_clock(self.clock.now, self._wall()))

    def kept_for(self, peer: str) -> int:
        """Octets that this process keeps because a peer does not take them."""
        return sum(socket.unsent for socket in self._sockets.values() if socket.peer.process.identity.name == peer)

    # Program

    def dialled(self, number: int, socket: Socket) -> None:
        """As Program says."""
        dialling = self._diallings.pop(number)
        self._open(number, socket, f"{dialling.address}:{dialling.port}", dialled=True)

    def unreached(self, number: int, why: str, text: str) -> None:
        """As Program says."""
        del self._diallings[number]
        self.core.unreached(number, self.clock.now, Reason(why), text)
        self._out()

    def accepted(self, socket: Socket) -> None:
        """As Program says."""
        number = self.core.accept()
        self._open(number, socket, f"{socket.peer.process.host.address}:{40000 + number % 20000}", dialled=False)

    def received(self, socket: Socket, data: bytes) -> None:
        """As Program says."""
        self._source = socket.peer.process.identity.name
        self.core.feed((socket.note, data), self.clock.now)
        self._out()

    def writable(self, socket: Socket, room: bool) -> None:
        """As Program says."""
        self.core.writable(socket.note, room)

    def closed(self, socket: Socket, reason: str) -> None:
        """As Program says."""
        del self._sockets[socket.note]
        self.core.closed(socket.note, self.clock.now, reason)
        self._out()

    def datagram(self, source: str, message: Any) -> None:
        """Nobody sends any."""
        raise AssertionError((source, message))

    def due(self) -> float | None:
        """As Program says."""
        return self.core.due()

    def tick(self, now: float) -> None:
        """As Program says."""
        self.core.tick(now)
        self._out()

    # Within

    def _boot(self) -> None:
        assert self.process is not None
        process = self.process
        self.refusals.clear()
        self.states = {}
        self.store = KeyValue(
            self.name,
            _DISK / "kv",
            self.disk,
            lambda: self._wall() / 1000,
            self._soon,
            self._call_later,
            self._in_thread,
        )
        self.store.privilegedStartService()
        self.store.startService()
        options = Options(
            self.cluster, self.seeds, self.remembered, (self.endpoint,), (self.host.address,), self.verified
        )
        self.core = Cluster(options, self.store, Random(self._rng.getrandbits(64)), self._rng.getrandbits(63))
        self.store.follow(lambda owner: process.soon(partial(self._changed, owner)))
        self.store.follow_copies(lambda owner, known: process.soon(partial(self._stored, owner, known)))
        self.core.start(self.clock.now, self._wall())
        self.host.listeners[PORT] = process
        process.run(self)
        self._out()

    def _open(self, number: int, socket: Socket, endpoint: str, *, dialled: bool) -> None:
        socket.note = number
        self._sockets[number] = socket
        name = socket.peer.process.identity.name if self.verified else None
        self.core.opened(number, name, endpoint, dialled, self.clock.now)
        self._out()

    def _out(self) -> None:
        for effect in self.core.take_output():
            if isinstance(effect, Write):
                self._sockets[effect.link].write(effect.data)
            elif isinstance(effect, Dial):
                name = effect.name if self.verified else None
                assert self.process is not None
                self._diallings[effect.link] = self.network.dial(
                    self.process, effect.link, effect.endpoint, name, effect.timeout
                )
            else:
                self._hang(effect)
        for event in self.core.take_events():
            self._note(event)

    def _hang(self, hang: Hang) -> None:
        socket = self._sockets.pop(hang.link, None)
        if socket is None:
            self._diallings.pop(hang.link).over = True
        elif hang.graceful:
            socket.close()
        else:
            socket.abort()

    def _note(self, event: Event) -> None:
        if isinstance(event, MembersChanged):
            for name in sorted(event.names):
                state = self.core.table.state(name)
                if state is None:
                    self.states.pop(name, None)
                elif self.states.get(name) is not state:
                    self.states[name] = state
                    self._watch.verdict(self.name, name, state)
        elif isinstance(event, LinkRefused):
            self.refusals.append(event)
            del self.refusals[:-_REFUSALS]
        elif isinstance(event, Paused):
            self.pauses += 1

    def _do(self, call: Callable[[], None]) -> None:
        call()
        self._out()

    def _write(self, written: Written) -> None:
        try:
            done = self.store.write(written.changes, written.lifetime)
        except ValueError as error:
            written.refused = str(error)
            return
        self._source = None
        written.known = self.store.known().get(self.name)
        done.addCallbacks(partial(self._acknowledged, written), partial(self._failed, written))

    def _acknowledged(self, written: Written, _: None) -> None:
        written.acknowledged = self.clock.now

    def _failed(self, written: Written, failure: Failure) -> None:
        written.refused = str(failure.value)

    def _changed(self, owner: str) -> None:
        self.core.changed(owner, self.clock.now)
        self._out()
        self._watch.keys(self.name, owner, self.store.known().get(owner, NOTHING), self._source)

    def _stored(self, owner: str, known: Known) -> None:
        self.core.stored(owner, known, self.clock.now)
        self._out()

    def _cost(self, data: bytes) -> float:
        """CPU time of the frames in what was written at once; they are counted on the way."""
        at, frames = 0, 0
        while at < len(data):
            length, kind = _HEAD.unpack_from(data, at)
            self.octets_in[KINDS[kind]] += _HEAD.size + length
            at += _HEAD.size + length
            frames += 1
        return frames * FRAME_COST

    def _forget(self) -> None:
        """What the shell would have written down of the peers, and what ends with the process."""
        if self.process is not None and self.process.running:
            views = [self.core.members[name] for name in sorted(self.core.members)]
            self.remembered = tuple(
                endpoint for view in views for endpoint in view.endpoints[:1] if view.name != self.name
            )[:256]
        self._commit = None
        self._sockets.clear()
        self._diallings.clear()

    # What the store needs

    def _wall(self) -> int:
        return int((EPOCH + self.clock.now + self.ahead) * 1000)

    def _soon(self, call: Callable[[], None]) -> None:
        assert self.process is not None
        self.process.soon(call)

    def _call_later(self, seconds: float, call: Callable[[], None]) -> _Timer:
        assert self.process is not None
        timer = _Timer(call)
        self.clock.at(self.clock.now + seconds, self.process.put, timer.fire)
        return timer

    def _in_thread(self, commit: Callable[[], None]) -> Deferred[None]:
        assert self.process is not None
        done: Deferred[None] = Deferred()

        def finish() -> None:
            self._commit = None
            try:
                commit()
            except OSError:
                done.errback(Failure())
            else:
                done.callback(None)

        self._commit = commit
        self.clock.at(self.clock.now + SYNC * self._rng.uniform(0.5, 2.0), self.process.put, finish)
        return done


class _Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self._call = None

    def fire(self) -> None:
        if self._call is not None:
            self._call()
