"""
Names and records in wire form (RFC 1035 section 4).

Only reading; what writes messages is `reply`. Every function raises ValueError
for bytes that are not what they should be, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

NAME_MAX = 255  # octets, RFC 1035 2.3.4
_FIXED = struct.Struct("!HHIH")
_ESCAPES = {ord("."): "\\046", ord("\\"): "\\092"}

# Where names stand in the data of records that may hold compressed ones
# (RFC 3597 section 4): octets before the first name, number of names.
_NAMES_IN_DATA = {2: (0, 1), 5: (0, 1), 6: (0, 2), 12: (0, 1), 15: (2, 1), 33: (6, 1), 39: (0, 1)}


@attrs.frozen
class RawRecord:
    """A record as bytes without compression, so that it may stand in any message."""

    owner: bytes
    type: int
    klass: int
    ttl: int
    data: bytes


@attrs.frozen
class Place:
    """Where a record lies in a message: its owner at `start`, its data from `data` to `end`."""

    start: int
    type: int
    klass: int
    ttl: int
    data: int
    end: int


def read_name(message: bytes, at: int) -> tuple[bytes, int]:
    """The name at an offset without compression, and the offset behind it."""
    parts: list[bytes] = []
    length = 1
    end = -1
    bound = at
    while True:
        if at >= len(message):
            raise ValueError("a name runs over the end")
        size = message[at]
        if size == 0:
            break
        if size >= 0xC0:
            if at + 1 >= len(message):
                raise ValueError("a pointer runs over the end")
            if end < 0:
                end = at + 2
            at = (size & 0x3F) << 8 | message[at + 1]
            # Only ever backwards: so it ends, whatever the bytes are.
            if at >= bound:
                raise ValueError("a pointer does not point back")
            bound = at
            continue
        if size > 63:
            raise ValueError("a label of an unknown kind")
        length += size + 1
        if length > NAME_MAX or at + 1 + size > len(message):
            raise ValueError("a name is too long")
        parts.append(message[at : at + 1 + size])
        at += 1 + size
    return b"".join(parts) + b"\0", at + 1 if end < 0 else end


def text_of(name: bytes) -> str:
    """
    The look-up form of an uncompressed name: lower case, dots between labels, none at the end.

    A dot or backslash inside a label is escaped, so it equals no name of a zone.
    """
    labels = []
    at = 0
    while size := name[at]:
        label = name[at + 1 : at + 1 + size].lower().decode("latin-1")
        labels.append(label.translate(_ESCAPES))
        at += 1 + size
    return ".".join(labels)


def folded(question: bytes) -> bytes:
    """A question with its name in lower case; type and class are numbers and stay: type 65 looks like "A"."""
    return question[:-4].lower() + question[-4:]


def wire_of(name: str) -> bytes:
    """The wire form of a plain dotted name. Raises ValueError when DNS cannot hold it."""
    parts = []
    for label in name.split(".") if name else ():
        data = label.encode("latin-1")
        if not 0 < len(data) < 64:
            raise ValueError(f"{name!r} has a label that is empty or over 63 octets")
        parts.append(bytes((len(data),)) + data)
    wire = b"".join(parts) + b"\0"
    if len(wire) > NAME_MAX:
        raise ValueError(f"{name!r} is too long for DNS")
    return wire


def places(message: bytes, at: int, count: int) -> Iterator[Place]:
    """Walk `count` records from an offset."""
    for _ in range(count):
        start = at
        _, at = read_name(message, at)
        if at + 10 > len(message):
            raise ValueError("a record runs over the end")
        type_, klass, ttl, length = _FIXED.unpack_from(message, at)
        at += 10
        if at + length > len(message):
            raise ValueError("the data of a record run over the end")
        yield Place(start, type_, klass, ttl, at, at + length)
        at += length


def expand(message: bytes, place: Place) -> RawRecord:
    """A record with its owner and the names in its data uncompressed."""
    owner, _ = read_name(message, place.start)
    data = message[place.data : place.end]
    layout = _NAMES_IN_DATA.get(place.type)
    if layout is not None:
        before, names = layout
        at = place.data + before
        parts = [message[place.data : at]]
        for _ in range(names):
            name, at = read_name(message, at)
            parts.append(name)
        if at > place.end:
            raise ValueError("a name runs over the data of its record")
        parts.append(message[at : place.end])
        data = b"".join(parts)
    return RawRecord(owner, place.type, place.klass, place.ttl, data)
