"""
The servers that we forward to: sockets, what is outstanding, and the race.

A reply counts only if it comes on the connected socket that asked, with the id
and the question that went out. `forward` decides whom to ask and whose reply to
take; here is what that needs of the world.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from dcosnet.dns.forward import DEADLINE, Race, Score
from dcosnet.dns.metrics import Counts
from dcosnet.dns.wire import folded
from dcosnet.io.udp import Datagrams, Sender, Udp
from dcosnet.model.net import Endpoint

log = Logger()

SOCKETS = 4  # per upstream: a forger must guess a port as well as an id
IN_FLIGHT = 1024
TICK = 0.05  # s: one timer for all races, since one each costs more than the race
TIMEOUT = DEADLINE
_IDS = 512  # drawn at a time: a system call for each would be a tenth of the work

Done = Callable[["bytes | None"], None]


def _random_ids() -> Iterator[int]:
    """Ids that nobody can guess, drawn from the system many at a time."""
    while True:
        yield from memoryview(secrets.token_bytes(_IDS * 2)).cast("H")


_ids = _random_ids()


class _Pending:
    """A datagram that went out, and who wants its reply."""

    __slots__ = ("asked", "done", "id", "question", "table")

    def __init__(self, id_: int, question: bytes, asked: float, done: Done, table: dict[int, _Pending]) -> None:
        self.id = id_
        self.question = question
        self.asked = asked
        self.done = done
        self.table = table


def _matches(message: bytes, question: bytes) -> bool:
    """Whether a message is a reply to a query with this question (its name in lower case)."""
    if message[2] & 0xF8 != 0x80:  # QR, and opcode QUERY
        return False
    if message[4:6] == b"\0\1":
        return folded(message[12 : 12 + len(question)]) == question
    # Some servers say FORMERR and the like with a header alone.
    return message[4:6] == b"\0\0" and len(message) == 12 and bool(message[3] & 0xF)


class Upstream:
    """One server: a pool of connected sockets, and its score."""

    def __init__(self, endpoint: Endpoint, udp: Udp, reactor: Any, counts: Counts) -> None:
        self.endpoint = endpoint
        self.score = Score()
        self._udp = udp
        self._reactor = reactor
        self._counts = counts
        self._sockets: list[tuple[Datagrams, dict[int, _Pending]]] = []
        self._turn = 0
        self._queue: deque[_Pending] = deque()
        self._connections: set[_TcpExchange] = set()

    def ask(self, body: bytes, question: bytes, done: Done) -> bool:
        """Send a query, given without its id; False when it cannot be sent. `done` is called once, later."""
        if len(self._sockets) < SOCKETS and not self._open():
            return False
        self._turn += 1
        sock, table = self._sockets[self._turn % len(self._sockets)]
        id_ = next(_ids)
        while id_ in table:
            id_ = next(_ids)
        if not sock.send(id_.to_bytes(2, "big") + body):
            self._failed("unreachable")
            return False
        pending = _Pending(id_, question, self._reactor.seconds(), done, table)
        table[id_] = pending
        self._queue.append(pending)
        return True

    def ask_tcp(self, body: bytes, question: bytes, done: Done) -> None:
        """The same over a connection of its own."""
        kind = TCP4ClientEndpoint if self.endpoint.address.version == 4 else TCP6ClientEndpoint
        target = kind(self._reactor, str(self.endpoint.address), self.endpoint.port, timeout=TIMEOUT)
        asked = self._reactor.seconds()
        exchange = _TcpExchange(secrets.token_bytes(2) + body, question)
        waiting = exchange.reply.addTimeout(TIMEOUT, self._reactor)
        connecting = connectProtocol(target, exchange)
        self._connections.add(exchange)

        def ended(result: object) -> object:
            self._connections.discard(exchange)
            connecting.cancel()
            exchange.close()
            return result

        def answered(reply: bytes) -> None:
            self.score.answered(self._reactor.seconds() - asked, self._reactor.seconds())
            done(reply)

        def failed(_reason: Failure) -> None:
            self._failed("tcp")
            done(None)

        connecting.addErrback(exchange.fail)
        waiting.addBoth(ended)
        waiting.addCallbacks(answered, failed)
        waiting.addErrback(
            lambda reason: log.failure("A reply of {upstream} was not taken", reason, upstream=str(self.endpoint))
        )

    def expire(self, now: float) -> None:
        """Give up what is older than TIMEOUT."""
        queue = self._queue
        while queue:
            pending = queue[0]
            alive = pending.table.get(pending.id) is pending
            if alive and now - pending.asked < TIMEOUT:
                return
            queue.popleft()
            if alive:
                del pending.table[pending.id]
                self._failed("timeout")
                pending.done(None)

    @property
    def outstanding(self) -> bool:
        """Whether something is waited for over UDP."""
        return bool(self._queue)

    def close(self) -> None:
        """Drop everything; nobody is called any more."""
        for sock, table in self._sockets:
            table.clear()
            sock.close()
        self._sockets.clear()
        self._queue.clear()
        for exchange in tuple(self._connections):
            exchange.reply.cancel()

    def _open(self) -> bool:
        table: dict[int, _Pending] = {}

        def receive(data: bytes, _sender: Sender) -> None:
            self._receive(table, data)

        try:
            sock = self._udp.connect(self.endpoint)
        except OSError:
            self._failed("unreachable")
            return bool(self._sockets)
        sock.start(receive, lambda: self._refused(table))
        self._sockets.append((sock, table))
        return True

    def _receive(self, table: dict[int, _Pending], data: bytes) -> None:
        pending = table.get(data[0] << 8 | data[1]) if len(data) >= 12 else None
        if pending is None or not _matches(data, pending.question):
            self._counts.dropped["unmatched_reply"] += 1
            return
        del table[pending.id]
        queue = self._queue
        while queue and queue[0].table.get(queue[0].id) is not queue[0]:
            queue.popleft()
        now = self._reactor.seconds()
        self.score.answered(now - pending.asked, now)
        pending.done(data if data[4:6] == b"\0\1" else None)

    def _refused(self, table: dict[int, _Pending]) -> None:
        """Nobody listens there: what waits on this socket waits in vain."""
        waiting = list(table.values())
        table.clear()
        if waiting:
            self._failed("refused")
        for pending in waiting:
            pending.done(None)

    def _failed(self, reason: str) -> None:
        self._counts.upstream_failures[reason] += 1
        self.score.failed(self._reactor.seconds())


class _TcpExchange(Int16StringReceiver):
    """One query and its reply over a connection."""

    transport: Any

    def __init__(self, message: bytes, question: bytes) -> None:
        self.reply: Deferred[bytes] = Deferred()
        self._message = message
        self._question = question
        self._done = False

    def connectionMade(self) -> None:
        self.sendString(self._message)

    def stringReceived(self, string: bytes) -> None:
        if (
            len(string) >= 12
            and string[:2] == self._message[:2]
            and _matches(string, self._question)
            and not self._done
        ):
            self._done = True
            self.reply.callback(string)

    def connectionLost(self, reason: Failure = Failure(ConnectionError("closed"))) -> None:  # noqa: B008
        self.fail(reason)

    def fail(self, reason: Failure) -> None:
        """No reply will come."""
        if not self._done:
            self._done = True
            self.reply.errback(reason)

    def close(self) -> None:
        """Forget the connection."""
        self._done = True
        if self.transport is not None:
            self.transport.abortConnection()


class _Exchange:
    """One question under way, with all who asked it meanwhile."""

    __slots__ = ("body", "key", "question", "race", "tcp", "waiters")

    def __init__(self, key: bytes, body: bytes, question: bytes, tcp: bool, race: Race[Upstream]) -> None:
        self.key = key
        self.body = body
        self.question = question
        self.tcp = tcp
        self.race = race
        self.waiters: list[Done] = []


class Forwarder:
    """Asks upstreams, merging identical questions and bounding all that is under way."""

    def __init__(self, endpoints: Sequence[Endpoint], udp: Udp, reactor: Any, counts: Counts) -> None:
        self.upstreams = {endpoint: Upstream(endpoint, udp, reactor, counts) for endpoint in endpoints}
        self._reactor = reactor
        self._counts = counts
        self._exchanges: dict[bytes, _Exchange] = {}
        self._waiting = 0
        self._timer: IDelayedCall | None = None

    def ask(self, body: bytes, question: bytes, tcp: bool, endpoints: Sequence[Endpoint], done: Done) -> bool:
        """
        Ask; `done(reply, or None when nobody gave one)` is called once, perhaps before this returns.

        `body` is a query without its id, `question` its question with the name in lower case.
        False when too much is under way: then `done` is not called.
        """
        if self._waiting >= IN_FLIGHT:
            self._counts.shed += 1
            return False
        self._waiting += 1
        key = body[:10] + question + body[10 + len(question) :] + (b"t" if tcp else b"u")
        exchange = self._exchanges.get(key)
        if exchange is not None:
            exchange.waiters.append(done)
            return True
        now = self._reactor.seconds()
        exchange = _Exchange(key, body, question, tcp, Race(self._best_first(endpoints, now), now))
        exchange.waiters.append(done)
        self._exchanges[key] = exchange
        self._counts.forwarded += 1
        self._go_on(exchange)
        if self._timer is None:
            self._timer = self._reactor.callLater(TICK, self._tick)
        return True

    def close(self) -> None:
        """Drop everything; nobody is called any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in self._exchanges.values():
            exchange.race.abandon()
        self._exchanges.clear()
        for upstream in self.upstreams.values():
            upstream.close()

    def _best_first(self, endpoints: Sequence[Endpoint], now: float) -> list[Upstream]:
        candidates = [self.upstreams[endpoint] for endpoint in endpoints]
        if len(candidates) > 1:
            candidates.sort(key=lambda upstream: upstream.score.value(now))
        return candidates

    def _go_on(self, exchange: _Exchange) -> None:
        race = exchange.race
        while not race.over and (asked := race.take_output()):
            for upstream in asked:
                self._send(exchange, upstream)
        if race.over and self._exchanges.get(exchange.key) is exchange:
            del self._exchanges[exchange.key]
            self._waiting -= len(exchange.waiters)
            for done in exchange.waiters:
                done(race.winner)

    def _send(self, exchange: _Exchange, upstream: Upstream) -> None:
        def done(reply: bytes | None) -> None:
            race = exchange.race
            if race.over:
                return
            if reply is not None and reply[3] & 0xF not in (0, 3):
                self._counts.upstream_failures["rcode"] += 1
            race.feed(upstream, reply, self._reactor.seconds())
            self._go_on(exchange)

        if exchange.tcp:
            upstream.ask_tcp(exchange.body, exchange.question, done)
        elif not upstream.ask(exchange.body, exchange.question, done):
            exchange.race.feed(upstream, None, self._reactor.seconds())

    def _tick(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        for exchange in tuple(self._exchanges.values()):
            if exchange.race.due() <= now:
                exchange.race.tick(now)
                self._go_on(exchange)
        outstanding = False
        for upstream in self.upstreams.values():
            upstream.expire(now)
            outstanding |= upstream.outstanding
        if outstanding or self._exchanges:
            self._timer = self._reactor.callLater(TICK, self._tick)
