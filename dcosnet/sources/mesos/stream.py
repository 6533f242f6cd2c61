"""
The event stream of the leading master: found, followed, and found again for ever.

Which master may be followed: one on this node, where there is one or where this
node has an agent of its own to follow; otherwise the leading one wherever it
is. Whatever is lost, the facts told last stay until the next stream is whole.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.errors import PeerError
from dcosnet.io import heap
from dcosnet.io.names import Resolve
from dcosnet.model.facts import Facts, Leader
from dcosnet.model.net import Address, Endpoint, parse_address
from dcosnet.sources.mesos.access import AccessError, Answer, Stream, base_url
from dcosnet.sources.mesos.backoff import BASE, LIMIT, Backoff
from dcosnet.sources.mesos.events import MasterFold, Phase
from dcosnet.sources.mesos.leader import Known, Masters
from dcosnet.sources.mesos.lookup import Lookups
from dcosnet.sources.mesos.masterinfo import PORT
from dcosnet.sources.mesos.pause import Pause
from dcosnet.sources.mesos.polled import Polled
from dcosnet.sources.mesos.recordio import RecordReader

log = Logger()

MISSED = 3
"""Heartbeat intervals of silence that end a stream, as dcos-net had it."""
SLICE = 0.01
"""Seconds that are folded in one turn of the reactor."""
GAP = 0.02
"""Seconds at least between two tellings; the first after a rest is told at once."""
BURST = 160
"""
Steps without a rest after which what they made is taken for lasting: 2 500 tasks of a snapshot, or 160 events.

