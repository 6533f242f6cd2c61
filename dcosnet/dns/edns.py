"""
The OPT pseudo-record (RFC 6891) and extended errors (RFC 8914).

Our own codec, because twisted.names keeps its private. Options of the asker are
checked for shape and otherwise ignored; none is echoed.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

OPT = 41
SIZE_MIN = 512
_FIXED = struct.Struct("!BHHBBHH")
_OPTION = struct.Struct("!HH")
_EXTENDED_ERROR = 15
_DO = 0x8000


class ErrorCode(IntEnum):
    """Why an answer is what it is, RFC 8914 section 4."""

    OTHER = 0
    NOT_READY = 14
    PROHIBITED = 18
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22


class ExtendedError(msgspec.Struct, frozen=True, gc=False):
    """A reason for the asker, sent only to those who speak EDNS."""

    code: ErrorCode
    text: str = ""


class Edns(msgspec.Struct, frozen=True, gc=False):
    """What the asker's OPT says; `size` as it was sent, `options` whether it has any."""

    size: int
    version: int
    do: bool
    options: bool


def read_opt(klass: int, ttl: int, data: bytes) -> Edns:
    """The OPT out of its record's fields. Raises ValueError when its options are cut."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("an option is cut")
        at += 4 + _OPTION.unpack_from(data, at)[1]
    if at != len(data):
        raise ValueError("the data of an option are cut")
    return Edns(size=klass, version=ttl >> 16 & 0xFF, do=bool(ttl & _DO), options=bool(data))


def opt_record(size: int, *, do: bool = False, rcode: int = 0, error: ExtendedError | None = None) -> bytes:
    """Our OPT: the size that we take, the upper bits of the rcode, and the reason."""
    options = b""
    if error is not None:
        reason = struct.pack("!H", error.code) + error.text.encode()
        options = _OPTION.pack(_EXTENDED_ERROR, len(reason)) + reason
    return _FIXED.pack(0, OPT, size, rcode >> 4, 0, _DO if do else 0, len(options)) + options
