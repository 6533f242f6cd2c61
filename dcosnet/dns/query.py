"""
From the bytes of a query to what is asked, or why it is refused.

Total: every sequence of bytes gives a Query or None. Nothing is looked up here.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from dcosnet.dns.edns import OPT, Edns, ErrorCode, ExtendedError, read_opt
from dcosnet.dns.wire import places, text_of

HEADER = struct.Struct("!HHHHHH")
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800
CLASS_IN = 1
ANY = 255
_TRANSFERS = frozenset({251, 252})  # IXFR, AXFR


class Rcode(IntEnum):
    """Outcomes, RFC 1035 4.1.1 and RFC 6891."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Problem(msgspec.Struct, frozen=True, gc=False):
    """Why a query gets no look-up."""

    rcode: Rcode
    error: ExtendedError | None = None


class Query(msgspec.Struct, frozen=True, gc=False):
    """
    A query that must be answered, if only with its problem.

    `question` are the asker's own bytes: name, type and class; empty when there
    is no single readable one. `name` is its look-up form. `plain` says that
    nothing but question, flags and an OPT without options is in the message.
    """

    id: int
    flags: int
    question: bytes = b""
    name: str = ""
    type: int = 0
    edns: Edns | None = None
    problem: Problem | None = None
    plain: bool = False


def parse(message: bytes) -> Query | None:
    """Read a query; None for what no server should answer: a reply, or less than a header."""
    if len(message) < HEADER.size:
        return None
    id_, flags, questions, answers, authorities, additionals = HEADER.unpack_from(message)
    if flags & QR:
        return None  # two servers must not talk in circles
    wrong = Problem(Rcode.NOTIMP if flags & OPCODE else Rcode.FORMERR)
    if questions != 1:
        return Query(id_, flags, problem=wrong)
    try:
        end = _question_end(message)
        name = text_of(message[HEADER.size : end - 4])
    except ValueError:
        return Query(id_, flags, problem=wrong)
    question = message[HEADER.size : end]
    type_, klass = struct.unpack_from("!HH", message, end - 4)
    before = answers + authorities
    try:
        edns = _find_opt(message, end, before, additionals)
    except ValueError:
        return Query(id_, flags, question, name, type_, problem=wrong)
    # A zero inside a label would shift the end of the name that `answers` sees.
    plain = (
        message.find(0, HEADER.size) == end - 5
        and not before
        and (additionals == 0 or (additionals == 1 and edns is not None and not edns.options))
    )
    return Query(id_, flags, question, name, type_, edns, _problem(flags, edns, type_, klass), plain)


def _problem(flags: int, edns: Edns | None, type_: int, klass: int) -> Problem | None:
    if flags & OPCODE:
        return Problem(Rcode.NOTIMP)
    if edns is not None and edns.version:
        return Problem(Rcode.BADVERS)
    if klass != CLASS_IN:
        return Problem(Rcode.REFUSED, ExtendedError(ErrorCode.NOT_SUPPORTED, "only class IN is served"))
    if type_ in _TRANSFERS:
        return Problem(Rcode.REFUSED, ExtendedError(ErrorCode.PROHIBITED, "zones are not transferred"))
    return None


def _question_end(message: bytes) -> int:
    """Where the one question ends; its name must not be compressed, there is nothing to point to."""
    at = HEADER.size
    size = len(message)
    while at < size and (length := message[at]):
        if length > 63:
            raise ValueError("a question's name is not plain")
        at += 1 + length
    if at + 5 > size or at + 1 - HEADER.size > 255:
        raise ValueError("a question is cut")
    return at + 5


def _find_opt(message: bytes, at: int, before: int, additionals: int) -> Edns | None:
    found: Edns | None = None
    for index, place in enumerate(places(message, at, before + additionals)):
        at = place.end
        if place.type != OPT or index < before:
            continue
        if found is not None or message[place.start] != 0:
            raise ValueError("more than one OPT, or one with a name")  # RFC 6891 6.1.1
        found = read_opt(place.klass, place.ttl, message[place.data : place.end])
    if at != len(message):
        raise ValueError("bytes behind the message")
    return found
