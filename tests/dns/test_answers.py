"""Ready answers are never other than fresh ones, whatever changes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import repeat
from random import Random
from typing import Any

import dns.message
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.dns.access import AccessList
from dcosnet.dns.answers import MAX_OCTETS, MAX_VARIANTS, Answers, key_of
from dcosnet.dns.chain import AnswerOrder, Chain
from dcosnet.dns.forward import Routes
from dcosnet.dns.metrics import Counts
from dcosnet.dns.server import udp_receiver
from dcosnet.dns.upstream import Forwarder
from dcosnet.dns.zone import Zones
from dcosnet.model.zone import Record, RecordType, Soa, Srv, Zone, address_record, apex_records
from dcosnet.testing.memory_net import MemoryNet
from dcosnet.testing.memory_udp import MemoryUdp

NAMES = ["a.test", "b.test", "x.a.test", "y.x.a.test", "z.y.x.a.test", "c.other", "x.c.other"]
QUESTIONS = ["test", "other", *NAMES, "q.test", "w.b.test"]
TYPES = ["A", "CNAME", "SRV", "SOA", "NS", "ANY", "TXT"]

addresses = st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True).map(
    lambda some: tuple(address_record(IPv4Address(f"10.0.0.{one}")) for one in some)
)
aliases = st.sampled_from([*QUESTIONS, "out.example"]).map(lambda target: (Record(RecordType.CNAME, target),))
services = st.sampled_from(NAMES).map(lambda target: (Record(RecordType.SRV, Srv(target, 80)),))
contents = st.one_of(st.just(()), addresses, aliases, services)


@st.composite
def steps(draw: st.DrawFn) -> Callable[[Any], None]:
    """A change of some names at once, of an apex, of a zone's sync state, or a whole new zone."""
    kind = draw(st.sampled_from(["names", "names", "names", "apex", "unsynced", "whole"]))
    zone = draw(st.sampled_from(["test", "other"]))
    if kind == "names":
        names = st.sampled_from([name for name in NAMES if name.endswith(zone)])
        changes = draw(st.dictionaries(names, contents, min_size=1, max_size=3))
        return lambda world: world.change(zone, changes)
    if kind == "apex":
        minimum = draw(st.integers(1, 9))
        soa = (Record(RecordType.SOA, Soa(minimum=minimum)), Record(RecordType.NS, draw(st.sampled_from(NAMES))))
        return lambda world: world.change(zone, {zone: soa})
    if kind == "unsynced":
        reason = draw(st.sampled_from([None, "not yet"]))
        return lambda world: world.sync(zone, reason)
    changes = draw(st.dictionaries(st.sampled_from([name for name in NAMES if name.endswith(zone)]), contents))
    return lambda world: world.replace(zone, changes)


class World:
    """Two zones, a server that keeps answers ready, and one that starts afresh for each question."""

    def __init__(self) -> None:
        self.records = {zone: {zone: apex_records()} for zone in ("test", "other")}
        self.unsynced: dict[str, str | None] = {"test": None, "other": None}
        self.zones, self.answers, self.receive = self.server()
        for zone in self.records:
            self.tell(zone, None)

    def server(self) -> Any:
        zones, answers, counts, net = Zones(), Answers(20, 20), Counts(), MemoryNet()
        forwarder = Forwarder((), MemoryUdp(), net, counts)
        chain = Chain(
            zones, answers, Routes({}, ()), forwarder, counts, order=AnswerOrder.FIXED, rng=Random(1), udp_size=1232
        )
        access = AccessList([])
        access.known["client"] = True
        return zones, answers, udp_receiver(access, answers, chain, counts, lambda *_: None)

    def tell(self, zone: str, changed: frozenset[str] | None) -> None:
        wrong = self.zones.update(Zone(zone, self.records[zone], self.unsynced[zone]), changed)
        if wrong is None:
            self.answers.clear()
        else:
            self.answers.forget(wrong)

    def change(self, zone: str, changes: dict[str, tuple[Record, ...]]) -> None:
        for name, content in changes.items():
            if content:
                self.records[zone][name] = content
            else:
                self.records[zone].pop(name, None)
        self.tell(zone, frozenset(changes))

    def sync(self, zone: str, reason: str | None) -> None:
        self.unsynced[zone] = reason
        self.tell(zone, None)

    def replace(self, zone: str, changes: dict[str, tuple[Record, ...]]) -> None:
        self.records[zone] = {zone: apex_records()}
        self.records[zone].update((name, content) for name, content in changes.items() if content)
        self.tell(zone, None)

    def fresh(self, wire: bytes) -> bytes | None:
        zones, _, receive = self.server()
        for zone in self.records:
            zones.update(Zone(zone, self.records[zone], self.unsynced[zone]), None)
        return receive(wire, ("client",))


