"""Forwarding over a network in memory: what goes out, and what is believed of what comes back."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from dcosnet.dns.upstream import IN_FLIGHT
from dcosnet.model.net import parse_endpoint
from dcosnet.testing.memory_udp import Datagram

UP = [parse_endpoint(f"10.0.0.{index}:53") for index in (1, 2, 3)]


class FakeUpstream:
    """Answers every question with one address, or as told."""

    def __init__(self, server, endpoint, address="192.0.2.1") -> None:
        self.endpoint = endpoint
        self.asked: list[dns.message.Message] = []
        self.rcode = dns.rcode.NOERROR
        self.silent = False
        self.flags = 0
        self.count = 1
        self.address = address
        self._socket = server.udp.bind(endpoint)
        self._socket.start(self.receive)

    def receive(self, data, _sender):
        query = dns.message.from_wire(data)
        self.asked.append(query)
        return None if self.silent else self.reply(query)

    def reply(self, query) -> bytes:
        message = dns.message.make_response(query, recursion_available=True, our_payload=4096)
        message.set_rcode(self.rcode)
        message.flags |= self.flags
        if self.rcode == dns.rcode.NOERROR:
            values = [f"192.0.2.{index}" for index in range(1, self.count + 1)]
            values[0] = self.address
            message.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *values))
        return message.to_wire(max_size=65535)


@pytest.fixture
def two(serve):
    server = serve(upstreams=("10.0.0.1", "10.0.0.2"))
    return server, FakeUpstream(server, UP[0]), FakeUpstream(server, UP[1], "192.0.2.2")


def ask(server, name="host.example", type_="A", **options):
    query = dns.message.make_query(name, type_, **options)
    reply = server.raw(query.to_wire())
    if reply is None:
        return None
    parsed = dns.message.from_wire(reply)
    assert query.is_response(parsed)
    assert parsed.flags & dns.flags.RA
    return parsed


def later(server, seconds):
    """The reply after some time has passed."""
    for _ in range(round(seconds / 0.05)):
        server.net.advance(0.05)
        server.udp.deliver()
    return dns.message.from_wire(server.inbox.pop()) if server.inbox else None


def test_a_foreign_name_is_asked_of_two(two) -> None:
    """And answered as the first says."""
    server, one, other = two
    reply = ask(server)
    assert reply.answer[0][0].address in ("192.0.2.1", "192.0.2.2")
    assert len(one.asked) == len(other.asked) == 1
    assert server.count("dcosnet_dns_forwarded_total") == 1


def test_ids_and_ports_are_not_the_askers(two) -> None:
    """Ids are fresh for each upstream; several ports take turns."""
    server, one, other = two
    for index in range(8):
        ask(server, f"h{index}.example", id=7)
    assert len({query.id for query in one.asked + other.asked}) > 8
    sources = {datagram.source for datagram in server.udp.sent if datagram.target == UP[0]}
    assert len(sources) == 4


def test_a_failure_of_one_is_not_the_answer(two) -> None:
    """The other's answer is waited for."""
    server, one, other = two
    one.rcode = dns.rcode.SERVFAIL
    assert ask(server).answer[0][0].address == "192.0.2.2"
    other.rcode = dns.rcode.REFUSED
    assert ask(server, "b.example").rcode() in (dns.rcode.SERVFAIL, dns.rcode.REFUSED)
    assert server.count("dcosnet_dns_upstream_failures_total", reason="rcode") == 3


