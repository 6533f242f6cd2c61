"""
What our own zones say: from a name and a type to records, or to their absence.

Pure. `Zones` follows the zone cells by changed owner names, and tells with each
outcome which names it depends on, so that `answers` can forget exactly what a
change makes wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs

from dcosnet.dns.edns import ErrorCode, ExtendedError
from dcosnet.dns.query import ANY, Rcode
from dcosnet.dns.reply import Message
from dcosnet.model.cell import Changed
from dcosnet.model.zone import Record, RecordType, Zone

MAX_CHAIN = 16  # CNAMEs in a row; each is a record in the answer

_ADDRESSES = (RecordType.A, RecordType.AAAA)


@attrs.frozen
class Found:
    """
    An outcome in our own zones.

    `names` are what it depends on; `cnames` how many records of the answer are
    the chain before the records asked for; `outside` is where a chain leaves
    our zones. A `lasting` outcome holds until one of `names` changes.
    """

    message: Message
    names: frozenset[str]
    cnames: int = 0
    outside: str | None = None
    lasting: bool = True


def ancestors(name: str, apex: str) -> Iterator[str]:
    """The names between an owner name and its apex, both excluded."""
    while name != apex:
        _, dot, name = name.partition(".")
        if not dot or name == apex:
            return
        yield name


def existence(name: str) -> str:
    """What an outcome depends on that found no records at `name`: names below it make it exist."""
    return f"*{name}"


class _Held:
    """A zone with the names that exist only because others are below them."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.present: set[str] = set()
        self.above: Counter[str] = Counter()
        for name in zone.records:
            self.note(name)

    def note(self, name: str) -> None:
        """Take over whether a name has records now."""
        if bool(self.zone.records.get(name)) == (name in self.present):
            return
        step = -1 if name in self.present else 1
        self.present ^= {name}
        for above in ancestors(name, self.zone.apex):
            self.above[above] += step
            if not self.above[above]:
                del self.above[above]

    def exists(self, name: str) -> bool:
        """Whether an owner name, a name above one, or the apex."""
        return name in self.present or name in self.above or name == self.zone.apex


class Zones:
    """All zones that we answer for, by apex."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def update(self, zone: Zone, changed: Changed) -> frozenset[str] | None:
        """
        Take a zone's new content; what outcomes may depend on and no longer hold.

        None means that every outcome may be wrong.
        """
        held = self._held.get(zone.apex)
        if held is None or changed is None:
            self._held[zone.apex] = _Held(zone)
            return None
        held.zone = zone
        wrong = set()
        for name in changed:
            held.note(name)
            wrong.add(name)
            wrong.update(map(existence, ancestors(name, zone.apex)))
        return frozenset(wrong)

    def resolve(self, name: str, type_: int) -> Found | None:
        """The outcome for a question, or None when its name is in no zone of ours."""
        held = self._zone_of(name)
        if held is None:
            return None
        chain: list[tuple[str, Record]] = []
        names: set[str] = set()
        while held is not None:
            if name in names or len(chain) > MAX_CHAIN:
                error = ExtendedError(ErrorCode.OTHER, "CNAME loop")
                return Found(Message(Rcode.SERVFAIL, error=error), frozenset(names))
            names.add(name)
            records = held.zone.records.get(name, ())
            matching = [record for record in dict.fromkeys(records) if type_ in (record.type, ANY)]
            if matching:
                return self._positive(name, type_, matching, chain, names)
            cname = next((record for record in records if record.type is RecordType.CNAME), None)
            if cname is None:
                return self._negative(held, name, chain, names)
            chain.append((name, cname))
            name = str(cname.data).lower()
            held = self._zone_of(name)
        return Found(Message(answer=chain, authoritative=True), frozenset(names), len(chain), outside=name)

    def _positive(
        self, name: str, type_: int, matching: list[Record], chain: list[tuple[str, Record]], names: set[str]
    ) -> Found:
        answer = [*chain, *((name, record) for record in matching)]
        additional: list[tuple[str, Record]] = []
        if type_ in (RecordType.SRV, RecordType.NS):
            targets = [record.data if isinstance(record.data, str) else record.data.target for record in matching]  # type: ignore[union-attr]  # SRV and NS hold these
            for target in dict.fromkeys(map(str.lower, targets)):
                held = self._zone_of(target)
                if held is not None:
                    names.add(target)
                    records = held.zone.records.get(target, ())
                    additional += ((target, record) for record in records if record.type in _ADDRESSES)
        message = Message(answer=answer, additional=additional, authoritative=True)
        return Found(message, frozenset(names), len(chain))

    def _negative(self, held: _Held, name: str, chain: list[tuple[str, Record]], names: set[str]) -> Found:
        apex = held.zone.apex
        names.update((apex, existence(name)))
        exists = held.exists(name)
        if not exists and held.zone.unsynced is not None:
            error = ExtendedError(ErrorCode.NOT_READY, held.zone.unsynced)
            return Found(Message(Rcode.SERVFAIL, error=error), frozenset(names), lasting=False)
        rcode = Rcode.NOERROR if exists else Rcode.NXDOMAIN
        authority = [
            (apex, _negative_soa(record)) for record in held.zone.records.get(apex, ()) if record.type is RecordType.SOA
        ]
        message = Message(rcode, chain, authority, authoritative=True)
        return Found(message, frozenset(names), len(chain))

    def _zone_of(self, name: str) -> _Held | None:
        while True:
            held = self._held.get(name)
            if held is not None or not name:
                return held
            name = name.partition(".")[2]


def _negative_soa(record: Record) -> Record:
    """The SOA as a negative answer carries it, RFC 2308 section 3."""
    minimum = getattr(record.data, "minimum", record.ttl)
    return attrs.evolve(record, ttl=min(record.ttl, minimum))
