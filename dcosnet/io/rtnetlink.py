"""
Routes of the kernel, by rtnetlink(7): asked for, listed, added and removed.

Four messages are all that local addresses take; a whole library for them costs
a quarter of this process's memory (docs/decisions/0014). Each call is one short
question to the kernel, answered before it returns.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network

import attrs

from dcosnet.model.net import Address

Network = IPv4Network | IPv6Network

UNICAST, LOCAL, BROADCAST = 1, 2, 3
"""Types of routes (RTN_*)."""
TABLE_MAIN, TABLE_LOCAL = 254, 255

_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_SCOPE_HOST, _SCOPE_NOWHERE = 254, 255
_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH: answer with the route itself, not with what becomes of it
_DST, _OIF, _GATEWAY, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 9, 15, 18  # RTA_*
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_SOL_NETLINK, _GET_STRICT_CHK = 270, 12
_LOOPBACK = 1  # the index of lo in every network namespace
_BUFFER = 1 << 16


@attrs.frozen
class Route:
    """Where packets to `network` go; `on_link` when no gateway is between."""

    network: Network
    kind: int
    protocol: int
    on_link: bool


class Rtnetlink:
    """The routes of this network namespace. Every method raises OSError with what the kernel says."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        # A dump is then filtered by the kernel; an old one (before 4.20) gives all, which is filtered here, too.
        try:
            self._socket.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def match(self, address: Address) -> Route | None:
        """The route that an address falls under, or None when there is none."""
        message = _ROUTE.pack(_family(address.version), address.max_prefixlen, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
        try:
            for found in self._ask(_GETROUTE, 0, message + _attribute(_DST, address.packed)):
                return _parse(found)
        except OSError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                raise
        return None

    def routes(self, version: int, table: int, kind: int, protocol: int = 0) -> list[Route]:
        """The routes of a table that are of a type, and of a protocol unless that is 0."""
        message = _ROUTE.pack(_family(version), 0, 0, 0, table, protocol, 0, kind, 0)
        found = []
        for answer in self._ask(_GETROUTE, _DUMP, message):
            route = _parse(answer, table)
            if route is not None and route.kind == kind and protocol in (0, route.protocol):
                found.append(route)
        return found

    def add_local(self, network: Network, protocol: int) -> None:
        """Make all addresses of a network this host's own. One that is there already is no error."""
        with suppress(FileExistsError):
            self._change(_NEWROUTE, _CREATE | _EXCL, network, protocol)

    def remove_local(self, network: Network, protocol: int) -> None:
        """Undo `add_local`; only a route of that protocol is removed. One that has gone is no error."""
        with suppress(ProcessLookupError):
            self._change(_DELROUTE, 0, network, protocol)

    def _change(self, kind: int, flags: int, network: Network, protocol: int) -> None:
        family = _family(network.version)
        message = _ROUTE.pack(family, network.prefixlen, 0, 0, TABLE_LOCAL, protocol, _SCOPE_HOST, LOCAL, 0)
        message += _attribute(_DST, network.network_address.packed) + _attribute(_OIF, struct.pack("=I", _LOOPBACK))
        for _ in self._ask(kind, flags | _ACK, message):
            pass

    def _ask(self, kind: int, flags: int, message: bytes) -> Iterator[bytes]:
        """Send one message; the routes in the answer."""
        self._sequence += 1
        size = _HEADER.size + len(message)
        self._socket.send(_HEADER.pack(size, kind, flags | _REQUEST, self._sequence, 0) + message)
        more = True
        while more:
            answer = self._socket.recv(_BUFFER)
            more = bool(flags & (_DUMP | _ACK))
            for kind_found, sequence, body in _split(answer):
                if sequence != self._sequence:
                    more = True  # what is left of an answer that was not read to its end
                elif kind_found == _ERROR:
                    (status,) = struct.unpack_from("=i", body)
                    if status:
                        raise OSError(-status, os.strerror(-status))
                    return
                elif kind_found == _DONE:
                    return
                elif kind_found == _NEWROUTE:
                    yield body


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The messages of a datagram: type, sequence number, what follows the header."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size:
            return
        yield kind, data[offset + _ATTRIBUTE.size : offset + size]
        offset += (size + 3) & ~3


def _parse(body: bytes, wanted: int | None = None) -> Route | None:
    """A route out of its message; None when it is of another table than the one that is wanted."""
    family, length, _, _, table, protocol, _scope, kind, _flags = _ROUTE.unpack_from(body)
    found = dict(_attributes(body[_ROUTE.size :]))
    if _TABLE in found:
        (table,) = struct.unpack("=I", found[_TABLE])
    if wanted is not None and table != wanted:
        return None
    destination = found.get(_DST, bytes(4 if family == socket.AF_INET else 16))
    network = ip_network((destination, length), strict=False)
    return Route(network, kind, protocol, on_link=not found.keys() & {_GATEWAY, _MULTIPATH, _VIA})
