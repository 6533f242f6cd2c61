"""What happened, as one number: two runs with the same number were the same run."""

from __future__ import annotations

import struct
from zlib import crc32

_HEAD = struct.Struct("<dI")


class Trace:
    """
    A running checksum over events: their time, place, kind and bytes.

    Not cryptographic: it is to notice chance that came from elsewhere than the
    seed, such as the order of a set of names.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def note(self, now: float, place: int, kind: bytes, data: bytes = b"") -> None:
        """Take in an event."""
        self.value = crc32(data, crc32(kind, crc32(_HEAD.pack(now, place), self.value)))
