"""What is said of names in our own zones, and what of queries that are wrong."""

from __future__ import annotations

import struct
from collections import Counter
from ipaddress import IPv4Address

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.dns.chain import ORDERS, PASSES
from dcosnet.dns.query import parse
from dcosnet.model.net import parse_endpoint
from dcosnet.model.zone import Zone, address_record, apex_records


def a(text):
    return address_record(IPv4Address(text))


def addresses(reply):
    return [item.address for rrset in reply.answer for item in rrset if rrset.rdtype in (1, 28)]


def code(reply):
    return dns.rcode.to_text(reply.rcode())


def error(reply):
    return [int(option.code) for option in reply.options if option.otype == dns.edns.OptionType.EDE]


def test_an_address_is_authoritative(server) -> None:
    """The plain case, with the flags of a server that also forwards."""
    reply = server.ask("one.test")
    assert addresses(reply) == ["10.0.0.9"]
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RD
    assert reply.answer[0].ttl == 5


def test_a_type_that_is_not_there_is_no_data(server) -> None:
    """NOERROR with the SOA, whose TTL is the smaller of its own and its minimum (RFC 2308)."""
    reply = server.ask("web.test", "AAAA")
    assert code(reply) == "NOERROR"
    assert reply.answer == []
    assert reply.authority[0].rdtype == dns.rdatatype.SOA
    assert reply.authority[0].ttl == 1
    assert str(reply.authority[0].name) == "test."


def test_an_absent_name_does_not_exist(server) -> None:
    """NXDOMAIN with the SOA of the apex, not of the name."""
    reply = server.ask("nothing.test")
    assert code(reply) == "NXDOMAIN"
    assert str(reply.authority[0].name) == "test."
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["below.gap.test", "gap.test", "_tcp.test"])
def test_an_empty_non_terminal_exists(server, name) -> None:
    """RFC 8020: nothing may be denied that something is below."""
    assert code(server.ask(name)) == "NOERROR"


def test_the_apex_has_soa_and_ns(server) -> None:
    """In the answer section."""
    assert server.ask("test", "SOA").answer[0].rdtype == dns.rdatatype.SOA
    assert str(server.ask("test", "NS").answer[0][0]) == "ns.spartan."


def test_any_gives_all_records(server) -> None:
    """Watchdogs ask ANY and want something."""
    assert sorted(addresses(server.ask("one.test", "ANY"))) == ["10.0.0.9", "fd00::9"]


def test_a_chain_is_followed(server) -> None:
    """CNAMEs first, in their order."""
    reply = server.ask("alias.test")
    assert [str(rrset.name) for rrset in reply.answer] == ["alias.test.", "www.test.", "web.test."]
    assert len(addresses(reply)) == 3


def test_a_chain_that_ends_nowhere_is_denied(server) -> None:
    """The rcode is that of the last name (RFC 2308 2.1)."""
    reply = server.ask("dangling.test")
    assert code(reply) == "NXDOMAIN"
    assert reply.answer[0].rdtype == dns.rdatatype.CNAME


def test_a_cname_asked_for_is_not_followed(server) -> None:
    """Its type matches."""
    assert len(server.ask("alias.test", "CNAME").answer) == 1


def test_a_loop_is_a_failure(server) -> None:
    """Not an endless answer."""
    assert code(server.ask("loop.test")) == "SERVFAIL"


def test_a_chain_that_leaves_without_upstreams_is_given_alone(server) -> None:
    """Somebody else may follow it."""
    reply = server.ask("away.test")
    assert code(reply) == "NOERROR"
    assert str(reply.answer[0][0]) == "host.example."


def test_srv_brings_the_addresses_of_its_target(server) -> None:
    """One question less for the client."""
    reply = server.ask("_web._tcp.test", "SRV")
    assert reply.answer[0][0].port == 80
    assert {str(rrset.name) for rrset in reply.additional} == {"one.test."}


def test_the_longest_zone_answers(serve) -> None:
    """A zone inside another one is not asked of the outer one."""
    inner = Zone(
        "inner.test", {"inner.test": apex_records(), "x.inner.test": (address_record(IPv4Address("10.0.0.2")),)}
    )
    server = serve([Zone("test", {"test": apex_records()}), inner])
    assert addresses(server.ask("x.inner.test")) == ["10.0.0.2"]


def test_the_askers_letters_come_back(server) -> None:
    """0x20: in the question and in the owner, from the full path and from the ready one."""
    for _ in range(3):
        for name in ("wEb.TeSt", "web.test", "WEB.test"):
            reply = server.ask(name)
            assert str(reply.question[0].name) == name + "."
            assert str(reply.answer[0].name) == name + "."
    assert server.count("dcosnet_dns_ready_hits_total") == 8


