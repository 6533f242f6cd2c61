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
from socket import SocketType
from struct import Struct
from typing import Any, Protocol

SLOTS = 64
"""The most datagrams of one call."""
SIZE = 65535
"""Octets; no datagram is longer."""

# Buffers a multiple of 64 KiB apart would all want the same lines of the cache.
_STRIDE = SIZE + 1 + 192
_DONTWAIT = int(socket.MSG_DONTWAIT)  # an enumeration's member takes longer to pass on
_NAME: Mapping[int, int] = {socket.AF_INET: 16, socket.AF_INET6: 28}  # octets of a struct sockaddr

Sender = bytes | tuple[Any, ...]
"""Where a datagram came from; equal for equal addresses, for the same kind of batch and family."""


class Batch(Protocol):
    """
    Buffers for datagrams of one family of addresses.

    A slot is valid until the next `receive`.
    """

    def receive(self, sock: SocketType) -> int:
        """
        Fill the slots from 0 on with what waits; how many there were, 0 when nothing did.

        Raises OSError for what the socket has to tell, such as an ICMP error.
        """

    def senders(self, count: int) -> Sequence[Sender]:
        """Whence the first slots came."""

    def data(self, slot: int) -> memoryview:
        """One datagram, in place."""

    def size(self, slots: Sequence[int]) -> int:
        """Octets in these slots together."""

    def send(self, sock: SocketType, slots: Sequence[int], to: Sender | None = None) -> int:
        """
        Send slots in the order given, to the peer of a connected socket; or a range of them to a sender.

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

    def receive(self, sock: SocketType) -> int:
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

    def size(self, slots: Sequence[int]) -> int:
        """See Batch."""
        return sum([self._lengths[slot] for slot in slots])

    def send(self, sock: SocketType, slots: Sequence[int], to: Sender | None = None) -> int:
        """See Batch."""
        for sent, slot in enumerate(slots):
            try:
                if to is None:
                    sock.send(self.data(slot))
                else:
                    sock.sendto(self.data(slot), to)
            except OSError:
                if not sent:
                    raise
                return sent
        return len(slots)


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


def _pointers(array: Any, field: Any) -> memoryview:
    """One field that is a pointer, of all items of an array; a view."""
    size = ctypes.sizeof(ctypes.c_void_p)
    return memoryview(array).cast("B").cast("P")[field.offset // size :: ctypes.sizeof(array._type_) // size]


class SystemBatch:
    """recvmmsg(2) and sendmmsg(2)."""

    def __init__(self, family: int) -> None:
        self._buffer = memoryview(bytearray(SLOTS * _STRIDE))
        buffer = _address(self._buffer)
        self._incoming, self._answers, self._outgoing, self._gathered = (_Headers(buffer) for _ in range(4))
        size = _NAME[family]
        self._names = memoryview(bytearray(SLOTS * size))
        self._incoming.names(_address(self._names), size, size)
        self._to = memoryview(bytearray(size))
        self._answers.names(_address(self._to), 0, size)
        self._unpack = [Struct(f"{size}s" * count).unpack_from for count in range(SLOTS + 1)]
        self._lengths = _words(self._incoming.entries, _Entry.length)
        self._answer_lengths = _words(self._answers.vectors, _Vector.length)
        self._outgoing_lengths = _words(self._outgoing.vectors, _Vector.length)
        vectors = ctypes.addressof(self._outgoing.vectors)
        self._vectors = [vectors + slot * ctypes.sizeof(_Vector) for slot in range(SLOTS)]
        self._gathered_vectors = _pointers(self._gathered.entries, _Header.vectors)
        # Without argtypes, as converting to them costs as much as the call.
        library = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = library.recvmmsg, library.sendmmsg

    def receive(self, sock: SocketType) -> int:
        """See Batch."""
        count: int = self._recvmmsg(sock.fileno(), self._incoming.at[0], SLOTS, _DONTWAIT, None)
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

    def size(self, slots: Sequence[int]) -> int:
        """See Batch."""
        lengths = self._lengths
        return lengths[slots[0]] if len(slots) == 1 else sum([lengths[slot] for slot in slots])

    def send(self, sock: SocketType, slots: Sequence[int], to: Sender | None = None) -> int:
        """See Batch."""
        first, count = slots[0], len(slots)
        if to is None:
            entries, lengths = self._outgoing.at, self._outgoing_lengths
        else:
            entries, lengths = self._answers.at, self._answer_lengths
            self._to[:] = to  # type: ignore[assignment]
        at = entries[first]
        if count == 1:  # a slice of a memoryview takes as long as all else here
            lengths[first] = self._lengths[first]
        elif isinstance(slots, range):
            lengths[first : first + count] = self._lengths[first : first + count]
        else:
            at = self._gather(slots)
        sent: int = self._sendmmsg(sock.fileno(), at, count, _DONTWAIT)
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return sent

    def _gather(self, slots: Sequence[int]) -> Any:
        """Let slots that lie apart follow each other, for the peer of a connected socket."""
        pointers, vectors, lengths = self._gathered_vectors, self._vectors, self._outgoing_lengths
        for at, slot in enumerate(slots):
            pointers[at] = vectors[slot]
            lengths[slot] = self._lengths[slot]
        return self._gathered.at[0]


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