def wires() -> list[bytes]:
    return [
        dns.message.make_query(name, type_, use_edns=edns, id=7).to_wire()
        for name in QUESTIONS
        for type_ in TYPES
        for edns in (False, 0)
    ]


WIRES = wires()


@given(changes=st.lists(st.tuples(st.lists(st.sampled_from(WIRES), max_size=12), steps()), min_size=1, max_size=8))
def test_a_ready_answer_equals_a_fresh_one(changes) -> None:
    """After any sequence of changes, with answers put there at any time between them."""
    world = World()
    for questions, change in changes:
        for wire in questions:
            world.receive(wire, ("client",))
        change(world)
        for wire in questions:
            assert world.receive(wire, ("client",)) == world.fresh(wire)


def test_every_question_is_fresh_after_a_change_below() -> None:
    """The case behind the law: a name that comes to be makes those above it exist."""
    world = World()
    for wire in WIRES:
        world.receive(wire, ("client",))
    world.change("test", {"z.y.x.a.test": (address_record(IPv4Address("10.0.0.1")),)})
    assert [wire for wire in WIRES if world.receive(wire, ("client",)) != world.fresh(wire)] == []


def keep(answers: Answers, key: bytes, *names: str, octets: int = 1, negative: bool = False) -> None:
    answers.put(key, repeat(b"x"), frozenset(names), about=names[-1], octets=octets, negative=negative)


def test_a_change_forgets_only_what_it_makes_wrong() -> None:
    """Ten thousand other names stay ready."""
    answers = Answers()
    for index in range(100):
        keep(answers, b"%d" % index, f"n{index}")
    answers.forget(["n7", "unknown"])
    assert len(answers) == 99
    assert b"7" not in answers.ready


def test_made_up_names_push_out_only_each_other() -> None:
    """A flood of absent names leaves the names in use."""
    answers = Answers(max_positive=10, max_negative=10)
    keep(answers, b"used", "used")
    for index in range(1000):
        keep(answers, b"%d" % index, f"n{index}", negative=True)
    assert len(answers) == 11
    assert b"used" in answers.ready


def test_the_oldest_goes_first() -> None:
    """And nothing of it is left behind."""
    answers = Answers(max_positive=2, max_negative=2)
    for index in range(3):
        keep(answers, b"%d" % index, "shared", f"n{index}")
    assert set(answers.ready) == {b"1", b"2"}
    answers.forget(["shared"])
    assert len(answers) == 0


def test_long_answers_take_the_room_of_many() -> None:
    """What is bounded is memory: sixteen orders of a long record set are no single entry."""
    answers = Answers()
    for index in range(100):
        keep(answers, b"%d" % index, f"n{index}", octets=MAX_OCTETS // 10)
    assert set(answers.ready) == {b"%d" % index for index in range(90, 100)}
    answers.forget(["n95"])
    keep(answers, b"new", "new", octets=MAX_OCTETS // 10)
    assert len(answers) == 10
    answers.clear()
    keep(answers, b"huge", "huge", octets=MAX_OCTETS)
    assert len(answers) == 1


def test_made_up_variants_of_a_name_do_not_push_out_other_names() -> None:
    """Anybody can ask for one name with 65536 EDNS sizes."""
    answers = Answers(max_positive=MAX_VARIANTS + 1)
    keep(answers, b"used", "used")
    for index in range(10 * MAX_VARIANTS):
        keep(answers, b"%d" % index, "shared", "web")
    assert len(answers) == MAX_VARIANTS + 1
    assert b"used" in answers.ready
    answers.forget(["shared"])
    keep(answers, b"again", "shared", "web")
    assert b"again" in answers.ready


def test_a_type_that_looks_like_a_letter_is_not_folded() -> None:
    """HTTPS is type 65, which is "A"; lower case would make it type 97."""
    message = dns.message.make_query("WEB.test", "TYPE65").to_wire()
    other = dns.message.make_query("web.test", "TYPE97").to_wire()
    end = len(message)
    assert key_of(message, end)[-4:] == b"\0\x41\0\1"
    assert key_of(message, end)[10:-4] == key_of(other, end)[10:-4]
    assert key_of(message, end) != key_of(other, end)