def test_round_robin_gives_each_record_its_turn_at_the_front(server) -> None:
    """Also from ready answers."""
    first = [addresses(server.ask("web.test"))[0] for _ in range(7)][1:]
    assert sorted(first) == sorted(["10.0.0.1", "10.0.0.2", "10.0.0.3"] * 2)


def test_fixed_order_is_the_zones(serve) -> None:
    """Nothing moves."""
    server = serve(answer_order="fixed")
    assert {tuple(addresses(server.ask("web.test"))) for _ in range(5)} == {("10.0.0.1", "10.0.0.2", "10.0.0.3")}


def test_random_order_holds_all_records(serve) -> None:
    """Whatever comes first."""
    server = serve(answer_order="random")
    orders = {tuple(addresses(server.ask("web.test"))) for _ in range(30)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(["10.0.0.1", "10.0.0.2", "10.0.0.3"])}


def test_random_order_of_two_is_not_decided_once(serve) -> None:
    """A coin that falls once would give one of two backends all that comes."""
    names = [f"two{index}.test" for index in range(20)]
    server = serve([Zone("test", dict.fromkeys(names, (a("10.0.0.1"), a("10.0.0.2"))))], answer_order="random")
    for name in names:
        assert len({addresses(server.ask(name))[0] for _ in range(100)}) == 2


def test_of_a_long_set_every_record_comes_first_equally_often(serve) -> None:
    """Clients take the first: a few kept orders would send all of them to a few backends."""
    count = 40
    server = serve([Zone("test", {"long.test": tuple(a(f"10.2.0.{index}") for index in range(count))})])
    wire = dns.message.make_query("long.test", "A", use_edns=0, payload=1232).to_wire()
    firsts = Counter(server.raw(wire)[12 + 15 + 12 : 12 + 15 + 16] for _ in range(ORDERS * PASSES * ORDERS * count))
    assert len(firsts) == count
    assert max(firsts.values()) < 1.1 * min(firsts.values())


def test_a_set_that_changes_all_the_time_is_still_shared_out(server) -> None:
    """Each change makes the answer anew; it must not begin with the same record each time."""
    firsts = set()
    for _ in range(6):
        firsts.add(addresses(server.ask("web.test"))[0])
        server.publish(frozenset({"web.test"}))
    assert len(firsts) == 3


@pytest.mark.parametrize(
    ("payload", "limit"), [(None, 512), (100, 512), (512, 512), (900, 900), (1232, 1232), (4096, 1232)]
)
def test_udp_is_cut_at_whole_records(server, payload, limit) -> None:
    """The asker's size within [512, 1232]; TC tells that there is more; what is there can be read."""
    query = dns.message.make_query("many.test", "A", use_edns=payload is not None, payload=payload or 0)
    for _ in range(2):
        wire = server.raw(query.to_wire())
        assert limit - 16 < len(wire) <= limit
        reply = dns.message.from_wire(wire)
        assert reply.flags & dns.flags.TC
        assert 20 < len(addresses(reply)) < 120
        assert (reply.edns >= 0) == (payload is not None)


def test_an_opt_is_our_own(server) -> None:
    """Version 0, our size, DO echoed, no options of the asker's."""
    query = dns.message.make_query("one.test", "A", use_edns=0, payload=4096, want_dnssec=True)
    query.use_edns(
        0, dns.flags.DO, 4096, options=[dns.edns.GenericOption(10, b"12345678"), dns.edns.GenericOption(65001, b"")]
    )
    reply = dns.message.from_wire(server.raw(query.to_wire()))
    assert reply.edns == 0
    assert reply.payload == 1232
    assert reply.ednsflags & dns.flags.DO
    assert reply.options == ()


def test_no_opt_for_those_who_sent_none(server) -> None:
    """They may not know what it is."""
    assert server.ask("one.test", use_edns=False).edns == -1


def test_an_unknown_edns_version_is_bad(server) -> None:
    """BADVERS, and no answer."""
    query = dns.message.make_query("one.test", "A", use_edns=1)
    reply = dns.message.from_wire(server.raw(query.to_wire()))
    assert code(reply) == "BADVERS"
    assert reply.answer == []


