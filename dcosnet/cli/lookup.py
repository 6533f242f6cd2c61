"""
One DNS query to one server, over UDP and, where the answer is cut, over TCP.

Blocking, for the command only. What comes back is checked against what was
asked; a reply that does not fit is as none.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import attrs

from dcosnet.dns.edns import OPT, opt_record
from dcosnet.dns.wire import RawRecord, expand, places, read_name, text_of, wire_of
from dcosnet.model.net import Endpoint

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}
_TYPE_NAMES = {number: name for name, number in TYPES.items()}
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_HEADER = struct.Struct("!6H")
_TRUNCATED, _RECURSE = 0x0200, 0x0100
_UDP_SIZE = 1232  # what passes everywhere without fragments, as resolvers agreed in 2020
_TRIES = 2
_EXTENDED_ERROR = 15  # RFC 8914


class _Section(IntEnum):
    """Where a message's counts stand in its header."""

    ANSWER = 3
    AUTHORITY = 4
    ADDITIONAL = 5


@attrs.frozen
class Line:
    """A record as text."""

    name: str
    ttl: int
    type: str
    data: str


@attrs.frozen
class Reply:
    """An answer, its rcode by name, and the server's reason where it gives one (RFC 8914)."""

    rcode: str
    answers: tuple[Line, ...]
    error_code: int | None = None
    error_text: str = ""


def ask(server: Endpoint, name: str, rtype: int, timeout: float) -> Reply:
    """
    The server's reply within `timeout` seconds.

    Raises TimeoutError, OSError where there is no server, and ValueError for a
    reply that cannot be read or a name that `wire_of` refuses.
    """
    ident = secrets.randbits(16)
    question = wire_of(name) + struct.pack("!HH", rtype, 1)
    query = _HEADER.pack(ident, _RECURSE, 1, 0, 0, 1) + question + opt_record(_UDP_SIZE)
    deadline = time.monotonic() + timeout
    message = _over_udp(server, query, timeout, deadline)
    if _HEADER.unpack_from(message)[1] & _TRUNCATED:
        message = _over_tcp(server, query, deadline)
    return read_reply(message)


def read_reply(message: bytes) -> Reply:
    """A reply out of its bytes. Raises ValueError."""
    if len(message) < _HEADER.size:
        raise ValueError("the reply is cut")
    header = _HEADER.unpack_from(message)
    at = _HEADER.size
    for _ in range(header[2]):
        at = read_name(message, at)[1] + 4
    records = list(places(message, at, sum(header[section] for section in _Section)))
    answers = tuple(_line(expand(message, place)) for place in records[: header[_Section.ANSWER]])
    rcode, error_code, error_text = header[1] & 15, None, ""
    for place in records:
        if place.type == OPT:
            rcode |= place.ttl >> 24 << 4
            error_code, error_text = _extended_error(message[place.data : place.end])
    return Reply(_RCODES.get(rcode, f"RCODE{rcode}"), answers, error_code, error_text)


def _over_udp(server: Endpoint, query: bytes, timeout: float, deadline: float) -> bytes:
    family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.connect((str(server.address), server.port))
        for attempt in range(1, _TRIES + 1):
            udp.send(query)
            until = deadline - timeout * (_TRIES - attempt) / _TRIES
            while (left := until - time.monotonic()) > 0:
                udp.settimeout(left)
                try:
                    message = udp.recv(65535)
                except TimeoutError:
                    break
                if _fits(message, query):
                    return message
    raise TimeoutError


def _over_tcp(server: Endpoint, query: bytes, deadline: float) -> bytes:
    with socket.create_connection((str(server.address), server.port), _left(deadline)) as tcp:
        tcp.sendall(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", _exactly(tcp, 2, deadline))
        message = _exactly(tcp, length, deadline)
    if not _fits(message, query):
        raise ValueError("the reply over TCP is to another query")
    return message


def _exactly(tcp: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        tcp.settimeout(_left(deadline))
        received = tcp.recv(count - len(data))
        if not received:
            raise ConnectionResetError("closed in the middle of a reply")
        data += received
    return data


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _fits(message: bytes, query: bytes) -> bool:
    """Whether a message is the reply to a query: its id, and its question if it has one."""
    if len(message) < _HEADER.size or message[:2] != query[:2] or not message[2] & 0x80:
        return False
    question = query[_HEADER.size : -len(opt_record(_UDP_SIZE))]
    same = message[_HEADER.size : _HEADER.size + len(question)].lower() == question.lower()
    # A server that could not read the question may leave it out.
    return same or _HEADER.unpack_from(message)[2] == 0


def _extended_error(options: bytes) -> tuple[int | None, str]:
    at = 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from("!HH", options, at)
        data = options[at + 4 : at + 4 + length]
        if code == _EXTENDED_ERROR and len(data) >= 2:
            return int.from_bytes(data[:2], "big"), data[2:].rstrip(b"\0").decode(errors="replace")
        at += 4 + length
    return None, ""


def _line(record: RawRecord) -> Line:
    name = text_of(record.owner)
    return Line(name or ".", record.ttl, _TYPE_NAMES.get(record.type, f"TYPE{record.type}"), _data(record))


def _data(record: RawRecord) -> str:  # noqa: PLR0911 - one for each type
    data, kind = record.data, _TYPE_NAMES.get(record.type)
    if kind == "A" and len(data) == 4:
        return str(IPv4Address(data))
    if kind == "AAAA" and len(data) == 16:
        return str(IPv6Address(data))
    if kind in ("CNAME", "NS", "PTR"):
        return _names(data, 1)
    if kind == "SOA" and len(data) > 20:
        return f"{_names(data, 2)} {' '.join(map(str, struct.unpack('!5I', data[-20:])))}"
    if kind == "SRV" and len(data) > 6:
        return f"{' '.join(map(str, struct.unpack_from('!3H', data)))} {_names(data[6:], 1)}"
    if kind == "MX" and len(data) > 2:
        return f"{int.from_bytes(data[:2], 'big')} {_names(data[2:], 1)}"
    if kind == "TXT":
        return _strings(data)
    return f"\\# {len(data)} {data.hex()}".rstrip()  # RFC 3597 section 5


def _names(data: bytes, count: int) -> str:
    names, at = [], 0
    for _ in range(count):
        name, at = read_name(data, at)
        names.append(f"{text_of(name)}.")
    return " ".join(names)


def _strings(data: bytes) -> str:
    strings, at = [], 0
    while at < len(data):
        text = data[at + 1 : at + 1 + data[at]].decode(errors="replace")
        strings.append('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
        at += 1 + data[at]
    return " ".join(strings)