Without it, one collection of garbage while 50 000 tasks were folded took 300 ms.
"""
REST = 1.0
"""Seconds without a record that end a burst."""
HOLD = 660.0
"""Seconds that a leader which was deposed keeps its facts: a new one needs up to 610 to know its agents again."""

_REDIRECTS = frozenset({301, 302, 307, 308})
_NO_STREAM = frozenset({400, 403, 404, 405, 501})  # what a master that does not stream says to SUBSCRIBE
_HOPS = 3
_QUEUE = 4 << 20  # bytes of records that wait; beyond it the kernel keeps them


class Ends(Protocol):
    """What a subscription needs of its stream; Stream and Polled both have it."""

    lost: Deferred[str]

    def close(self, why: str) -> None:
        """Give nothing more; `lost` fires with the reason. Idempotent."""

    def pause(self) -> None:
        """Give nothing for now."""

    def resume(self) -> None:
        """Give again."""


class Talks(Protocol):
    """What the stream needs of Access."""

    def ask(self, url: str, call: str) -> Deferred[Answer]:
        """One call and its answer."""

    def subscribe(self, url: str, receive: Callable[[bytes], None]) -> Deferred[Stream | Answer]:
        """The stream, or an answer that is none."""


@attrs.frozen
class _Place:
    """A master, and where it is if its name could be resolved."""

    url: str
    endpoint: Endpoint | None


class _Refused(Exception):  # noqa: N818 - it is caught in this file only
    """A master could not be followed; why."""


class MasterStream:
    """
    Follows the leading master.

    `facts` is None until a stream was whole once; they carry the leader. A
    standby is `synced` and has none. `told` is called when anything that shows
    here changed. `heard_at` is when the last word came, in the reactor's
    seconds; `following` the master whose stream is open.
    """

    def __init__(
        self,
        reactor: Any,
        access: Talks,
        masters: Masters,
        *,
        here: Callable[[Address], bool],
        only_here: bool,
        refresh: float,
        jitter: Callable[[], float],
        resolve: Resolve,
        told: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._access = access
        self._masters = masters
        self._here = here
        self._only_here = only_here
        self._refresh = refresh
        self._resolve = resolve
        self._told = told
        self._backoff = Backoff(jitter)
        self._jitter = jitter
        self._pause = Pause(reactor)
        self._pursuing: Deferred[None] | None = None
        self._call: _Subscription | None = None
        self._place: _Place | None = None
        self._found: dict[str, Endpoint] = {}
        self._hold: IDelayedCall | None = None
        self._rejected: Counter[str] = Counter()
        self._lookup_failures = 0
        self.facts: Facts | None = None
        self.synced = False
        self.trouble: str | None = None
        self.heard_at: float | None = None
        self.connections = {"followed": 0, "lost": 0, "standby": 0, "failed": 0, "error": 0}
        self.records = 0

    @property
    def following(self) -> str | None:
        """The master whose stream is open, or None."""
        return self._place.url if self._call is not None and self._place is not None else None

    @property
    def fold(self) -> MasterFold | None:
        """Of the open stream, for its problems."""
        return self._call.fold if self._call is not None else None

    @property
    def rejected(self) -> Mapping[str, int]:
        """What could not be used of all streams so far, by what was lost."""
        rejected = self._rejected.copy()
        rejected.update(self._call.fold.rejected if self._call is not None else {})
        return rejected

    @property
    def lookup_failures(self) -> int:
        """Times that an agent's host name was not resolved, in all streams so far."""
        return self._lookup_failures + (self._call.lookup_failures if self._call is not None else 0)

    def start(self) -> None:
        """Follow from now on."""
        self._masters.start(self._masters_changed)
        self._pursuing = Deferred.fromCoroutine(self._pursue()).addErrback(_ended)

    def stop(self) -> Deferred[None]:
        """Leave nothing in the reactor."""
        self._pause.stop()
        if self._pursuing is not None:
            self._pursuing.cancel()
            self._pursuing = None
        self._end()
        self._keep()
        return self._masters.stop()

    def _masters_changed(self) -> None:
        known = self._masters.known
        if known is not None and self._place is not None and known.leader not in {None, self._place.url}:
            self._leader_moved(known)
        elif self.facts is not None and self.facts.leader is not None and self._call is not None:
            self._tell(self.facts, changed=frozenset())
        self._pause.end()
        self._told()

    def _leader_moved(self, known: Known) -> None:
        """A master that lost the election may not know it yet: its stream is left if it is surely another one."""
        assert known.leader is not None
        assert self._place is not None
        if self._call is not None and self._where(known.leader) not in {None, self._place.endpoint}:
            self._call.close("another master leads")

    # the pursuit

    async def _pursue(self) -> None:
        while True:
            try:
                wait = await self._search()
            except Exception as error:
                if self._pause.stopped:
                    raise
                log.failure("Following the masters failed; it begins anew")
                self.connections["error"] += 1
                # Nobody is told of it: that may be what failed. Whoever asks sees it.
                self.trouble = f"a mistake of ours, which the log tells: {error!r}"
                wait = self._backoff.failed()
            await self._pause.wait(wait)

    async def _search(self) -> float | None:
        """Find a master and follow it until it is lost; the seconds until the next search, None for any change."""
        known = self._masters.known
        if known is None:
            return None
        places = await self._places(known)
        if places:
            return await self._round(places)
        self._stand_by("no master on this node leads")
        # Names that could not be resolved may be by then; a change of the masters ends it.
        return BASE * MISSED

    async def _places(self, known: Known) -> Sequence[_Place]:
        """The masters to try, in order."""
        urls = [*([known.leader] if known.leader else []), *known.masters]
        places = [_Place(url, await self._endpoint(url)) for url in dict.fromkeys(urls)]
        self._found = {place.url: place.endpoint for place in places if place.endpoint is not None}
        ours = [place for place in places if place.endpoint is not None and self._here(place.endpoint.address)]
        if not ours and not self._only_here:
            return places
        leader = next((place for place in places if place.url == known.leader), None)
        if leader is not None and leader.endpoint is not None and leader not in ours:
            return []
        return ours

    async def _endpoint(self, url: str) -> Endpoint | None:
        parts = urlsplit(url)
        address = await self._resolve(parts.hostname or "")
        return Endpoint(address, parts.port or PORT) if address is not None else None

    async def _round(self, places: Sequence[_Place]) -> float:
        """Try each until one was followed; the seconds until the next round."""
        standby, reasons = False, []
        for place in places:
            try:
                followed = await self._try(place, 0)
            except (_Refused, AccessError) as error:
                reasons.append(str(error))
                continue
            if followed is None:
                standby = True
                continue
            # Once at once: a master that restarts is soon back. One that ends each stream early is not.
            if followed <= BASE:
                return self._backoff.failed()
            self._backoff.succeeded()
            return 0.0
        if standby:
            self._stand_by("another master leads")
            self._backoff.succeeded()
            return BASE * (0.5 + 0.5 * self._jitter())
        self.connections["failed"] += 1
        self._fail("; ".join(reasons))
        return self._backoff.failed()

    async def _try(self, place: _Place, hops: int) -> float | None:
        """Follow a master until its stream ends; the seconds that it lasted, or None if it stands by."""
        # Known before the answer is: records may come with it.
        call = _Subscription(self._reactor, self._resolve, self._heard, self._folded)
        answer = await self._access.subscribe(place.url, call.receive)
        if isinstance(answer, Stream):
            return await self._follow(place, call, answer)
        if answer.code in _REDIRECTS:
            return await self._redirected(place, answer.location, hops)
        if answer.code in _NO_STREAM:
            return await self._poll(place, call, answer.code, hops)
        raise _Refused(f"{place.url}: answered SUBSCRIBE with {answer.code}")

    async def _redirected(self, place: _Place, location: str, hops: int) -> float | None:
        if place.endpoint is not None and self._here(place.endpoint.address):
            return None
        try:
            target = urlsplit(urljoin(place.url, location))
            url = base_url(f"{target.scheme}://{target.netloc}")
        except ValueError as error:
            raise _Refused(f"{place.url}: sent us to nowhere: {error}") from error
        # Secrets go along: nobody who cannot be verified gets them.
        if place.url.startswith("https:") and not url.startswith("https:"):
            raise _Refused(f"{place.url}: sent us to {url}, which has no TLS")
        if hops >= _HOPS or url == place.url:
            raise _Refused(f"{place.url}: sent us in a circle")
        return await self._try(_Place(url, await self._endpoint(url)), hops + 1)

    async def _follow(self, place: _Place, call: _Subscription, stream: Ends) -> float:
        since = self._reactor.seconds()
        self._place, self._call = place, call
        self.trouble = f"{place.url} is heard, but its state is not whole yet"
        self.connections["followed"] += 1
        # Here a master leads, again perhaps: what is held is its to replace.
        self._keep()
        log.info("Following {url}", url=place.url)
        try:
            why = await call.follow(stream)
        finally:
            self._end()
        reason = why if why.startswith(place.url) else f"{place.url}: {why}"
        self.connections["error" if call.mistaken else "lost"] += 1
        self._fail(reason, lost=True)
        if call.fold.phase is Phase.INIT:
            raise _Refused(reason)
        lasted = self._reactor.seconds() - since
        if lasted > LIMIT:
            self._backoff.succeeded()
        # What was wrong in the stream itself may well be there again.
        return 0.0 if call.nonsense else float(lasted)

    async def _poll(self, place: _Place, call: _Subscription, code: int, hops: int) -> float | None:
        """A master that refuses the stream still tells its state: a snapshot every so often."""

        def ask() -> Deferred[Answer]:
            return self._access.ask(place.url, "GET_STATE")

        answer = await ask()
        if answer.code in _REDIRECTS:
            return await self._redirected(place, answer.location, hops)
        if answer.code != 200:
            raise _Refused(f"{place.url}: answered SUBSCRIBE with {code} and GET_STATE with {answer.code}")
        log.info("{url} refuses its stream ({code}); it is polled", url=place.url, code=code)
        polled = Polled(self._reactor, ask, self._refresh, call.take)
        polled.start(answer)
        return await self._follow(place, call, polled)

    def _end(self) -> None:
        if self._call is not None:
            self._call.stop()
            self._call.close("not followed any more")
            self._rejected.update(self._call.fold.rejected)
            self._lookup_failures += self._call.lookup_failures
            self._call = None

    # what comes of it

    def _heard(self) -> None:
        self.heard_at = self._reactor.seconds()
        self.records += 1

    def _folded(self, facts: Facts, first: bool) -> None:
        """A stream that is whole has something to tell."""
        if first:
            log.info("The state of {url} is whole", url=self.following)
        self.trouble, self.synced = None, True
        self._tell(facts, None if first else facts.changed)
        self._told()

    def _tell(self, facts: Facts, changed: frozenset[Any] | None) -> None:
        self.facts = attrs.evolve(facts, leader=self._leader(), changed=changed)

    def _leader(self) -> Leader | None:
        known, place = self._masters.known or Known(), self._place
        if place is None or place.endpoint is None:
            return None
        others = [endpoint for url in known.masters if (endpoint := self._where(url)) is not None]
        every = tuple(dict.fromkeys([place.endpoint, *others]))
        leads = known.leader is None or known.leader == place.url or self._where(known.leader) == place.endpoint
        return Leader(place.endpoint, every, known.epoch if leads else 0)

    def _where(self, url: str) -> Endpoint | None:
        """Where a master is: as its name was resolved last, or as its URL says."""
        return self._found.get(url) or _literal(url)

    def _stand_by(self, why: str) -> None:
        self.connections["standby"] += 1
        if self.synced and self.trouble is None:
            return
        log.info("Nothing to follow: {why}", why=why)
        self.synced, self.trouble = True, None
        if self.facts is not None and self._hold is None:
            self._hold = self._reactor.callLater(HOLD, self._let_go)
        self._told()

    def _keep(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _let_go(self) -> None:
        self._hold = self.facts = None
        self._told()

    def _fail(self, reason: str, *, lost: bool = False) -> None:
        if lost or self.trouble is None:
            log.warn(  # noqa: G010 - it is Twisted's
                "No master is heard: {reason}", reason=reason
            )
        changed, self.trouble = self.trouble != reason, reason
        if changed:
            self._told()


class _Subscription:
    """
    One stream: its records folded in slices, its silence noticed.

    `heard` is called for each record, `folded(facts, first)` when facts may be
    told that differ from those told before.
    """

    def __init__(
        self, reactor: Any, resolve: Resolve, heard: Callable[[], None], folded: Callable[[Facts, bool], None]
    ) -> None:
        self._reactor = reactor
        self._heard = heard
        self._folded = folded
        self._reader = RecordReader()
        self._records: deque[bytes | bytearray] = deque()
        self._waiting = 0
        self._answers: deque[tuple[str, Address | None]] = deque()
        self._steps: Iterator[None] | None = None
        self._stream: Ends | None = None
        self._paused = False
        self._lost: Deferred[str] | None = None
        self._why: str | None = None
        self._work: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._tick: IDelayedCall | None = None
        self._telling: IDelayedCall | None = None
        self._told: Facts | None = None
        self._told_at: float | None = None
        self._stopped = False
        self._folded_at = 0.0
        self._burst = 0
        self.nonsense = False
        """Whether what came was the reason that it ended."""
        self.mistaken = False
        """Whether a mistake of ours was."""
        self.fold = MasterFold()
        self._lookups = Lookups(reactor, resolve, self._resolved)

    @property
    def lookup_failures(self) -> int:
        """Times that an agent's host name was not resolved."""
        return self._lookups.failures

    def follow(self, stream: Ends) -> Deferred[str]:
        """
        Fires with the reason when the stream has ended.

        What came before is kept, and folded from now on: until then nobody
        knows whose word it is.
        """
        lost: Deferred[str] = Deferred(self._forsake)
        self._stream, self._lost = stream, lost
        stream.lost.addCallback(self._ended)
        if self._why is not None:
            stream.close(self._why)
            return lost
        if isinstance(stream, Stream):
            self._listen()
        self._fold()
        return lost

    def _ended(self, why: str) -> None:
        if self._why is None and self._reader.missing:
            self.fold.refuse()
            why = f"{why} in the midst of a record; {self._reader.missing} bytes or more of it are missing"
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.callback(why)

    def _forsake(self, _lost: Deferred[str]) -> None:
        self._lost = None
        self.close("not wanted any more")

    def stop(self) -> None:
        """Leave nothing in the reactor. Idempotent."""
        self._stopped = True
        self._records.clear()
        self._lookups.stop()
        for call in (self._work, self._silence, self._tick, self._telling):
            if call is not None and call.active():
                call.cancel()

    def close(self, why: str) -> None:
        """End the stream."""
        self._why = why
        if self._stream is not None:
            self._stream.close(why)

    def receive(self, data: bytes) -> None:
        """Bytes of the stream."""
        if self._stopped:
            return
        self._listen()
        try:
            records = self._reader.feed(data)
        except PeerError as error:
            self.fold.refuse()
            self._refuse(str(error))
            return
        for record in records:
            self.take(record)

    def take(self, record: bytes | bytearray) -> None:
        """One record, to be folded when its turn comes; none once it has stopped, also of a chunk begun before."""
        if self._stopped:
            return
        self._heard()
        self._records.append(record)
        self._waiting += len(record)
        if self._waiting > _QUEUE and not self._paused and self._stream is not None:
            self._paused = True
            self._stream.pause()
        if self._work is None and self._stream is not None:
            self._fold()

    def _safely(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong in a step costs this stream, and nothing is lost: the next one begins with all."""
        try:
            step()
        except PeerError as error:
            self.fold.refuse()
            self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - a mistake of ours, or of who is told; counted and shown
            log.failure("Taking what a master tells failed; its stream begins anew")
            self.mistaken = True
            self._refuse(f"a mistake of ours, which the log tells: {error!r}")

    def _fold(self) -> None:
        self._safely(self._fold_some)

    def _fold_some(self) -> None:
        """Fold for a slice of time; the rest on the next turn."""
        self._work = None
        now = self._reactor.seconds()
        if now - self._folded_at > REST:
            self._burst = 0
        self._folded_at = now
        whole = self._fold_until(now + SLICE)
        if self._burst >= BURST:
            self._burst = 0
            heap.keep()
        if not whole:
            self._work = self._reactor.callLater(0, self._fold)
        if self._steps is None:
            self._after()

    def _fold_until(self, end: float) -> bool:
        """Whether all that waits was folded."""
        while self._steps is not None or self._records:
            if self._steps is None:
                record = self._records.popleft()
                self._waiting -= len(record)
                self._steps = self.fold.steps(record, self._reactor.seconds())
            self._burst += 1
            for _ in self._steps:
                self._burst += 1
                if self._reactor.seconds() >= end:
                    return False
            self._steps = None
            if self._reactor.seconds() >= end:
                break
        if self._paused and self._waiting <= _QUEUE // 2 and self._stream is not None:
            self._paused = False
            if self._silence is not None:
                self._listen()
            self._stream.resume()
        return not self._records

    def _after(self) -> None:
        """Between two records: what is due, what is to be looked up, what may be told."""
        if self._stopped:
            return
        end = self._reactor.seconds() + SLICE
        while self._answers:
            self.fold.resolved(*self._answers.popleft(), self._reactor.seconds())
            if self._answers and self._reactor.seconds() >= end:
                self._work = self._work or self._reactor.callLater(0, self._fold)
                return
        self.fold.tick(self._reactor.seconds())
        due = self.fold.due()
        if self._tick is not None and self._tick.active():
            self._tick.cancel()
        self._tick = None
        if due is not None:
            self._tick = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._due)
        if self.fold.phase is not Phase.SERVE:
            self._lookups.want(self.fold.unresolved())
            return
        rest = GAP - (self._reactor.seconds() - self._told_at) if self._told_at is not None else 0.0
        if rest <= 0:
            self._tell()
        elif self._telling is None:
            self._telling = self._reactor.callLater(rest, self._tell_later)

    def _tell_later(self) -> None:
        self._telling = None
        if self._steps is None:
            self._safely(self._after)

    def _tell(self) -> None:
        facts, before = self.fold.facts(), self._told
        if facts is before:
            return
        self._told, self._told_at = facts, self._reactor.seconds()
        if before is None or facts.agents is not before.agents:
            self._lookups.want(self.fold.unresolved())
        self._folded(facts, before is None)

    def _due(self) -> None:
        self._tick = None
        if self._steps is None:
            self._safely(self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        # Where a resolver hangs, the pids of agents must do until it answers: else their tasks would be gone (D21).
        self._answers.extend((name, None) for name in self.fold.unresolved())
        self._after()

    def _resolved(self, hostname: str, address: Address | None) -> None:
        # In the midst of a record the fold takes nothing else.
        self._answers.append((hostname, address))
        if self._steps is None:
            self._safely(self._after)

    def _listen(self) -> None:
        """Bytes are a sign of life, too: a large snapshot takes its time."""
        delay = MISSED * self.fold.heartbeat_interval
        if self._silence is not None and self._silence.active():
            self._silence.reset(delay)
        else:
            self._silence = self._reactor.callLater(delay, self._silent)

    def _silent(self) -> None:
        if not self._paused:
            self.close(f"was silent for {MISSED * self.fold.heartbeat_interval:g} s")

    def _refuse(self, why: str) -> None:
        self.nonsense = True
        self.stop()
        self.close(why)


def _literal(url: str) -> Endpoint | None:
    """Where a URL leads whose host is an address."""
    parts = urlsplit(url)
    try:
        return Endpoint(parse_address(parts.hostname or ""), parts.port or PORT)
    except ValueError:
        return None


def _ended(failure: Failure) -> None:
    """The pursuit ends by being cancelled, and by nothing else."""
    if not failure.check(defer.CancelledError):
        log.failure("Following the masters ended", failure)
