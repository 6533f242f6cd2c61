"""
The two ends of a TCP connection: copy both ways.

Each end reads into one buffer that all connections share and sends to its peer
at once; what the peer does not take is kept with the peer, and the reading end
waits until it has gone (backpressure). A direction that moves much changes to
splice(2). The end of one direction travels as a half-close; an error of either
end resets both, so that neither side takes a cut stream for a complete one.

Both are watched edge-triggered (epoll(7)): an event is told once. An end that
stops before its socket is drained therefore has itself told again, or is called
when its peer has room.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from dcosnet.io.epoll import EDGE, ERROR, HANGUP, READ, URGENT, WRITE
from dcosnet.io.pipes import SIZE, Pipe

if TYPE_CHECKING:
    from dcosnet.l4lb.connection import Connection

BUFFER = 64 * 1024

_WATCH = READ | HANGUP | URGENT | EDGE
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 s
# Reads of one end before the others get their turn.
_TURNS = 16
# What a read has to bring to count as one of a bulk transfer.
_LARGE = 16 * 1024
# A transfer that brings less in one turn is about to end: it loses half of what it was known for.
_SLOW = 16 * 1024


class End:
    """One side of a connection: its socket, and what it has not taken yet."""

    __slots__ = (
        "blocked",
        "connection",
        "count",
        "ended",
        "fd",
        "finished",
        "mask",
        "peer",
        "pending",
        "pipe",
        "piped",
        "receive",
        "send",
        "socket",
        "streak",
        "view",
    )

    peer: End

    def __init__(self, connection: Connection, sock: socket.SocketType, view: memoryview) -> None:
        self.connection = connection
        self.socket = sock
        self.fd = sock.fileno()
        self.receive = sock.recv_into
        self.send = sock.send
        self.view = view
        self.mask = _WATCH
        self.count = 0
        """Bytes read from it; the proxy's counts take them when it closes."""
        self.streak = 0
        """Bytes it has said in large pieces lately; decides about splice."""
        self.ended = False
        """Whether an end, an error or urgent data was told: its reads go on until they find nothing."""
        self.finished = False
        """Whether it has said its last byte."""
        self.blocked = False
        """Whether it did not take all that its peer said; its peer does not read meanwhile."""
        self.pending: bytes | memoryview = b""
        """What it has not taken."""
        self.pipe: Pipe | None = None
        self.piped = 0
        """What it has not taken of a direction that is spliced: so many bytes in this pipe."""

    def ready(self, mask: int) -> None:  # noqa: C901, PLR0911, PLR0912 - the hot path: each call would cost
        """Something was told by the driver: read what there is, and pass it on."""
        if mask != READ and not self._heed(mask):
            return
        peer = self.peer
        if peer.blocked:
            return
        view = self.view
        turns = _TURNS
        while turns:
            if self.streak and self.streak >= self.connection.proxy.bulk and self._splice():
                return
            try:
                length = self.receive(view)
            except BlockingIOError:
                return
            except OSError:
                self.connection.abort(self)
                return
            if not length:
                self._finish()
                return
            self.count += length
            try:
                sent = peer.send(view[:length])
            except BlockingIOError:
                sent = 0
            except OSError:
                peer.broke()
                return
            if sent < length:
                peer.pending = bytes(view[sent:length])
                peer.block()
                return
            if length < _LARGE:
                self.streak = 0
            else:
                self.streak += length
            if length < BUFFER and not self.ended:
                return  # that was all
            turns -= 1
        self._again()

    def _heed(self, mask: int) -> bool:
        """Take note of what is told besides bytes to read; whether there is something to read."""
        if mask & ~(READ | WRITE):
            self.ended = True
            if (
                mask & ERROR
                and (self.finished or self.peer.blocked)
                and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ):
                self.connection.abort(self)  # nobody would read to find it
                return False
        if mask & WRITE and self.blocked:
            self._flush()
            if self.connection.over:
                return False
        return not self.finished and mask & ~WRITE != 0

    def _splice(self) -> bool:
        """
        Read by splice, as long as there is something; False when a read has to find out what there is.

        That is so without a pipe, and at an end: splice stops before urgent data,
        and may call that the end. A read passes it. An empty pipe goes back to the
        pool at the end of each turn, so only those whose reader is slow hold one.
        """
        pipes = self.connection.proxy.pipes
        pipe = pipes.take()
        if pipe is None:
            return False
        sink = pipe[1]
        peer = self.peer
        moved = 0
        for _ in range(_TURNS):
            try:
                length = os.splice(self.fd, sink, SIZE, flags=_SPLICE)
            except BlockingIOError:
                pipes.give(pipe)
                self.streak = self.streak + moved if moved >= _SLOW else self.streak // 2
                return not self.ended
            except OSError:
                length = 0
            if not length:
                pipes.give(pipe)
                return False
            self.count += length
            moved += length
            peer.pipe, peer.piped = pipe, length
            if not peer.drain():
                return True
        pipes.give(pipe)
        self._again()
        return True

    def drain(self) -> bool:
        """Take what is in the pipe; False when some is left, and when that was the end."""
        assert self.pipe is not None
        source = self.pipe[0]
        try:
            while self.piped:
                self.piped -= os.splice(source, self.fd, self.piped, flags=_SPLICE)
        except BlockingIOError:
            self.block()
            return False
        except OSError:
            self.broke()
            return False
        self.pipe = None
        return True

    def block(self) -> None:
        """Be told when there is room again."""
        self.blocked = True
        if not self.mask & WRITE:
            self.mask |= WRITE
            self._again()

    def _again(self) -> None:
        """Be told anew of what is so now."""
        self.connection.proxy.epoll.modify(self.fd, self.mask)

    def _flush(self) -> None:
        """Take what is left; then the peer may read again, or its end travels."""
        pipe = self.pipe
        if pipe is not None:
            if not self.drain():
                return
            self.connection.proxy.pipes.give(pipe)
        else:
            try:
                sent = self.send(self.pending)
            except BlockingIOError:
                return
            except OSError:
                self.broke()
                return
            if sent < len(self.pending):
                self.pending = memoryview(self.pending)[sent:]
                return
            self.pending = b""
        self.blocked = False
        if self.peer.finished:
            self.half_close()
        else:
            self.peer.ready(READ)

    def _finish(self) -> None:
        """Nothing more comes from this end; tell the peer once it has all."""
        if not self.count:
            self.connection.silent(self)
        self.finished = True
        if not self.peer.blocked:
            self.peer.half_close()

    def broke(self) -> None:
        """
        It takes no more: pass on what it had said by then, and reset both.

        Without a proxy its peer could still read that: an answer that came before
        the request was complete, for example.
        """
        peer, view = self.peer, self.view
        with suppress(OSError):
            while not peer.blocked:
                length = self.receive(view)
                if not length:
                    break
                self.count += length
                if peer.send(view[:length]) < length:
                    break
        self.connection.abort(self)

    def half_close(self) -> None:
        """This end gets nothing more: say so, or close all when the other direction is done too."""
        if self.finished and not self.peer.blocked:
            self.connection.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.broke()

    @property
    def held(self) -> int:
        """Bytes that it has not taken yet."""
        return self.piped or len(self.pending)

    def close(self) -> None:
        """Close the socket; not to be used again."""
        proxy = self.connection.proxy
        if self.pipe is not None:
            proxy.pipes.drop(self.pipe)
            self.pipe = None
        proxy.epoll.forget(self.fd)
        self.socket.close()

    def reset(self) -> None:
        """Close it so that the other side sees an error rather than an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.close()
