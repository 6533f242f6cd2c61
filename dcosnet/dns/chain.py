"""
A query in full: refuse, answer from our zones, or ask upstreams.

What comes out of our zones for a plain query over UDP is put among the ready
answers. Local data are never asked of anybody else, nor names that are ours by
convention though no zone here holds them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from itertools import cycle, repeat
from random import Random
from typing import Any

import attrs
import msgspec
from twisted.logger import Logger

from dcosnet.dns.answers import Answers, key_of
from dcosnet.dns.edns import OPT, ErrorCode, ExtendedError, opt_record
from dcosnet.dns.forward import Routes
from dcosnet.dns.metrics import Counts
from dcosnet.dns.query import AD, CD, CLASS_IN, HEADER, RD, TC, Query, Rcode, parse
from dcosnet.dns.reply import TCP_MAX, Message, Owned, relay, render, udp_limit
from dcosnet.dns.upstream import Forwarder
from dcosnet.dns.wire import expand, folded, places, wire_of
from dcosnet.dns.zone import Found, Zones

log = Logger()

ORDERS = 16  # of one record set that are kept ready
PASSES = 4  # through them before one is made anew: it costs ten times what it saves

Send = Callable[[bytes, Any], object]
"""Sends a reply that took time to a sender."""


class AnswerOrder(StrEnum):
    """How the records asked for are ordered; every order holds all of them."""

    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    FIXED = "fixed"


class _Asker(msgspec.Struct, frozen=True):
    """To whom a reply goes that takes time."""

    query: Query
    limit: int
    send: Send
    sender: Any


class Chain:
    """The full path of every query that no ready answer serves."""

    def __init__(
        self,
        zones: Zones,
        answers: Answers,
        routes: Routes,
        forwarder: Forwarder,
        counts: Counts,
        *,
        order: AnswerOrder,
        rng: Random,
        udp_size: int,
    ) -> None:
        self._zones = zones
        self._answers = answers
        self._routes = routes
        self._forwarder = forwarder
        self._counts = counts
        self._order = order
        self._rng = rng
        self._udp_size = udp_size
        self._turn = 0

    def ask(self, message: bytes, tcp: bool, send: Send, sender: Any) -> bytes | None:
        """
        The reply; or None when there is none, or when it takes time and goes to `send(reply, sender)`.

        Never raises: what goes wrong inside is logged and told as SERVFAIL.
        """
        query = parse(message)
        if query is None:
            self._counts.dropped["not_a_query"] += 1
            return None
        limit = TCP_MAX if tcp else udp_limit(query, self._udp_size)
        try:
            reply = self._ask(message, query, tcp, _Asker(query, limit, send, sender))
        except Exception:  # noqa: BLE001 - one of the three catch-alls of the project
            log.failure("A query for {name} type {type} failed", name=query.name, type=query.type)
            reply = render(query, Message(Rcode.SERVFAIL), limit, self._udp_size)
        if reply is not None:
            self._counts.replies[reply[3] & 0xF] += 1
        return reply

    def refuse(self, message: bytes) -> bytes | None:
        """The reply to somebody who may not ask: REFUSED, no longer than the query."""
        query = parse(message)
        if query is None:
            self._counts.dropped["not_a_query"] += 1
            return None
        self._counts.replies[Rcode.REFUSED] += 1
        bare = Query(query.id, query.flags, query.question, query.name)
        return render(bare, Message(Rcode.REFUSED), TCP_MAX, self._udp_size)

    def _ask(self, message: bytes, query: Query, tcp: bool, asker: _Asker) -> bytes | None:
        if query.problem is not None:
            return self._fail(asker, query.problem.rcode, query.problem.error)
        found = self._zones.resolve(query.name, query.type)
        if found is None:
            return self._forward(query, tcp, asker)
        if found.outside is not None:
            return self._follow(query, found, found.outside, tcp, asker)
        if not tcp and query.plain and found.lasting:
            return self._keep(message, query, found, asker.limit)
        self._turn += 1
        return render(query, self._ordered(found, self._turn), asker.limit, self._udp_size)

    def _fail(self, asker: _Asker, rcode: Rcode, error: ExtendedError | None = None) -> bytes:
        return render(asker.query, Message(rcode, error=error), asker.limit, self._udp_size)

    # --- our zones ------------------------------------------------------------

    def _ordered(self, found: Found, turn: int) -> Message:
        """The outcome with its records in the order of this turn; a chain stays in front."""
        records = list(found.message.answer[found.cnames :])
        if len(records) < 2 or self._order is AnswerOrder.FIXED:
            return found.message
        if self._order is AnswerOrder.RANDOM:
            self._rng.shuffle(records)
        else:
            first = turn % len(records)
            records = records[first:] + records[:first]
        return attrs.evolve(found.message, answer=[*found.message.answer[: found.cnames], *records])

    def _keep(self, message: bytes, query: Query, found: Found, limit: int) -> bytes:
        """Make the answer one of the ready ones, and give the first of its orders to this asker."""
        key = key_of(message, HEADER.size + len(query.question))
        end = HEADER.size - 2 + len(query.question)
        canonical = _with_name(query, key[10 : end - 4])

        def make(turn: int) -> bytes:
            return render(canonical, self._ordered(found, turn), limit, self._udp_size)[2:]

        choices = len(found.message.answer) - found.cnames
        bodies, orders = self._taking_turns(make, choices)
        body = next(bodies)
        negative = found.message.rcode is not Rcode.NOERROR or not found.message.answer
        self._answers.put(
            key, bodies, found.names, about=query.name, octets=orders * (len(body) + len(key)), negative=negative
        )
        return message[:2] + body[: HEADER.size - 2] + query.question + body[end:]

    def _taking_turns(self, make: Callable[[int], bytes], choices: int) -> tuple[Iterator[bytes], int]:
        """The orders of an answer without end, each made when it is first needed, and how many are held."""
        if choices < 2 or self._order is AnswerOrder.FIXED:
            return repeat(make(0)), 1
        # Not from the first record: a zone that changes all the time would give that to everybody.
        self._turn += 1
        if choices <= ORDERS and self._order is AnswerOrder.ROUND_ROBIN:
            return cycle(map(make, range(self._turn, self._turn + choices))), choices
        return _moving(make, self._turn, choices), ORDERS

    # --- everybody else's -----------------------------------------------------

    def _forward(self, query: Query, tcp: bool, asker: _Asker) -> bytes | None:
        servers = self._routes.find(query.name)
        if servers is None:
            text = "a private name that no zone of this server holds"
            return self._fail(asker, Rcode.REFUSED, ExtendedError(ErrorCode.NOT_AUTHORITATIVE, text))
        if not servers:
            return self._fail(
                asker, Rcode.REFUSED, ExtendedError(ErrorCode.NOT_AUTHORITATIVE, "no upstream is configured")
            )
        body = self._body(query, query.question)
        done = partial(self._relay, asker)
        if not self._forwarder.ask(body, folded(query.question), tcp, servers, done):
            return self._fail(asker, Rcode.SERVFAIL, ExtendedError(ErrorCode.OTHER, "too many queries under way"))
        return None

    def _relay(self, asker: _Asker, reply: bytes | None) -> None:
        if reply is None:
            self._give(asker, self._unreachable(asker))
        else:
            self._give(asker, relay(asker.query, reply, asker.limit, self._udp_size))

    def _follow(self, query: Query, found: Found, target: str, tcp: bool, asker: _Asker) -> bytes | None:
        """A chain of ours that leaves our zones: ask for its end, and give both as one answer."""
        servers = self._routes.find(target)
        if not servers:
            return render(query, found.message, asker.limit, self._udp_size)
        question = wire_of(target) + struct.pack("!HH", query.type, CLASS_IN)
        body = self._body(query, question)
        done = partial(self._join, asker, found, len(question))
        if not self._forwarder.ask(body, question, tcp, servers, done):
            return self._fail(asker, Rcode.SERVFAIL, ExtendedError(ErrorCode.OTHER, "too many queries under way"))
        return None

    def _join(self, asker: _Asker, found: Found, length: int, reply: bytes | None) -> None:
        message = None if reply is None else _continued(found, reply, HEADER.size + length)
        if reply is None or message is None:
            self._give(asker, self._unreachable(asker))
            return
        data = render(asker.query, message, asker.limit, self._udp_size)
        if reply[2] & TC >> 8:
            data = data[:2] + bytes((data[2] | TC >> 8,)) + data[3:]
        self._give(asker, data)

    def _unreachable(self, asker: _Asker) -> bytes:
        error = ExtendedError(ErrorCode.NO_REACHABLE_AUTHORITY, "no upstream gave an answer")
        return self._fail(asker, Rcode.SERVFAIL, error)

    def _give(self, asker: _Asker, reply: bytes) -> None:
        self._counts.replies[reply[3] & 0xF] += 1
        asker.send(reply, asker.sender)

    def _body(self, query: Query, question: bytes) -> bytes:
        """
        Our own query without its id: the asker's flags, and an OPT iff the asker sent one.

        Options stay behind: cookies and the like are between neighbours (RFC 7873).
        """
        flags = query.flags & (RD | CD | AD)
        head = struct.pack("!HHHHH", flags, 1, 0, 0, 0 if query.edns is None else 1)
        if query.edns is None:
            return head + question
        return head + question + opt_record(self._udp_size, do=query.edns.do)


def _with_name(query: Query, name: bytes) -> Query:
    """The same query, its name written as given."""
    return Query(query.id, query.flags, name + query.question[-4:], query.name, query.type, query.edns)


def _moving(make: Callable[[int], bytes], start: int, choices: int) -> Iterator[bytes]:
    """
    ORDERS orders at a time, evenly apart.

    One is replaced by its successor each PASSES rounds, so that in the long run
    every record has been the first equally often.
    """
    turns = [start + index * choices // ORDERS for index in range(ORDERS)]
    bodies = []
    for turn in turns:
        bodies.append(make(turn))
        yield bodies[-1]
    for index in cycle(range(ORDERS)):
        for _ in range(PASSES):
            yield from bodies
        turns[index] += 1
        bodies[index] = make(turns[index])


def _continued(found: Found, reply: bytes, at: int) -> Message | None:
    """Our chain with what an upstream says of its end; None when that cannot be read."""
    _, _, _, answers, authorities, _ = HEADER.unpack_from(reply)
    rcode = reply[3] & 0xF
    try:
        records: list[Owned] = [
            expand(reply, place) for place in places(reply, at, answers + authorities) if place.type != OPT
        ]
    except ValueError:
        return None
    if rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Message(Rcode.SERVFAIL, error=ExtendedError(ErrorCode.OTHER, f"the end of the chain gave rcode {rcode}"))
    return Message(Rcode(rcode), [*found.message.answer, *records[:answers]], records[answers:], authoritative=True)