def test_a_silent_pair_brings_in_a_third(serve) -> None:
    """Well before the asker gives up."""
    server = serve(upstreams=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    ups = [FakeUpstream(server, endpoint) for endpoint in UP]
    ups[0].silent = ups[1].silent = True
    assert ask(server) is None
    assert later(server, 0.4).answer
    assert len(ups[2].asked) == 1


def test_a_dead_upstream_is_soon_asked_last(serve) -> None:
    """With three, the two that answer are asked; and after a while it gets another try."""
    server = serve(upstreams=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    ups = [FakeUpstream(server, endpoint) for endpoint in UP]
    ups[0].silent = True
    ask(server)
    later(server, 3)
    assert server.count("dcosnet_dns_upstream_failures_total", reason="timeout") == 1
    before = len(ups[0].asked)
    for index in range(5):
        assert ask(server, f"h{index}.example").answer
    assert len(ups[0].asked) == before
    server.net.advance(300)
    ask(server, "later.example")
    assert len(ups[0].asked) == before + 1
    later(server, 3)


def test_nobody_reachable_is_told(two) -> None:
    """SERVFAIL that is a reply, with the reason, at the deadline."""
    server, one, other = two
    one.silent = other.silent = True
    assert ask(server, use_edns=0) is None
    assert later(server, 2.2) is None
    reply = later(server, 0.4)
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert reply.flags & dns.flags.QR
    assert [int(option.code) for option in reply.options] == [22]


def test_closed_ports_are_known_at_once(serve) -> None:
    """ICMP says so."""
    server = serve(upstreams=("10.0.0.1",))
    assert ask(server).rcode() == dns.rcode.SERVFAIL
    assert server.count("dcosnet_dns_upstream_failures_total", reason="refused") == 1


def test_without_upstreams_foreign_names_are_refused(server) -> None:
    """So that the asker turns to somebody else."""
    assert ask(server).rcode() == dns.rcode.REFUSED


def test_private_names_are_not_asked_of_anybody(two) -> None:
    """They are refused with a reason."""
    server, one, _ = two
    reply = ask(server, "x.unknown.thisdcos.directory", use_edns=0)
    assert reply.rcode() == dns.rcode.REFUSED
    assert [int(option.code) for option in reply.options] == [20]
    assert one.asked == []


def test_a_forward_zone_has_servers_of_its_own(serve) -> None:
    """And nobody else is asked."""
    server = serve(upstreams=("10.0.0.1",), forward_zones={"Corp.Example.": ("10.0.0.2",)})
    one, other = FakeUpstream(server, UP[0]), FakeUpstream(server, UP[1])
    ask(server, "a.corp.example")
    assert (len(one.asked), len(other.asked)) == (0, 1)


def test_equal_questions_under_way_are_asked_once(two) -> None:
    """Each asker gets its own id and letters."""
    server, one, other = two
    one.silent = other.silent = True
    for id_, name in ((1, "host.example"), (2, "HOST.example")):
        server.send(dns.message.make_query(name, "A", id=id_).to_wire())
    assert len(one.asked) == 1
    one.silent = False
    server.net.advance(0.35)
    server.udp.deliver()
    replies = [dns.message.from_wire(wire) for wire in server.inbox]
    assert [(reply.id, str(reply.question[0].name)) for reply in replies] == [
        (1, "host.example."),
        (2, "HOST.example."),
    ]
    later(server, 3)


def test_types_that_look_like_letters_are_not_merged(two) -> None:
    """HTTPS is type 65, "A"; type 97 is "a", and another question."""
    server, one, other = two
    one.silent = other.silent = True
    for type_ in ("TYPE65", "TYPE97"):
        assert ask(server, type_=type_) is None
    assert [int(query.question[0].rdtype) for query in one.asked] == [65, 97]
    later(server, 3)


def test_too_much_under_way_is_shed_with_a_reply(two) -> None:
    """Counted, and SERVFAIL at once."""
    server, one, other = two
    one.silent = other.silent = True
    for index in range(IN_FLIGHT):
        server.send(dns.message.make_query(f"h{index}.example", "A").to_wire())
    assert server.inbox == []
    assert ask(server, "one-more.example").rcode() == dns.rcode.SERVFAIL
    assert server.count("dcosnet_dns_shed_total") == 1
    assert ask(server, "web.test").rcode() == dns.rcode.NOERROR
    later(server, 3)
    one.silent = False
    assert ask(server, "again.example").answer
    later(server, 3)


@pytest.mark.parametrize("what", ["id", "question", "query", "sender"])
def test_a_forged_reply_is_not_believed(two, what) -> None:
    """Wrong id, wrong question, not a reply, or not from whom was asked."""
    server, one, other = two
    one.silent = other.silent = True
    assert ask(server) is None
    query = one.asked[0]
    sent = next(datagram for datagram in server.udp.sent if datagram.target == UP[0])
    forged = bytearray(one.reply(query))
    source = UP[0]
    if what == "id":
        forged[0] ^= 1
    elif what == "question":
        forged[13] ^= 1
    elif what == "query":
        forged[2] &= 0x7F
    else:
        source = parse_endpoint("10.0.0.1:5353")
    server.udp.carry(Datagram(source, sent.source, bytes(forged)))
    server.udp.deliver()
    assert server.inbox == []
    server.udp.carry(Datagram(UP[0], sent.source, one.reply(query)))
    server.udp.deliver()
    assert len(server.inbox) == 1
    later(server, 3)


def test_options_stay_between_neighbours(two) -> None:
    """Cookies do not travel; DO, CD and RD do."""
    server, one, _ = two
    query = dns.message.make_query("host.example", "A")
    query.use_edns(0, dns.flags.DO, 4096, options=[dns.edns.GenericOption(10, b"12345678")])
    query.flags |= dns.flags.CD
    server.raw(query.to_wire())
    asked = one.asked[0]
    assert asked.options == ()
    assert asked.payload == 1232
    assert asked.ednsflags & dns.flags.DO
    assert asked.flags & (dns.flags.CD | dns.flags.RD) == dns.flags.CD | dns.flags.RD


def test_who_sent_no_edns_gets_none(two) -> None:
    """A stub without EDNS is asked for without it."""
    server, one, _ = two
    assert ask(server, use_edns=False).edns == -1
    assert one.asked[0].edns == -1


def test_truncation_of_an_upstream_is_passed_on(two) -> None:
    """The client then comes by TCP."""
    server, one, other = two
    one.flags = other.flags = dns.flags.TC
    assert ask(server).flags & dns.flags.TC


def test_what_is_too_long_for_the_asker_is_cut(two) -> None:
    """An upstream that does not keep to the size."""
    server, one, other = two
    one.count = other.count = 60
    reply = ask(server, use_edns=0, payload=600)
    assert reply.flags & dns.flags.TC
    assert reply.answer == []


def test_a_chain_that_leaves_our_zones_is_followed(two) -> None:
    """Our alias and the upstream's records in one answer, under the asker's own question."""
    server, one, _ = two
    for _ in range(2):
        reply = ask(server, "away.test")
        assert [str(rrset.name) for rrset in reply.answer] == ["away.test.", "host.example."]
    assert str(one.asked[0].question[0].name) == "host.example."
    one.rcode = dns.rcode.NXDOMAIN


def test_a_chain_to_an_absent_name_is_denied(two) -> None:
    """As the upstream says."""
    server, one, other = two
    one.rcode = other.rcode = dns.rcode.NXDOMAIN
    reply = ask(server, "away.test")
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert len(reply.answer) == 1
