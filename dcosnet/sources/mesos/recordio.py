"""
RecordIO: how the operator API frames its event stream.

A record is its length in decimal, a newline, and that many bytes. Nothing here
knows what a record holds.
"""

from __future__ import annotations

from dcosnet.errors import PeerError

LIMIT = 256 << 20
"""The longest record, in bytes: four times the snapshot of 50 000 tasks."""

LONG = 1 << 20
"""Bytes from which on a record is not copied: 60 MB at once take 50 ms."""

_DIGITS = 12  # dcos-net's bound; no length that we accept has more


class ProtocolError(PeerError):
    """The peer does not speak what it should: drop the connection, the reader is of no use any more."""


class RecordReader:
    """
    Cuts a byte stream into records, however it is chunked.

    `limit` is the longest record accepted, in bytes. It is looked at before
    anything of the record is kept, so no length makes us wait for it in vain.
    A record of `long` bytes or more is not copied.
    """

    def __init__(self, limit: int = LIMIT, long: int = LONG) -> None:
        self._limit = limit
        self._long = long
        self._buffer = bytearray()
        self._length: int | None = None

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """
        The records that `data` completes, in order; a long one may be a bytearray, which is the caller's.

        Raises ProtocolError when the stream is not RecordIO or a record is
        longer than the limit. Records that came before it in the same `data`
        are lost with it; whoever reconnects gets a new snapshot.
        """
        buffer = self._buffer
        buffer += data
        records: list[bytes | bytearray] = []
        start = 0
        while True:
            if self._length is None:
                newline = buffer.find(b"\n", start, start + _DIGITS + 1)
                self._check(bytes(buffer[start : start + _DIGITS + 1 if newline < 0 else newline]), newline >= 0)
                if newline < 0:
                    break
                self._length = self._accepted(int(buffer[start:newline]))
                start = newline + 1
            if len(buffer) - start < self._length:
                break
            end, self._length = start + self._length, None
            if end - start < self._long:
                records.append(bytes(memoryview(buffer)[start:end]))
                start = end
                continue
            # The buffer becomes the record, and what follows it the buffer.
            records.append(buffer)
            self._buffer = buffer[end:]
            del buffer[end:], buffer[:start]
            buffer, start = self._buffer, 0
        del buffer[:start]
        return records

    @property
    def missing(self) -> int:
        """How many bytes the record begun still needs; 0 between records. A stream may end only there."""
        if self._length is not None:
            return self._length - len(self._buffer)
        return 1 if self._buffer else 0

    def _check(self, header: bytes, whole: bool) -> None:
        if header.isdigit() and len(header) <= _DIGITS:
            return
        if header or whole:
            raise ProtocolError(f"not RecordIO: a record's length was expected, not {header!r}")

    def _accepted(self, length: int) -> int:
        if length > self._limit:
            raise ProtocolError(f"a record of {length} bytes is longer than {self._limit}")
        return length
