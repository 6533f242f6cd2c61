"""
Frames: how messages become bytes, and bytes messages.

A frame is the length of its body (4 octets, big endian), its type (1 octet),
and the body in MessagePack. A length is judged before anything is kept for it.
What a message means is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout

import msgspec

from dcosnet.errors import PeerError
from dcosnet.gossip.messages import (
    Change,
    Close,
    CloseCode,
    Digest,
    Doubted,
    Frontier,
    Have,
    Hello,
    Members,
    Message,
    Nothing,
    Piece,
    Ping,
    Pong,
    Pull,
    Put,
    Stored,
)
from dcosnet.model.delta import Delta
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

HELLO_LIMIT = 4096
"""Octets of the first body: who has not said who he is gets no more."""

BODY_LIMIT = 65_536
"""Octets of any other body."""

PIECE = 16_384
"""Octets of a piece; so long, at the most, a ping waits for bulk."""

CHANGE_LIMIT = 96 << 20
"""Octets of a Change that comes in pieces: a whole namespace in one step, and room for its stamps."""

TYPES: dict[int, type[Message]] = {
    1: Hello,
    2: Close,
    3: Ping,
    4: Pong,
    5: Members,
    6: Digest,
    7: Frontier,
    8: Have,
    9: Pull,
    10: Change,
    11: Piece,
    12: Stored,
    13: Nothing,
    14: Doubted,
}

_HEAD = Layout(">IB")
_NUMBERS = {kind: number for number, kind in TYPES.items()}
_encoder = msgspec.msgpack.Encoder()
_decoders = {number: msgspec.msgpack.Decoder(kind) for number, kind in TYPES.items()}
_changes: msgspec.msgpack.Decoder[Change] = msgspec.msgpack.Decoder(Change)


class FrameError(PeerError):
    """Bytes that are no frame of ours, with the code that the link is closed with."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


def encode(message: Message) -> bytes:
    """The frame of a message."""
    body = _encoder.encode(message)
    return _HEAD.pack(len(body), _NUMBERS[type(message)]) + body


def encode_change(change: Change) -> tuple[bytes, ...]:
    """The frames of a Change: one, or pieces of it."""
    body = _encoder.encode(change)
    if len(body) <= PIECE:
        return (_HEAD.pack(len(body), _NUMBERS[Change]) + body,)
    starts = range(0, len(body), PIECE)
    return tuple(encode(Piece(start + PIECE >= len(body), body[start : start + PIECE])) for start in starts)


class Reader:
    """
    The messages of a stream, however it is cut.

    The first must be a Hello or a Close. What a peer makes this hold is bounded
    by one frame and, only after `expect_pieces`, one Change.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._limit = HELLO_LIMIT
        self._pieces: bytearray | None = None

    def feed(self, data: bytes) -> Iterator[Message]:
        """
        What is whole now, in order. Raises FrameError; nothing more can be read then.

        A generator: what is not taken is not decoded.
        """
        self._data += data
        at = 0
        try:
            while len(self._data) - at >= _HEAD.size:
                length, number = _HEAD.unpack_from(self._data, at)
                if length > self._limit:
                    raise FrameError(CloseCode.OVERSIZE, f"a frame of {length} octets; {self._limit} are allowed")
                end = at + _HEAD.size + length
                if len(self._data) < end:
                    return
                body = bytes(self._data[at + _HEAD.size : end])
                at = end
                message = self._message(number, body)
                if message is not None:
                    yield message
        finally:
            del self._data[:at]

    def expect_pieces(self) -> None:
        """
        Something was asked for that may come in pieces.

        From then on they are taken: that an answer has come cannot be known, since
        a small change that was sent before it was asked for looks the same.
        """
        if self._pieces is None:
            self._pieces = bytearray()

    def _message(self, number: int, body: bytes) -> Message | None:
        decoder = _decoders.get(number)
        if decoder is None:
            raise FrameError(CloseCode.MALFORMED, f"a frame of the unknown type {number}")
        if self._limit == HELLO_LIMIT and number > _NUMBERS[Close]:
            raise FrameError(CloseCode.MALFORMED, f"a frame of type {number} before HELLO")
        try:
            message = decoder.decode(body)
            if isinstance(message, Piece):
                return self._piece(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            name = TYPES[number].__name__.upper()
            raise FrameError(CloseCode.MALFORMED, f"{name} cannot be read: {error}") from error
        if isinstance(message, Hello):
            self._limit = BODY_LIMIT
        return message

    def _piece(self, piece: Piece) -> Change | None:
        if self._pieces is None:
            raise FrameError(CloseCode.MALFORMED, "a piece of what nobody asked for")
        if len(self._pieces) + len(piece.data) > CHANGE_LIMIT:
            raise FrameError(CloseCode.OVERSIZE, f"a change of more than {CHANGE_LIMIT} octets")
        self._pieces += piece.data
        if not piece.last:
            return None
        body, self._pieces = bytes(self._pieces), bytearray()
        return _changes.decode(body)


def from_delta(delta: Delta, *, more: bool) -> Change:
    """A delta as it is sent."""
    puts = tuple(
        Put(
            key,
            entry.value,
            entry.lifetime is Lifetime.DURABLE,
            entry.version,
            (entry.created.milliseconds, entry.created.counter, entry.created.node),
            (entry.written.milliseconds, entry.written.counter, entry.written.node),
        )
        for key, entry in delta.changes.items()
        if entry is not None
    )
    deletes = tuple(key for key, entry in delta.changes.items() if entry is None)
    return Change(
        delta.owner,
        delta.generation,
        delta.since,
        delta.version,
        delta.settled,
        delta.bare,
        more,
        puts,
        deletes,
    )


def to_delta(change: Change) -> Delta:
    """What was sent, as a delta; later puts of a key win. The store judges its limits."""
    owner = change.owner
    changes: dict[str, Entry | None] = dict.fromkeys(change.deletes)
    for put in change.puts:
        changes[put.key] = Entry(
            put.key,
            owner,
            put.value,
            Lifetime.DURABLE if put.durable else Lifetime.LEASE,
            put.version,
            Stamp(*put.created),
            Stamp(*put.written),
        )
    return Delta(owner, change.generation, change.since, change.version, changes, change.settled, change.bare)
