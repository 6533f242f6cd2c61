"""
The sockets that VIPs listen on: made here, and bound.

What must be said of a socket before it is bound is said here; what may come
later is for `tcp` and `udp`, so that it holds for any socket they are given.
"""

from __future__ import annotations

import socket

from dcosnet.l4lb.listener import Listener
from dcosnet.model.net import Protocol

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn


def open_listener(listener: Listener) -> socket.socket:
    """A non-blocking socket bound to a VIP; a TCP one listens. Raises OSError."""
    family = socket.AF_INET if listener.address.version == 4 else socket.AF_INET6
    stream = listener.protocol is Protocol.TCP
    sock = socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(listener.address), listener.port))
        if stream:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