def test_an_opt_need_not_be_the_first(server) -> None:
    """It is found anywhere in the additional section; a second one is an error."""
    question = b"\3one\4test\0\0\1\0\1"
    other = b"\0\0\1\0\1\0\0\0\0\0\4\1\2\3\4"
    opt = b"\0\0\x29\3\x84\0\0\0\0\0\0"
    head = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 2) + question
    assert dns.message.from_wire(server.raw(head + other + opt)).edns == 0
    assert code(dns.message.from_wire(server.raw(head + opt + opt))) == "FORMERR"


@pytest.mark.parametrize(
    ("wire", "rcode"),
    [
        (struct.pack("!HHHHHH", 7, 0x100, 0, 0, 0, 0), "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x100, 2, 0, 0, 0) + b"\3one\4test\0\0\1\0\1" * 2, "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\3one\4te", "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\3one\xc0\x0c\0\1\0\1", "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\3one\4test\0\0\1\0\1\0", "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 1) + b"\3one\4test\0\0\1\0\1", "FORMERR"),
        (struct.pack("!HHHHHH", 7, 0x2000, 1, 0, 0, 0) + b"\4test\0\0\6\0\1", "NOTIMP"),
        (struct.pack("!HHHHHH", 7, 0x2800, 0, 0, 0, 0), "NOTIMP"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\3one\4test\0\0\1\0\3", "REFUSED"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\4test\0\0\xfc\0\1", "REFUSED"),
        (struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\4test\0\0\xfb\0\1", "REFUSED"),
    ],
)
def test_wrong_queries_are_told_so(server, wire, rcode) -> None:
    """With their id, so that the asker need not wait."""
    reply = server.raw(wire)
    assert reply[:2] == b"\0\7"
    assert reply[2] & 0x80
    assert dns.rcode.to_text(reply[3] & 15) == rcode


@pytest.mark.parametrize(
    "wire", [b"", b"\0\7\1\0\0\1", struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + b"\4test\0\0\1\0\1"]
)
def test_what_is_no_query_is_not_answered(server, wire) -> None:
    """A reply to a reply would go on for ever."""
    assert server.raw(wire) is None
    assert server.count("dcosnet_dns_dropped_total", reason="not_a_query") == 1


def test_absent_names_of_an_unsynced_zone_are_not_denied(serve) -> None:
    """SERVFAIL with its reason; names that are known are answered; later all is well."""
    server = serve()
    server.publish(None, unsynced="agent not heard yet")
    reply = server.ask("nothing.test", use_edns=0)
    assert code(reply) == "SERVFAIL"
    assert error(reply) == [14]
    assert code(server.ask("one.test")) == "NOERROR"
    assert code(server.ask("gap.test")) == "NOERROR"
    assert server.part.ready() == "zone test: agent not heard yet"
    server.publish(None, unsynced=None)
    assert code(server.ask("nothing.test")) == "NXDOMAIN"
    assert server.part.ready() is None


def test_strangers_are_refused_before_anything_is_looked_up(server) -> None:
    """Also when the answer is ready, and with no more octets than they sent."""
    for _ in range(2):
        assert addresses(server.ask("one.test"))
    query = dns.message.make_query("one.test", "A").to_wire()
    reply = server.raw(query, parse_endpoint("192.0.2.1:1234"))
    assert dns.rcode.to_text(reply[3] & 15) == "REFUSED"
    assert len(reply) <= len(query)


queries = st.builds(
    lambda id_, flags, counts, name, tail: struct.pack("!HHHHHH", id_, flags, *counts) + name + tail,
    st.integers(0, 65535),
    st.sampled_from([0, 0x100, 0x8000, 0x120, 0x7900]),
    st.tuples(*[st.sampled_from([0, 1, 1, 2, 65535])] * 4),
    st.sampled_from(
        [b"\3web\4test\0\0\1\0\1", b"\4test\0\0\xff\0\1", b"\1\0\4test\0\0\1\0\1", b"\xc0\x0c", b"\0\0\1\0\1"]
    ),
    st.one_of(st.just(b""), st.binary(max_size=60), st.just(b"\0\0\x29\4\0\0\0\0\0\0\0")),
)


@given(wire=st.one_of(st.binary(max_size=100), queries))
def test_no_packet_does_harm(packets, wire) -> None:
    """Whatever comes is answered by something that can be read, or dropped; replies never are answered."""
    reply = packets.raw(wire)
    if len(wire) < 12 or wire[2] & 0x80:
        assert reply is None
        assert parse(wire) is None
    else:
        parsed = dns.message.from_wire(reply)
        assert parsed.id == wire[0] << 8 | wire[1]
        assert parsed.flags & dns.flags.QR
        assert len(reply) <= 1232
