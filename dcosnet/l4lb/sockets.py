"""
The sockets that VIPs listen on: bound here, or left by the process before us.

systemd keeps a second descriptor of each (sd_pid_notify_with_fds(3)), so that a
socket outlives the process: who comes during a restart waits in its backlog.
Sockets are told apart by what they are bound to, not by the name they are kept
under. What must be said of a socket before it is bound is said here; what may
come later is for `tcp` and `udp`, so that it holds for any socket.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import ip_address

from twisted.logger import Logger

from dcosnet.io.notify import Notifier
from dcosnet.l4lb.listener import Listener
from dcosnet.model.net import Protocol

log = Logger()

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
PREFIX = "vip-"
"""What the names of kept sockets begin with."""
# All names stand in one environment variable, which may have 128 KiB (MAX_ARG_STRLEN);
# this many of `vip-NNNNN:` leave room for the names of others.
KEPT_MAX = 12000
_NUMBERS = 99999

_FREEBIND = 78  # IPV6_FREEBIND of linux/in6.h; the socket module does not have it
_KINDS = {socket.SOCK_STREAM: Protocol.TCP, socket.SOCK_DGRAM: Protocol.UDP}


class Sockets:
    """Opens sockets, and keeps them beyond this process where there is somebody to keep them."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._left: dict[Listener, tuple[str, socket.socket]] = {}
        """By what they are bound to, sockets of the process before us that nobody has asked for yet."""
        self._names: dict[Listener, str] = {}
        """What open sockets are kept as."""
        self._number = 0
        self._taken: set[str] = set()

    def inherit(self, passed: Mapping[str, socket.socket]) -> None:
        """Take what another process left; what cannot be a VIP's is closed."""
        for name, sock in passed.items():
            listener = _bound(sock)
            if listener is None or listener in self._left:
                sock.close()
                self._forget(name)
                continue
            sock.setblocking(False)
            self._left[listener] = (name, sock)
            self._taken.add(name)

    @property
    def left(self) -> int:
        """How many sockets of the process before us nobody has asked for yet."""
        return len(self._left)

    def open(self, listener: Listener, *, routed: bool = False) -> socket.socket:
        """
        A non-blocking socket bound to a VIP; a TCP one listens. Raises OSError.

        `routed` says that the kernel takes the address for this host's own, also
        where no interface has it; IPv6 wants to be told.
        """
        if listener in self._left:
            name, sock = self._left.pop(listener)
            self._names[listener] = name
            return sock
        sock = _open(listener, routed)
        self._keep(listener, sock)
        return sock

    def gone(self, listener: Listener) -> None:
        """A VIP's socket is closed for good: it is kept no longer."""
        name = self._names.pop(listener, None)
        if name is not None:
            self._forget(name)

    def sweep(self) -> None:
        """Close what the process before us left and nobody wants any more."""
        for listener, (name, sock) in self._left.items():
            log.info("{listener} of the process before is wanted no longer", listener=str(listener))
            sock.close()
            self._forget(name)
        self._left.clear()

    def close(self) -> None:
        """Close what was not asked for; whoever keeps sockets goes on to keep them."""
        for _name, sock in self._left.values():
            sock.close()
        self._left.clear()

    def _keep(self, listener: Listener, sock: socket.socket) -> None:
        if not self._notifier or len(self._taken) >= KEPT_MAX:
            return
        name = self._names[listener] = self._name()
        # FDPOLL=0: an error of ours, as of a datagram that was refused, is no reason to drop it.
        self._notifier.tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=[sock.fileno()])

    def _name(self) -> str:
        """One that nothing is kept under."""
        while True:
            self._number = self._number % _NUMBERS + 1
            name = f"{PREFIX}{self._number}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def _forget(self, name: str) -> None:
        self._taken.discard(name)
        self._notifier.tell("FDSTOREREMOVE=1", f"FDNAME={name}")


def _open(listener: Listener, routed: bool) -> socket.socket:
    family = socket.AF_INET if listener.address.version == 4 else socket.AF_INET6
    stream = listener.protocol is Protocol.TCP
    sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if routed:
                sock.setsockopt(socket.IPPROTO_IPV6, _FREEBIND, 1)
        sock.bind((str(listener.address), listener.port))
        if stream:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bound(sock: socket.socket) -> Listener | None:
    """What a socket listens for, or None when it is no listener."""
    try:
        protocol = _KINDS.get(sock.type)
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or protocol is None:
            return None
        if protocol is Protocol.TCP and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        address, port = sock.getsockname()[:2]
        return Listener(protocol, ip_address(address), port)
    except OSError:
        return None
