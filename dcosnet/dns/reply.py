"""
Messages to bytes: compression, truncation at whole records, our OPT.

The asker's own question bytes are echoed (draft-vixie-dnsext-dns0x20). What is
cut is cut in order; only the loss of an answer or authority record sets TC.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import attrs

from dcosnet.dns.edns import SIZE_MIN, ExtendedError, opt_record
from dcosnet.dns.query import AA, CD, HEADER, OPCODE, QR, RA, RD, TC, Query, Rcode
from dcosnet.dns.wire import RawRecord, wire_of
from dcosnet.model.zone import Record, Soa, Srv

TCP_MAX = 65535
Owned = tuple[str, Record] | RawRecord
_FIXED = struct.Struct("!HHI")
_POINTER_MAX = 0x4000


@attrs.frozen
class Message:
    """What to answer, apart from how the asker must be addressed."""

    rcode: Rcode = Rcode.NOERROR
    answer: Sequence[Owned] = ()
    authority: Sequence[Owned] = ()
    additional: Sequence[Owned] = ()
    authoritative: bool = False
    error: ExtendedError | None = None


def udp_limit(query: Query, own: int) -> int:
    """How long a UDP reply may be: the asker's size within [512, our own], 512 without EDNS."""
    return SIZE_MIN if query.edns is None else max(SIZE_MIN, min(query.edns.size, own))


def render(query: Query, message: Message, limit: int, own_size: int) -> bytes:
    """
    The reply of at most `limit` octets.

    `own_size` is the UDP size that our OPT tells; the OPT is there iff the asker sent one.
    """
    opt = b""
    if query.edns is not None:
        opt = opt_record(own_size, do=query.edns.do, rcode=message.rcode, error=message.error)
        if HEADER.size + len(query.question) + len(opt) > limit:
            opt = opt_record(own_size, do=query.edns.do, rcode=message.rcode)
    writer = _Writer(query, limit - len(opt))
    answers, cut = writer.section(message.answer)
    authorities = additionals = 0
    if not cut:
        authorities, cut = writer.section(message.authority)
    if not cut:
        additionals, _ = writer.section(message.additional)
    flags = QR | RA | query.flags & (OPCODE | RD | CD) | message.rcode & 0xF
    flags |= AA if message.authoritative else 0
    flags |= TC if cut else 0
    HEADER.pack_into(
        writer.data, 0, query.id, flags, 1 if query.question else 0, answers, authorities, additionals + bool(opt)
    )
    return bytes(writer.data + opt)


def relay(query: Query, reply: bytes, limit: int, own_size: int) -> bytes:
    """An upstream's reply to the same question, made this asker's own; emptied with TC when too long."""
    if len(reply) > limit:
        emptied = render(
            query,
            Message(Rcode(reply[3] & 0xF) if reply[3] & 0xF <= Rcode.REFUSED else Rcode.SERVFAIL),
            limit,
            own_size,
        )
        return emptied[:2] + bytes((emptied[2] | TC >> 8,)) + emptied[3:]
    return b"".join(
        (
            query.id.to_bytes(2, "big"),
            reply[2:3],
            bytes((reply[3] | RA,)),
            reply[4:12],
            query.question,
            reply[12 + len(query.question) :],
        )
    )


class _Writer:
    """A message that grows record by record, with the names it may point to."""

    def __init__(self, query: Query, limit: int) -> None:
        self.data = bytearray(HEADER.size)
        self.data += query.question
        self._limit = limit
        self._offsets: dict[str, int] = {}
        name, at = query.name, HEADER.size
        while name and "\\" not in name:
            self._offsets[name] = at
            label, _, name = name.partition(".")
            at += 1 + len(label)

    def section(self, records: Sequence[Owned]) -> tuple[int, bool]:
        """Write as many as fit; how many, and whether some did not."""
        for count, record in enumerate(records):
            mark = len(self.data)
            self._record(record)
            if len(self.data) > self._limit:
                # Names of what is cut stay known, which is harmless: nothing follows a cut.
                del self.data[mark:]
                return count, True
        return len(records), False

    def _record(self, owned: Owned) -> None:
        data = self.data
        if isinstance(owned, RawRecord):
            data += owned.owner
            data += struct.pack("!HHIH", owned.type, owned.klass, owned.ttl, len(owned.data))
            data += owned.data
            return
        owner, record = owned
        self._name(owner)
        data += _FIXED.pack(record.type, 1, record.ttl)
        start = len(data)
        data += b"\0\0"
        self._data(record.data)
        struct.pack_into("!H", data, start, len(data) - start - 2)

    def _data(self, value: object) -> None:
        if isinstance(value, str):
            self._name(value)
        elif isinstance(value, Srv):
            self.data += struct.pack("!HHH", value.priority, value.weight, value.port)
            self.data += wire_of(value.target)  # RFC 2782: not compressed
        elif isinstance(value, Soa):
            self._name(value.mname)
            self._name(value.rname)
            self.data += struct.pack("!IIIII", value.serial, value.refresh, value.retry, value.expire, value.minimum)
        else:
            self.data += value.packed  # type: ignore[attr-defined]  # an address: the last kind of Record.data

    def _name(self, name: str) -> None:
        data = self.data
        while name:
            at = self._offsets.get(name)
            if at is not None:
                data += (0xC000 | at).to_bytes(2, "big")
                return
            if len(data) < _POINTER_MAX:
                self._offsets[name] = len(data)
            label, _, name = name.partition(".")
            octets = label.encode("latin-1")
            data.append(len(octets))
            data += octets
        data.append(0)
