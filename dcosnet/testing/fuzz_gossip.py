"""
Octets that are nearly frames, for the reader and the core of gossip.

From a corpus of good frames; what is done to them hangs on a seed alone. Who
runs it counts how links ended and measures memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from resource import getpagesize

from dcosnet.gossip.cluster import Cluster, Options
from dcosnet.gossip.effects import Dial, Hang, Write
from dcosnet.gossip.messages import PROTOCOL, CloseCode, Hello, Reason
from dcosnet.gossip.wire import BODY_LIMIT, TYPES, encode
from dcosnet.testing.memory_disk import MemoryDisk
from dcosnet.testing.store_rig import StoreRig

_HEAD = 5
_SPECIAL = bytes((0x00, 0x7F, 0x80, 0x90, 0x9F, 0xA0, 0xC0, 0xC1, 0xC4, 0xC6, 0xCF, 0xD3, 0xD9, 0xDB, 0xDD, 0xDF, 0xFF))
"""First octets of MessagePack that mean something else than those around them."""

_PEERS = 5_000
_DISK = Path("/disk")


def load(corpus: Path) -> list[bytes]:
    """The frames of a corpus, in the order of their names."""
    frames = [path.read_bytes() for path in sorted(corpus.glob("*.bin"))]
    if not frames:
        raise FileNotFoundError(f"{corpus} has no frames")
    return frames


def resident() -> int:
    """Octets of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


class Mutator:
    """Makes bad frames of good ones. Most have a right length, so that their bodies are read."""

    def __init__(self, frames: Sequence[bytes], rng: Random) -> None:
        self._frames = frames
        self._rng = rng
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._set,
            self._insert,
            self._remove,
            self._repeat,
            self._splice,
        )

    def frame(self) -> bytes:
        """The next one; now and then a good one."""
        rng = self._rng
        frame = rng.choice(self._frames)
        kind, body = frame[4], bytearray(frame[_HEAD:])
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            rng.choice(self._ways)(body)
        if rng.random() < 0.01:
            kind = rng.randrange(256)
        length = len(body) if rng.random() < 0.995 else rng.choice((0, len(body) + 1, BODY_LIMIT + 1, (1 << 32) - 1))
        return length.to_bytes(4, "big") + bytes((kind,)) + body

    def _at(self, body: bytearray) -> int:
        return self._rng.randrange(len(body) + 1)

    def _flip(self, body: bytearray) -> None:
        if body:
            body[self._rng.randrange(len(body))] ^= 1 << self._rng.randrange(8)

    def _set(self, body: bytearray) -> None:
        if body:
            body[self._rng.randrange(len(body))] = self._rng.choice(_SPECIAL)

    def _insert(self, body: bytearray) -> None:
        at = self._at(body)
        body[at:at] = self._rng.randbytes(self._rng.randint(1, 8))

    def _remove(self, body: bytearray) -> None:
        at = self._at(body)
        del body[at : at + self._rng.randint(1, 8)]

    def _repeat(self, body: bytearray) -> None:
        at = self._at(body)
        body[at:at] = body[at : at + 32] * self._rng.randint(1, 4)

    def _splice(self, body: bytearray) -> None:
        other = self._rng.choice(self._frames)[_HEAD:]
        at = self._at(body)
        body[at:] = other[min(at, len(other)) :]


class Target:
    """A node with one link at a time, to one of many peers, over which all that comes is fed."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.frames = 0
        self.closed: Counter[str] = Counter()
        """Links that ended, by close code; "superseded" where the node was told to step back, and began anew."""
        self._now = 100.0
        self._peer = 0
        self._last = b""
        self._begin()

    def _begin(self) -> None:
        self._rig = StoreRig(_DISK, MemoryDisk(_DISK), "host-a")
        seeds = ("192.0.2.1:62501",)
        self.core = Cluster(Options("prod", seeds, (), ("192.0.2.9:62501",)), self._rig.store, self._rng, 1)
        self._rig.store.follow(lambda owner: self.core.changed(owner, self._now))
        self._rig.store.follow_copies(lambda owner, known: self.core.stored(owner, known, self._now))
        self.core.start(self._now, 1_700_000_000_000)
        self._link: int | None = None

    def feed(self, data: bytes) -> None:
        """Frames over the link; a new one if the last is closed. Nothing may come out of the core but its effects."""
        if self._link is None:
            self._open()
        assert self._link is not None
        self.frames += 1
        self.core.feed((self._link, data), self._now)
        if self.frames % 50 == 0:
            self._pass()
        self._look()

    def _open(self) -> None:
        self._peer = (self._peer + 1) % _PEERS
        name = f"peer-{self._peer}"
        self._link = self.core.accept()
        self.core.opened(self._link, name, f"192.0.2.7:{self._peer}", False, self._now)
        hello = Hello(PROTOCOL, PROTOCOL, "prod", name, 1, self._peer, 0, bytes(8), fresh=False)
        self.core.feed((self._link, encode(hello)), self._now)
        self._look()
        if self._link is None:
            self._open()

    def _pass(self) -> None:
        """Let some time pass: a tenth of a second, for nobody is to be late."""
        self._now += 0.1
        self.core.tick(self._now)
        self._rig.clock.advance(0.1)
        if self._link is not None and self._rng.random() < 0.01:
            self.core.writable(self._link, self._rng.random() < 0.5)

    def _look(self) -> None:
        for effect in self.core.take_output():
            if isinstance(effect, Dial):
                self.core.unreached(effect.link, self._now, Reason.REFUSED, "nobody is there")
            elif isinstance(effect, Hang) and effect.link == self._link:
                self._link = None
            elif isinstance(effect, Write) and effect.link == self._link:
                self._last = effect.data
        if self._link is None:
            self.closed[_code(self._last)] += 1
        for _ in self.core.take_events():
            pass
        if self.core.superseded is not None:
            self.closed["superseded"] += 1
            self._begin()


def _code(data: bytes) -> str:
    """The code of the CLOSE at the end of what was written; where there is none the other end has closed."""
    at = 0
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4]
        body = data[at + _HEAD : at + _HEAD + length]
        at += _HEAD + length
        if at == len(data) and TYPES[kind].__name__ == "Close":
            return CloseCode(body[1]).name.lower()
    return "theirs"
