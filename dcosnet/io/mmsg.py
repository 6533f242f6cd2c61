"""
Datagrams many at a time: one call to the system for up to SLOTS of them.

Two kinds of Batch do the same: `SystemBatch` by recvmmsg(2) and sendmmsg(2), and
`PlainBatch` in a loop of the socket's own methods, where the system or its C
library has no such calls. What was received lies in the batch's own buffers, and
is sent from there. A call through ctypes costs half a microsecond more than a
method of a socket, and saves the call that finds nothing left; so from one
datagram on it is no worse (measured in docs/decisions/0014).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any, Protocol

SLOTS = 64
"""The most datagrams of one call."""
SIZE = 65535
"""Octets; no datagram is longer."""

# Buffers a multiple of 64 KiB apart would all want the same lines of the cache.
_STRIDE = SIZE + 1 + 192
_NAME: Mapping[int, int] = {socket.AF_INET: 16, socket.AF_INET6: 28}  # octets of a struct sockaddr

Sender = bytes | tuple[Any, ...]
"""Where a datagram came from; equal for equal addresses, for the same kind of batch and family."""


class Batch(Protocol):
    """
    Buffers for datagrams of one family of addresses.

    A slot is valid until the next `receive`.
    """

    def receive(self, sock: socket.socket) -> int:
        """
        Fill the slots from 0 on with what waits; how many there were, 0 when nothing did.

        Raises OSError for what the socket has to tell, such as an ICMP error.
        """

    def senders(self, count: int) -> Sequence[Sender]:
        """Whence the first slots came."""

    def data(self, slot: int) -> memoryview:
        """One datagram, in place."""

    def size(self, first: int, end: int) -> int:
        """Octets in these slots together."""

    def send(self, sock: socket.socket, first: int, end: int, to: Sender | None = None) -> int:
        """
        Send slots in their order, to a sender or to the peer of a connected socket.

        How many the system took: it stops at the first that it does not take. The
        reason of that is told, by OSError, only if there was none before it.
        """


def batch(family: int) -> Batch:
    """The kind that works here. The family is AF_INET or AF_INET6."""
    return SystemBatch(family) if _available() else PlainBatch(family)


class PlainBatch:
    """A loop."""

    def __init__(self, family: int) -> None:  # noqa: ARG002 - as the other kind
        buffer = memoryview(bytearray(SLOTS * _STRIDE))
        self._slots = [buffer[at : at + SIZE] for at in range(0, SLOTS * _STRIDE, _STRIDE)]
        self._lengths = [0] * SLOTS
        self._senders: list[Any] = [None] * SLOTS

    def receive(self, sock: socket.socket) -> int:
        """See Batch."""
        count = 0
        try:
            while count < SLOTS:
                self._lengths[count], self._senders[count] = sock.recvfrom_into(self._slots[count])
                count += 1
        except BlockingIOError:
            pass
        except OSError:
            # One that comes between two datagrams is lost: the system tells it once,
            # and what it is about has just answered.
            if not count:
                raise
        return count

    def senders(self, count: int) -> Sequence[Sender]:
        """See Batch."""
        return self._senders[:count]

    def data(self, slot: int) -> memoryview:
        """See Batch."""
        return self._slots[slot][: self._lengths[slot]]

    def size(self, first: int, end: int) -> int:
        """See Batch."""
        return sum(self._lengths[first:end])

    def send(self, sock: socket.socket, first: int, end: int, to: Sender | None = None) -> int:
        """See Batch."""
        for slot in range(first, end):
            try:
                if to is None:
                    sock.send(self.data(slot))
                else:
                    sock.sendto(self.data(slot), to)
            except OSError:
                if slot == first:
                    raise
                return slot - first
        return end - first


# <bits/types/struct_iovec.h>, <bits/socket.h>
class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Entry(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))
    """struct mmsghdr: how to receive or send a datagram, and how long it was."""


class _Headers:
    """One array for the system: a header for each slot, all pointing at the slots of one buffer."""

    def __init__(self, buffer: int) -> None:
        self.vectors = (_Vector * SLOTS)()
        self.entries = (_Entry * SLOTS)()
        vectors = ctypes.addressof(self.vectors)
        for slot, (vector, entry) in enumerate(zip(self.vectors, self.entries, strict=True)):
            vector.base = buffer + slot * _STRIDE
            vector.length = SIZE
            entry.header.vectors = vectors + slot * ctypes.sizeof(_Vector)
            entry.header.vector_count = 1
        self.at = [ctypes.byref(self.entries, slot * ctypes.sizeof(_Entry)) for slot in range(SLOTS)]
        """Made once, because passing them is the dearest part of a call."""

    def names(self, address: int, step: int, length: int) -> None:
        """Let the header of each slot point at its name, or all at the same if the step is 0."""
        for slot, entry in enumerate(self.entries):
            entry.header.name = address + slot * step
            entry.header.name_length = length


def _words(array: Any, field: Any) -> memoryview:
    """One field of all items of an array, as a view of 32-bit numbers; of a longer one the lower half."""
    at = field.offset
    if sys.byteorder == "big":
        at += field.size - 4
    return memoryview(array).cast("B").cast("I")[at // 4 :: ctypes.sizeof(array._type_) // 4]


class SystemBatch:
    """recvmmsg(2) and sendmmsg(2)."""

    def __init__(self, family: int) -> None:
        self._buffer = memoryview(bytearray(SLOTS * _STRIDE))
        buffer = _address(self._buffer)
        self._incoming, self._answers, self._outgoing = (_Headers(buffer) for _ in range(3))
        size = _NAME[family]
        self._names = memoryview(bytearray(SLOTS * size))
        self._incoming.names(_address(self._names), size, size)
        self._to = memoryview(bytearray(size))
        self._answers.names(_address(self._to), 0, size)
        self._unpack = [Struct(f"{size}s" * count).unpack_from for count in range(SLOTS + 1)]
        self._lengths = _words(self._incoming.entries, _Entry.length)
        self._answer_lengths = _words(self._answers.vectors, _Vector.length)
        self._outgoing_lengths = _words(self._outgoing.vectors, _Vector.length)
        # Without argtypes, as converting to them costs as much as the call.
        library = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = library.recvmmsg, library.sendmmsg

    def receive(self, sock: socket.socket) -> int:
        """See Batch."""
        count: int = self._recvmmsg(sock.fileno(), self._incoming.at[0], SLOTS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return 0
            raise OSError(number, os.strerror(number))
        return count

    def senders(self, count: int) -> Sequence[Sender]:
        """See Batch."""
        found: tuple[bytes, ...] = self._unpack[count](self._names)
        return found

    def data(self, slot: int) -> memoryview:
        """See Batch."""
        at = slot * _STRIDE
        return self._buffer[at : at + self._lengths[slot]]

    def size(self, first: int, end: int) -> int:
        """See Batch."""
        return self._lengths[first] if end - first == 1 else sum(self._lengths[first:end])

    def send(self, sock: socket.socket, first: int, end: int, to: Sender | None = None) -> int:
        """See Batch."""
        if to is None:
            self._outgoing_lengths[first:end] = self._lengths[first:end]
            at = self._outgoing.at[first]
        else:
            self._answer_lengths[first:end] = self._lengths[first:end]
            self._to[:] = to  # type: ignore[assignment]
            at = self._answers.at[first]
        count: int = self._sendmmsg(sock.fileno(), at, end - first, socket.MSG_DONTWAIT)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return count


def _address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


@functools.cache
def _available() -> bool:
    """Whether the C library has the calls and the system does them: a sandbox may not."""
    try:
        made = SystemBatch(socket.AF_INET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            return made.receive(sock) == 0
    except (AttributeError, OSError):
        return False
