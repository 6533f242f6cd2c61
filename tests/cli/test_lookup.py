"""The command's DNS client, against servers of a thread and messages of dnspython."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.cli.lookup import read_reply

from .conftest import FakeDaemon

Run = Callable[..., Result]

Answering = Callable[[dns.message.Message], list[bytes]]


@attrs.define
class Server:
    """Answers UDP with the datagrams that `udp` makes of a query, TCP with the first that `tcp` makes."""

    port: int = 0
    udp: Answering = lambda _query: []
    tcp: Answering = lambda _query: []


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        serving.port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", serving.port))

        def datagrams() -> None:
            while True:
                data, client = udp.recvfrom(4096)
                if not data:
                    return
                for reply in serving.udp(dns.message.from_wire(data)):
                    udp.sendto(reply, client)

        def streams() -> None:
            while True:
                connection, _ = tcp.accept()
                with connection:
                    length = connection.recv(2, socket.MSG_WAITALL)
                    if not length:
                        return
                    data = connection.recv(struct.unpack("!H", length)[0], socket.MSG_WAITALL)
                    for reply in serving.tcp(dns.message.from_wire(data)):
                        connection.sendall(struct.pack("!H", len(reply)) + reply)

        threads = [threading.Thread(target=datagrams), threading.Thread(target=streams)]
        for thread in threads:
            thread.start()
        yield serving
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", serving.port))
        socket.create_connection(("127.0.0.1", serving.port)).close()
        for thread in threads:
            thread.join()


@pytest.fixture
def resolve(run: Run, daemon: FakeDaemon, server: Server) -> Run:
    """`dcosnet resolve` of a daemon whose DNS server is ours."""
    facts = {"listen": [f"0.0.0.0:{server.port}"]}
    parts = {"dns": {"ready": True, "reason": None, "facts": facts}}
    daemon.replies["GET /v1/status"] = (200, {"node": "a", "parts": parts})
    return lambda *arguments: run("--api", daemon.url, "resolve", *arguments)


def answered(query: dns.message.Message, *texts: str, rcode: int = 0) -> dns.message.Message:
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.Rcode(rcode))
    for text in texts:
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", *text.split(" ", 1)))
    return reply


def test_answers_are_shown(resolve: Run, server: Server) -> None:
    """Name, TTL, type and data."""
    server.udp = lambda query: [answered(query, "A 127.0.0.1").to_wire()]
    result = resolve("Web.Example.")
    assert result.exit_code == 0
    assert result.output.splitlines() == ["NAME         TTL  TYPE  DATA", "web.example  5    A     127.0.0.1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A 10.0.0.1", "10.0.0.1"),
        ("AAAA fd01::1", "fd01::1"),
        ("CNAME other.example.", "other.example."),
        ("SRV 1 2 80 host.example.", "1 2 80 host.example."),
        ("MX 10 mail.example.", "10 mail.example."),
        ('TXT "a \\"b\\"" "c"', '"a \\"b\\"" "c"'),
        ("SOA ns.example. root.example. 1 2 3 4 5", "ns.example. root.example. 1 2 3 4 5"),
        ("TYPE999 \\# 2 abcd", "\\# 2 abcd"),
    ],
)
def test_each_type_is_shown_as_in_zone_files(resolve: Run, server: Server, text: str, shown: str) -> None:
    """dnspython makes the wire form, with names compressed."""
    server.udp = lambda query: [answered(query, text).to_wire()]
    told = json.loads(resolve("x.example", "ANY", "-o", "json").output)
    assert [answer["data"] for answer in told["answers"]] == [shown]
    assert told["rcode"] == "NOERROR"


@pytest.mark.parametrize(("rcode", "name"), [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED"), (16, "RCODE16")])
def test_failure_is_exit_code_1_with_the_servers_reason(resolve: Run, server: Server, rcode: int, name: str) -> None:
    """The extended error (RFC 8914) says what the rcode cannot; upper bits of the rcode count."""

    def reply(query: dns.message.Message) -> list[bytes]:
        message = answered(query)
        message.use_edns(0, options=[dns.edns.EDEOption(14, "files not read yet")])
        message.set_rcode(dns.rcode.Rcode(rcode))
        return [message.to_wire()]

    server.udp = reply
    result = resolve("x.example")
    assert (result.exit_code, result.stderr) == (1, f"x.example: {name}: files not read yet\n")


def test_name_without_such_records_is_no_failure(resolve: Run, server: Server) -> None:
    """NODATA is an answer."""
    server.udp = lambda query: [answered(query).to_wire()]
    result = resolve("x.example", "aaaa")
    assert (result.exit_code, result.stderr) == (0, "x.example: exists, and has no AAAA record\n")


def test_cut_answer_is_asked_again_over_tcp(resolve: Run, server: Server) -> None:
    """The whole answer, whatever its size."""

    def cut(query: dns.message.Message) -> list[bytes]:
        reply = answered(query)
        reply.flags |= dns.flags.TC
        return [reply.to_wire()]

    server.udp = cut
    server.tcp = lambda query: [answered(query, *(f"A 10.0.{n}.1" for n in range(200))).to_wire(max_size=65535)]
    assert len(resolve("x.example").output.splitlines()) == 201


def test_reply_that_was_not_asked_for_is_passed_over(resolve: Run, server: Server) -> None:
    """A wrong id, another question and bytes that are no message are not taken for the answer."""

    def replies(query: dns.message.Message) -> list[bytes]:
        forged = bytearray(answered(query, "A 6.6.6.6").to_wire())
        forged[0] ^= 1
        other = answered(dns.message.make_query("y.example", "A", id=query.id), "A 6.6.6.6").to_wire()
        return [bytes(forged), other, b"\0", query.to_wire(), answered(query, "A 127.0.0.1").to_wire()]

    server.udp = replies
    result = resolve("x.example")
    assert "6.6.6.6" not in result.output
    assert "127.0.0.1" in result.output


def test_lost_datagram_is_sent_again(resolve: Run, server: Server) -> None:
    """One loss does not fail the command."""
    seen: list[int] = []

    def second(query: dns.message.Message) -> list[bytes]:
        seen.append(query.id)
        return [answered(query, "A 127.0.0.1").to_wire()] if len(seen) > 1 else []

    server.udp = second
    assert resolve("x.example", "--timeout", "200ms").exit_code == 0


def test_silent_server_is_exit_code_5(resolve: Run) -> None:
    """It ends within the time that was given."""
    result = resolve("x.example", "--timeout", "20ms")
    assert result.exit_code == 5
    assert "within 20ms" in result.stderr


def test_reply_that_cannot_be_read_is_a_failure(resolve: Run, server: Server) -> None:
    """Not a traceback."""
    server.udp = lambda query: [answered(query, "A 127.0.0.1").to_wire()[:-3]]
    result = resolve("x.example")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


def test_node_without_dns_is_told(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """The part may be switched off."""
    daemon.replies["GET /v1/status"] = (200, {"node": "a", "parts": {}})
    result = run("--api", daemon.url, "resolve", "x")
    assert result.exit_code == 1
    assert "a serves no DNS" in result.stderr


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """What the network sends raises nothing but ValueError."""
    for message in (data, b"\0\0\x80\0\0\0\0\1\0\0\0\1" + data):
        with suppress(ValueError):
            read_reply(message)
