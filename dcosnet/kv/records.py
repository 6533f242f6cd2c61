"""
The journal's bytes: how steps become records, and what a file of records says.

Pure. `journal` writes and reads the file; what a record means for the store is
`service`'s business.

A record is a mark (4 bytes), the length of its body and a CRC-32 (4 bytes each,
big endian), its type (1 byte), and the body in MessagePack. The CRC covers
length, type and body. It is zlib's CRC-32 and not CRC-32C: both find every
burst of up to 32 bits, which is what a disk does to us, and only the former
comes with Python, at the speed of C.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from struct import Struct as Layout
from typing import Any

import attrs
import msgspec

from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

# 0xF5 is no byte of any UTF-8 text. The last byte is the format's version.
MARK = b"\xf5kv1"
_HEAD = Layout(">4sIIB")
_SUMMED = Layout(">IB")

# Entries of a snapshot that share a record: damage is found, and bounded, by record.
_CHUNK = 1000


class RecordType(IntEnum):
    """What a record's body holds."""

    OWNER = 1
    CHANGES = 2


class _Owner(msgspec.Struct, frozen=True, array_like=True):
    owner: str
    generation: int


class _Put(msgspec.Struct, frozen=True, array_like=True):
    key: str
    value: bytes
    version: int
    created: tuple[int, int, str]
    written: tuple[int, int, str]


class _Changes(msgspec.Struct, frozen=True, array_like=True):
    version: int
    puts: list[_Put]
    deletes: list[str]
    settled: bool = False


@attrs.frozen
class Contents:
    """
    What a journal says up to the last record that is whole.

    `end` is where that record ends. `damage` is None, or where a bad record
    begins that others follow, or the first record when it is bad: not a write
    that was cut short, but bytes that changed after they were acknowledged.
    """

    owner: str = ""
    generation: int = 0
    version: int = 0
    entries: Mapping[str, Entry] = attrs.field(factory=dict)
    end: int = 0
    damage: int | None = None
    settled: bool = False


def snapshot(
    owner: str, generation: int, version: int, entries: Iterable[Entry], settled: bool = False
) -> Iterator[bytes]:
    """The records of a journal that begins with these entries."""
    yield _record(RecordType.OWNER, _Owner(owner, generation))
    puts = [_put(entry) for entry in entries]
    for start in range(0, max(len(puts), 1), _CHUNK):
        yield _record(RecordType.CHANGES, _Changes(version, puts[start : start + _CHUNK], [], settled))


def changes(version: int, changed: Mapping[str, Entry | None], settled: bool = False) -> bytes:
    """
    One record that leads to `version`; None for a key that is gone.

    A group of steps is always one record: as nothing is written before it is on
    disk, only the last record of a file can be one that was cut short.
    """
    puts = [_put(entry) for entry in changed.values() if entry is not None]
    deletes = [key for key, entry in changed.items() if entry is None]
    return _record(RecordType.CHANGES, _Changes(version, puts, deletes, settled))


def read(data: bytes) -> Contents:
    """What a journal says; never raises, whatever the bytes are."""
    owner, generation, version, settled, end = "", 0, 0, False, 0
    entries: dict[str, Entry] = {}
    while (body := _body(data, end)) is not None:
        if isinstance(body, _Owner):
            owner, generation = body.owner, body.generation
        else:
            version, settled = body.version, body.settled
            for key in body.deletes:
                entries.pop(key, None)
            for put in body.puts:
                entries[put.key] = _entry(owner, put)
        end += _size(data, end)
    # The first record was on disk before the file had its name: it is never cut short.
    damaged = _any_record(data, end + 1) or (end == 0 and data != b"")
    damage = end if damaged else None
    return Contents(owner, generation, version, entries, end, damage, settled)


def _record(kind: RecordType, body: Any) -> bytes:
    encoded = msgspec.msgpack.encode(body)
    return _HEAD.pack(MARK, len(encoded), _crc(kind, encoded), kind) + encoded


def _crc(kind: int, encoded: bytes) -> int:
    return zlib.crc32(encoded, zlib.crc32(_SUMMED.pack(len(encoded), kind)))


def _size(data: bytes, at: int) -> int:
    length: int = _HEAD.unpack_from(data, at)[1]
    return _HEAD.size + length


def _body(data: bytes, at: int) -> _Owner | _Changes | None:
    """The body of the record that begins here; None if none does, or it is not whole."""
    if len(data) < at + _HEAD.size:
        return None
    mark, length, crc, kind = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if mark != MARK or len(data) < start + length:
        return None
    encoded = data[start : start + length]
    if _crc(kind, encoded) != crc:
        return None
    try:
        if kind == RecordType.OWNER:
            return msgspec.msgpack.decode(encoded, type=_Owner)
        return msgspec.msgpack.decode(encoded, type=_Changes)
    except msgspec.DecodeError:
        return None


def _any_record(data: bytes, start: int) -> bool:
    while (start := data.find(MARK, start)) >= 0:
        if _body(data, start) is not None:
            return True
        start += 1
    return False


def _put(entry: Entry) -> _Put:
    return _Put(entry.key, entry.value, entry.version, _triple(entry.created), _triple(entry.written))


def _triple(stamp: Stamp) -> tuple[int, int, str]:
    return stamp.milliseconds, stamp.counter, stamp.node


def _entry(owner: str, put: _Put) -> Entry:
    return Entry(put.key, owner, put.value, Lifetime.DURABLE, put.version, Stamp(*put.created), Stamp(*put.written))
