"""
What one node does in the cluster, without a wire, a clock or chance of its own.

Bytes of links come in, with the time; what goes out are bytes, wishes to dial
and to hang up, and events. The daemon (`peers`, `service`) and the simulator
drive the same object. Its pieces know nothing of each other: `table` who is
there, `rings` who is linked with whom, `probe` whether a link lives, `spread`
what a link lacks, `dials` whom to call, `recovery` and `faults`; here they meet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from random import Random

import attrs

from dcosnet.errors import PeerError
from dcosnet.gossip.counts import KINDS, Counts
from dcosnet.gossip.dials import Dials
from dcosnet.gossip.digest import LEAVES, root
from dcosnet.gossip.digest import Digest as Leaves
from dcosnet.gossip.door import Door
from dcosnet.gossip.effects import (
    ClockDiffers,
    Dial,
    Effect,
    Event,
    Hang,
    LinkRefused,
    MembersChanged,
    Paused,
    Superseded,
    Write,
)
from dcosnet.gossip.faults import Faults
from dcosnet.gossip.frontier import frontiers
from dcosnet.gossip.health import Health
from dcosnet.gossip.link import Link
from dcosnet.gossip.messages import (
    PROTOCOL,
    Change,
    Close,
    CloseCode,
    Digest,
    Doubted,
    Frontier,
    Have,
    Hello,
    Members,
    Message,
    Nothing,
    Ping,
    Pong,
    Pull,
    Reason,
    Record,
    Stored,
    Told,
)
from dcosnet.gossip.probe import Probe
from dcosnet.gossip.recovery import Recovery
from dcosnet.gossip.spread import Spread
from dcosnet.gossip.table import FullError, MemberView, Table
from dcosnet.gossip.wire import TYPES, FrameError, encode
from dcosnet.interfaces import IReplica
from dcosnet.model.delta import NOTHING, Known
from dcosnet.model.member import MemberState

HELLO_PATIENCE, ANSWER_PATIENCE = 10.0, 3.0
"""Seconds until a peer has to say who it is: one that came here, and one that was called."""

UNWANTED_FOR = 10.0
LINKS_LIMIT = 64
"""Who is not wanted may have a link all the same, until there are so many; beyond, he is told of others."""

TOLD_OF = 16
SEEDS_APART = 0.3

HEAL_EVERY = 5.0
ISOLATED_WITHIN, ISOLATED_HOLD = 2.0, 2.0
FULL_FOR = 10.0
BLIND_LIMIT = 1 << 20
DOUBTS_AT_ONCE = 200
COMPARES_WITHIN = 1.0
PROBLEM_FOR = 600.0
"""Seconds for which people are told of what was wrong with a member, unless it has a link before."""
CLOCK_AHEAD = 10.0
POSTPONE = {
    CloseCode.WRONG_CLUSTER: 300.0,
    CloseCode.VERSION: 60.0,
    CloseCode.IDENTITY: 60.0,
    CloseCode.TWO_NODES: 60.0,
    CloseCode.STALE: 60.0,
    CloseCode.QUARANTINE: 60.0,
    CloseCode.SELF: 3600.0,
    CloseCode.UNWANTED: 5.0,
}
"""Seconds until one is dialled again who was refused for this, or refused us."""

_KINDS = {kind: KINDS[number] for number, kind in TYPES.items()}

_QUIET = frozenset({CloseCode.LEAVING, CloseCode.UNWANTED, CloseCode.DOUBLE, CloseCode.SELF, CloseCode.BUSY})
"""Ends that are no trouble."""


@attrs.frozen
class Options:
    """
    How this node takes part.

    `endpoints` is where others dial it ("10.0.0.1:62501"), `addresses` all that
    its host is known by, `remembered` endpoints of the last run. `verified`: a
    certificate proves each peer's name; otherwise its HELLO is believed.
    """

    cluster: str
    seeds: tuple[str, ...] = ()
    remembered: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    verified: bool = True


class _Views(Mapping[str, MemberView]):
    """The members, made for who looks."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __getitem__(self, name: str) -> MemberView:
        return self._cluster.view(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cluster.table.names)

    def __len__(self) -> int:
        return len(self._cluster.table)


class Cluster:
    """
    This node among the others; every call gives the time, and after each the output is to be taken.

    `nonce` is drawn at each start of the process.
    """

    def __init__(self, options: Options, replica: IReplica, rng: Random, nonce: int) -> None:
        self._options = options
        self._replica = replica
        self._rng = rng
        self._nonce = nonce
        self._numbers = 0
        self._running = False
        self._wall_ahead = 0.0
        self._links: dict[int, Link] = {}
        self._of_peer: dict[str, Link] = {}
        self._out: dict[int, list[bytes]] = {}
        self._effects: list[Effect] = []
        self._events: list[Event] = []
        self._own_told = -1
        self._losses: deque[float] = deque(maxlen=256)
        self._plan_at: float | None = None
        self._heal_at = 0.0
        self._asked: tuple[int, float] | None = None
        """Over which link digests are being compared, since when."""
        self._own_endpoints = set(options.endpoints)
        self._at_endpoint: dict[str, str] = {}
        self._problems: dict[str, tuple[str, float]] = {}
        """What was wrong with a member last, and when."""
        self._skewed: set[str] = set()
        """Of whose clocks people were told."""
        self._copies: dict[str, Known] = {}
        self._doubts: dict[str, tuple[int, int]] = {}
        self._states: dict[str, MemberState] = {}
        self._copies_expected = 0
        self._keys = Leaves()
        self._faults = Faults()
        self.counts = Counts()
        self.superseded: str | None = None
        self._seen = 0.0
        self.table: Table
        self.spread: Spread
        self.members: Mapping[str, MemberView] = _Views(self)

    def start(self, now: float, wall: int) -> None:
        """Begin, at `wall` milliseconds since the epoch."""
        own = Record(
            self._replica.node,
            self._replica.generation,
            0,
            1,
            self._options.endpoints,
            self._options.addresses,
        )
        self.table = Table(own, now)
        self.table.peers = self._of_peer.keys()
        self.set_clock(now, wall)
        self._health = Health(now)
        self._recovery = Recovery(self._replica, now)
        self.table.fresh = self._recovery.active
        self._door = Door(self._options.cluster, self._nonce, self.table, self._faults)
        self.spread = Spread(self._replica, self.table.told, self.table.linked_as_wanted, self._rng)
        self._dials = Dials(self._rng)
        for owner, known in self._replica.known().items():
            self._keys.put(owner, known)
        self._running = True
        self._plan_at = now
        self._heal_at = now + HEAL_EVERY * self._rng.uniform(0.5, 1.5)
        self._judge(now)

    def set_clock(self, now: float, wall: int) -> None:
        """Take the host's time, which others are told."""
        self._wall_ahead = wall / 1000 - now

    def leave(self, now: float) -> None:
        """Tell all links that this node goes, and close them."""
        if not self._running:
            return
        self._running = False
        self.table.set_own(now, left=True)
        told = self.table.told(self.table.name)
        for link in list(self._links.values()):
            if link.hello is not None and told is not None:
                self._say(link, Members((told,)))
            self._close(link, CloseCode.LEAVING, "the node goes", now)

    # What it knows

    @property
    def links(self) -> Mapping[str, Link]:
        """The links that stand, by the peers' names."""
        return self._of_peer

    @property
    def health(self) -> int:
        """How much this node's timeouts are stretched: 0 to 8."""
        return self._health.score

    @property
    def recovering(self) -> bool:
        """Whether this node still asks others what it had said."""
        return self._recovery.active

    @property
    def joined(self) -> bool:
        """Whether all that one peer knew is known here."""
        return self.spread.caught_up and any(link.synced for link in self._of_peer.values())

    def view(self, name: str) -> MemberView:
        """A member as this node sees it."""
        view = self.table.view(name)
        said, at = self._problems.get(name, (None, self._seen))
        problem = said if self._seen - at < PROBLEM_FOR else None
        link = self._of_peer.get(name)
        if link is None or link.probe is None:
            return attrs.evolve(view, problem=problem)
        if problem is None and abs(link.skew) > CLOCK_AHEAD:
            way = "ahead of" if link.skew > 0 else "behind"
            problem = (
                f"its clock is {abs(link.skew):.0f} s {way} ours; set it: what it writes too far ahead yields to others"
            )
        return attrs.evolve(view, linked=True, rtt=link.probe.rtt, skew=link.skew, problem=problem)

    # What happens

    def accept(self) -> int:
        """A number for a connection that somebody opened to this node."""
        self._numbers += 1
        return self._numbers

    def opened(self, link: int, name: str | None, endpoint: str, dialled: bool, now: float) -> None:
        """A connection stands; `name` is what its certificate proves, `endpoint` its other end."""
        self._notice(now)
        one = self._links[link] = Link(link, name, endpoint, now, dialled=dialled)
        if not self._running or self.superseded is not None:
            self._close(one, CloseCode.LEAVING, "this node takes no part any more", now)
            return
        self._say(
            one,
            Hello(
                PROTOCOL,
                PROTOCOL,
                self._options.cluster,
                self.table.name,
                self.table.own.generation,
                self._nonce,
                int((now + self._wall_ahead) * 1000),
                self._root(),
                self._recovery.active,
            ),
        )

    def feed(self, data: tuple[int, bytes], now: float) -> None:
        """Bytes have come over a link."""
        self._notice(now)
        number, octets = data
        link = self._links.get(number)
        if link is None:
            return
        self.counts.octets_in += len(octets)
        if link.probe is not None:
            link.probe.heard(now)
        try:
            for message in link.reader.feed(octets):
                self.counts.frames_in[_KINDS[type(message)]] += 1
                self._hear(link, message, now)
                if number not in self._links:
                    break
        except FrameError as error:
            self._nonsense(link, error.code, error.text, now)
        except PeerError as error:
            self._nonsense(link, CloseCode.MALFORMED, str(error), now)
        self._settle(now)

    def writable(self, link: int, room: bool) -> None:
        """Whether a link's transport takes more; all begin so."""
        one = self._links.get(link)
        if one is not None:
            one.full_since = None if room else (one.full_since if one.full_since is not None else self._seen)
            one.blind = 0 if room else one.blind
            self.spread.room(link, room)

    def closed(self, link: int, now: float, reason: str) -> None:
        """The other end is gone, without a word."""
        self._notice(now)
        one = self._links.pop(link, None)
        if one is None:
            return
        peer = self._part(one, now)
        if peer is not None:
            self._lose(peer, Reason.CLOSED, now)
        elif one.dialled:
            self._missed(link, Reason.CLOSED, reason, now)
        self._settle(now)

    def unreached(self, link: int, now: float, why: Reason, text: str) -> None:
        """A dial came to nothing."""
        self._notice(now)
        self._missed(link, why, text, now)
        self._settle(now)

    def changed(self, owner: str, now: float) -> None:
        """The store knows something else of an owner."""
        if owner in self.spread.let_go:
            return
        self._keys.put(owner, self._replica.known().get(owner))
        self.spread.news(owner, now)

    def stored(self, owner: str, known: Known, now: float) -> None:  # noqa: ARG002 - as the other inputs
        """An owner's durable entries are on this disk."""
        self._copies[owner] = known
        link = self._of_peer.get(owner)
        if link is not None:
            self._say(link, Stored(*known))

    # Five verbs, with `feed`

    def due(self) -> float | None:
        """When `tick` is to be called, if nothing happens."""
        if not self._running or self.superseded is not None:
            return None
        due = min(self._health.due, self.table.due(), self._heal_at)
        for time in (self._plan_at, self._dials.due(), self.spread.due(), self._recovery.due()):
            if time is not None and time < due:
                due = time
        for link in self._of_peer.values():
            if link.probe is not None and link.probe.due < due:
                due = link.probe.due
        return due

    def tick(self, now: float) -> None:
        """The time has come."""
        if not self._running or self.superseded is not None:
            return
        self._notice(now)
        self._probe(now)
        self._prune(now)
        if self._plan_at is not None and now >= self._plan_at:
            self._plan(now)
        if now >= self._heal_at:
            self._heal(now)
        self.spread.tick(now)
        self._settle(now)
        while (dial := self._dials.begin(now, self._numbers + 1, self._health.stretch())) is not None:
            self._numbers += 1
            self.counts.dials += 1
            self._health.watch(now)
            self._effects.append(dial)

    def take_output(self) -> Iterable[Effect]:
        """What is to be done; it is forgotten then. Of bulk there may be more for the next round."""
        if self._running:
            for number, frame in self.spread.take_output():
                self._put(self._links[number], frame)
                if self.spread.has_pulled(number):
                    self._links[number].reader.expect_pieces()
        if not self._out and not self._effects:
            return ()
        writes = [Write(number, b"".join(frames)) for number, frames in self._out.items() if frames]
        effects, self._effects, self._out = self._effects, [], {}
        # What was said before a link is hung up is to arrive.
        return [
            *(one for one in effects if isinstance(one, Dial)),
            *writes,
            *(one for one in effects if isinstance(one, Hang)),
        ]

    def take_events(self) -> Iterable[Event]:
        """What has happened; it is forgotten then."""
        events, self._events = self._events, []
        return events

    # Messages

    def _hear(self, link: Link, message: Message, now: float) -> None:
        if isinstance(message, Close):
            self._closed_by_peer(link, message, now)
        elif link.hello is None:
            self._greet(link, message, now)
        elif isinstance(message, Ping):
            self._say(link, Pong(message.number, self._root()))
        elif isinstance(message, Pong):
            self._answered(link, message, now)
        elif isinstance(message, Stored):
            self._replica.confirm(link.hello.name, Known(message.generation, message.version))
        elif isinstance(message, Change | Have | Pull | Nothing):
            self._take_keys(link, message, now)
        else:
            self._hear_of_members(link, message, now)

    def _hear_of_members(self, link: Link, message: Message, now: float) -> None:
        if isinstance(message, Members):
            self._take_records(link, message.told, now)
        elif isinstance(message, Doubted):
            self._take_doubts(link, message, now)
        elif isinstance(message, Digest):
            self._compare(link, message)
        elif isinstance(message, Frontier):
            self._take_frontier(link, message, now)
        else:
            raise FrameError(CloseCode.MALFORMED, f"a second {type(message).__name__.upper()}")

    def _take_keys(self, link: Link, message: Change | Have | Pull | Nothing, now: float) -> None:
        assert link.hello is not None
        self.spread.feed((link.number, message), now)
        for refused in self.spread.take_events():
            self.counts.changes_refused += 1
            self._note_problem(link.hello.name, refused.text)
            self._events.append(LinkRefused(link.hello.name, CloseCode.OVERSIZE, False, refused.text))

    def _greet(self, link: Link, hello: Message, now: float) -> None:
        """Judge who is there; then the link stands."""
        assert isinstance(hello, Hello)
        aim, before = self._dials.of(link.number), self._of_peer.get(hello.name)
        objection = self._door.objection(link, hello, None if aim is None else aim.name, before, now)
        if objection is not None:
            # Whose certificate it is answers for it, and not who he says he is.
            self._refuse(link, link.certified or hello.name, objection.code, objection.text, now)
            return
        if not link.dialled and len(self._of_peer) >= LINKS_LIMIT and hello.name not in self.table.wanted:
            self._send_on(link, now)
            return
        if before is not None and not self._door.replaces(link, hello, before):
            self._dials.settled(link.number)
            self._close(link, CloseCode.DOUBLE, "there is a link already", now)
            return
        if before is not None:
            self._close(before, CloseCode.DOUBLE, "there is a newer link", now)
        self._stand(link, hello, now)

    def _stand(self, link: Link, hello: Hello, now: float) -> None:
        """The peer is who it should be: from now on it is told, and asked."""
        self._dials.settled(link.number)
        self._dials.drop(hello.name)
        if link.dialled and link.endpoint in self._options.seeds:
            self._at_endpoint[link.endpoint] = hello.name
        self._problems.pop(hello.name, None)
        link.hello = hello
        link.skew = hello.clock / 1000 - (now + self._wall_ahead)
        self._note_clock(hello.name, link.skew)
        doubted = self.table.accuses(hello.name)
        link.probe = Probe(now, pings=link.dialled, stretch=self._health.stretch, doubted=doubted)
        self._of_peer[hello.name] = link
        self.counts.links_opened += 1
        self.spread.joined(link.number, hello.name)
        # One that has lost its disk has to hear in which generation it is known.
        self.spread.owe(link.number, [self.table.name, hello.name] if hello.fresh else [self.table.name])
        self._believe(link, now)
        if self.table.is_dead(hello.name):
            self._doubt_all(link)
        copy = self._copies.get(hello.name)
        if copy is not None:
            self._say(link, Stored(*copy))
        if hello.root == self._root():
            self._synced(link, now)
        elif link.dialled:
            self._ask_first(link, now)
        self._expect()

    def _believe(self, link: Link, now: float) -> None:
        """Take back what this node has said of a peer that has proven to be there."""
        assert link.hello is not None
        assert link.probe is not None
        if link.probe.proven and self.table.absolve(link.hello.name, now):
            self._plan_at = now

    def _send_on(self, link: Link, now: float) -> None:
        """There are links enough here: tell the newcomer of some others."""
        others = [name for name in self.table.names if self.table.state(name) is MemberState.ALIVE]
        for told in map(self.table.told, self._rng.sample(others, min(TOLD_OF, len(others)))):
            if told is not None:
                self._say(link, Members((told,)))  # together they might be too long for a frame
        self._close(link, CloseCode.BUSY, f"{LINKS_LIMIT} links are open here already; here are others", now)

    def _answered(self, link: Link, pong: Pong, now: float) -> None:
        assert link.probe is not None
        link.probe.answered(pong.number, now)
        self._believe(link, now)
        differing = pong.root != self._root()
        if not differing and not link.synced:
            self._synced(link, now)
        if link.differs(now, differing=differing, idle=self.spread.idle(link.number)):
            self._ask(link)

    def _take_records(self, link: Link, told: Iterable[Told], now: float) -> None:
        new: list[str] = []
        urgent = False
        for one in told:
            before = self.table.record(one.record.name)
            try:
                taken = self.table.take(one, now)
            except FullError:
                self.counts.records_refused += 1
                continue
            except PeerError as error:
                self.counts.records_refused += 1
                raise FrameError(CloseCode.MALFORMED, str(error)) from error
            if not taken:
                continue
            new.append(one.record.name)
            past = () if before is None else before.accuses
            urgent = urgent or one.record.left or bool(one.record.accuses or past)
            for name in {accusation.name for accusation in one.record.accuses} - {
                accusation.name for accusation in past
            }:
                self._hint(name, now)
        if new:
            self.spread.records(new, link.number, now, urgent=urgent)
            self._plan_soon(now)

    def _hint(self, name: str, now: float) -> None:
        """Somebody has lost a member: look at once, if it is one of ours to look after."""
        link = self._of_peer.get(name)
        if link is not None and link.probe is not None:
            link.probe.hint(now)
        elif not self.table.accuses(name):
            self._call(name, now)

    def _doubt_all(self, link: Link) -> None:
        """Tell one who comes back who else is dead here: with it a whole side may have come back."""
        dead = [name for name in self.table.names if self.table.is_dead(name)]
        self._tell_doubts(link, dead)

    def _tell_doubts(self, link: Link, names: list[str]) -> None:
        lives = [(name, *life) for name in names if (life := self.table.life(name)) is not None]
        for start in range(0, len(lives), DOUBTS_AT_ONCE):
            self._reply(link, Doubted(tuple(lives[start : start + DOUBTS_AT_ONCE])))

    def _take_doubts(self, link: Link, doubted: Doubted, now: float) -> None:
        """Pass on, once, what those who are doubted have to hear."""
        passed = []
        for name, generation, incarnation in doubted.lives:
            life = generation, incarnation
            if self.table.doubt(name, life) and self._doubts.get(name) != life:
                self._doubts[name] = life
                passed.append(name)
        if not passed:
            return
        for other in [one for one in self._of_peer.values() if one is not link]:
            try:
                self._tell_doubts(other, passed)
            except FrameError as error:  # the one that does not read is to blame, and not who has spoken
                self._nonsense(other, error.code, error.text, now)

    # Anti-entropy

    def _root(self) -> bytes:
        return root(self.table.digest, self._keys)

    def _ask_first(self, link: Link, now: float) -> None:
        """Find out where a new link's peer differs; one peer at a time, since what it tells may be all there is."""
        if self._asked is not None and self._asked[0] in self._links and now - self._asked[1] < COMPARES_WITHIN:
            link.mismatches = 1  # if the answer to the next ping still differs, it is asked
            return
        self._asked = (link.number, now)
        self._ask(link)

    def _ask(self, link: Link) -> None:
        self.counts.comparisons += 1
        self._reply(link, Digest(self.table.digest.told(), self._keys.told()))

    def _compare(self, link: Link, digest: Digest) -> None:
        try:
            members = self.table.digest.differing(digest.members)
            keys = self._keys.differing(digest.keys)
        except ValueError as error:
            raise FrameError(CloseCode.MALFORMED, str(error)) from error
        self._tell_frontier(link, members, keys, answer=True)

    def _tell_frontier(self, link: Link, members: bytes, keys: bytes, *, answer: bool) -> None:
        for frontier in frontiers(self.table.digest, members, self._keys, keys, answer=answer):
            self._reply(link, frontier)

    def _take_frontier(self, link: Link, frontier: Frontier, now: float) -> None:
        if max(len(frontier.member_leaves), len(frontier.key_leaves)) > LEAVES:
            raise FrameError(CloseCode.MALFORMED, f"a FRONTIER of more than {LEAVES} leaves")
        theirs = {name: (generation, sequence) for name, generation, sequence in frontier.members}
        mine = self.table.digest.within(frontier.member_leaves)
        self.spread.owe(link.number, [name for name, pair in mine.items() if theirs.get(name, (-1, -1)) < pair])
        keys = {owner: Known(generation, version) for owner, generation, version in frontier.keys}
        self.spread.compare(link.number, keys, self._keys.within(frontier.key_leaves), now)
        if frontier.answer:
            self._tell_frontier(link, frontier.member_leaves, frontier.key_leaves, answer=False)
        if self._asked is not None and self._asked[0] == link.number:
            self._asked = None
        self._synced(link, now)

    def _synced(self, link: Link, now: float) -> None:
        """All that differed over this link is known now, or is on its way."""
        assert link.hello is not None
        link.synced = True
        self._ask_of_self(link, now)

    def _ask_of_self(self, link: Link, now: float) -> None:
        if not self._recovery.active or link.hello is None:
            return
        held = self._replica.known().get(self.table.name, NOTHING)
        if self.spread.knows(link.number, self.table.name) <= held:
            self._recovery.told(link.hello.name, now)

    # Trouble

    def _notice(self, now: float) -> None:
        """Take the time; if this process did not run for a while, nobody is late on account of that."""
        self._seen = now
        late = self._health.notice(now, awaits=self._awaits())
        if not late:
            return
        self.counts.pauses += 1
        self._health.worsen(now)
        self._health.quiet_until = now + 1.0
        for link in self._of_peer.values():
            if link.probe is not None:
                link.probe.spare(now, late)
        self._events.append(Paused(late))

    def _awaits(self) -> bool:
        """Whether somebody has a ping to answer, or a dial."""
        return self._dials.under_way or any(
            link.probe is not None and link.probe.tries for link in self._of_peer.values()
        )

    def _probe(self, now: float) -> None:
        for link in list(self._of_peer.values()):
            probe = link.probe
            if probe is None or link.hello is None:
                continue
            while (number := probe.act(now)) is not None:
                self._say(link, Ping(number))
                self._health.watch(now)
            if probe.lost:
                self._hang(link, graceful=False)
                self._part(link, now)
                self._lose(link.hello.name, Reason.SILENT, now)
            elif self._is_stuck(link, now):
                self._refuse(link, link.hello.name, CloseCode.SLOW, "it does not read what it is sent", now)

    def _is_stuck(self, link: Link, now: float) -> bool:
        return link.full_since is not None and (now - link.full_since > FULL_FOR or link.blind > BLIND_LIMIT)

    def _lose(self, name: str, reason: Reason, now: float) -> None:
        """A link that stood is gone: look at once whether the peer is."""
        self.counts.links_lost[reason] += 1
        self._losses.append(now)
        recent = sum(now - at <= ISOLATED_WITHIN for at in self._losses)
        if recent > max(1, (len(self._of_peer) + recent) / 2):
            # More likely this node is cut off than all of them are dead.
            self.table.held_back = now + ISOLATED_HOLD
        if reason is Reason.SILENT:
            self._accuse(name, reason, now)
        self._call(name, now)

    def _call(self, name: str, now: float) -> None:
        """Dial at once whom the rings want, to see whether it is there."""
        record = self.table.record(name)
        if record is not None and not record.left and self.table.observes(name):
            self._dials.aim(name, name, record.endpoints, now)
            self._dials.hurry(name, now)

    def _missed(self, number: int, why: Reason, text: str, now: float) -> None:
        """A dial, or a link before its greeting, came to nothing."""
        self.counts.dials_failed[why] += 1
        aim = self._dials.failed(number, now)
        if aim is None or aim.name is None:
            return
        if why is Reason.CERTIFICATE:
            self._note_problem(aim.name, text)
        self._accuse(aim.name, why, now)

    def _accuse(self, name: str, reason: Reason, now: float) -> None:
        if name in self._of_peer or (now < self._health.quiet_until and reason is not Reason.REFUSED):
            return
        self.table.accuse(name, reason, now)

    def _nonsense(self, link: Link, code: CloseCode, text: str, now: float) -> None:
        who = link.certified or link.name or link.endpoint.rpartition(":")[0]
        if code is not CloseCode.SLOW:
            self._faults.note(who, now)
        self._refuse(link, who, code, text, now)

    def _refuse(self, link: Link, who: str, code: CloseCode, text: str, now: float) -> None:
        """Close a link for a reason that somebody should know."""
        aim = self._dials.of(link.number)
        if code is CloseCode.SELF:
            self._is_here(link)
        else:
            self.counts.refused[code, False] += 1
            self._events.append(LinkRefused(who, code, False, text))
            self._note_problem(who, text)
        if code is CloseCode.IDENTITY and aim is not None and aim.name is not None:
            self._note_problem(aim.name, text)
            self._accuse(aim.name, Reason.REFUSED, now)
        self._postpone(link, code, now)
        self._close(link, code, text, now)

    def _is_here(self, link: Link) -> None:
        """This node has dialled itself; where a link comes from is no place to dial."""
        if link.dialled:
            self._own_endpoints.add(link.endpoint)

    def _note_clock(self, who: str, ahead: float) -> None:
        """Tell of a clock that is wrong, here or there, once until it is right."""
        if abs(ahead) <= CLOCK_AHEAD:
            self._skewed.discard(who)
        elif who not in self._skewed:
            self._skewed.add(who)
            self._events.append(ClockDiffers(who, ahead))

    def _note_problem(self, who: str, text: str) -> None:
        """For people, where members are shown; of strangers only the event tells."""
        if who in self.table:
            self._problems[who] = (text, self._seen)

    def _postpone(self, link: Link, code: CloseCode, now: float) -> None:
        aim = self._dials.failed(link.number, now, POSTPONE.get(code, 0.0))
        if aim is None and link.hello is not None:
            record = self.table.record(link.hello.name)
            if record is not None and code in POSTPONE and link.hello.name in self.table.wanted:
                self._dials.aim(link.hello.name, link.hello.name, record.endpoints, now + POSTPONE[code])

    def _closed_by_peer(self, link: Link, close: Close, now: float) -> None:
        try:
            code = CloseCode(close.code)
        except ValueError:
            code = CloseCode.MALFORMED
        aim = self._dials.of(link.number)
        who = link.name or link.certified or (aim.name if aim is not None and aim.name else link.endpoint)
        if code is CloseCode.SELF:
            self._is_here(link)
        if code not in _QUIET:
            self.counts.refused[code, True] += 1
            self._events.append(LinkRefused(who, code, True, close.text[:500]))
            self._note_problem(who, f"it refuses this node: {close.text[:500]}")
        if code is CloseCode.STALE:
            self.table.supersede(f"{who} says that a newer process calls itself {self.table.name}; {close.text[:200]}")
        if code is CloseCode.DOUBLE:
            self._dials.settled(link.number)
        else:
            self._postpone(link, code, now)
        self._hang(link, graceful=True)
        self._part(link, now)

    def _stand_aside(self, now: float) -> None:
        """Another process has this name: take no part any more."""
        if self.superseded is not None or self.table.superseded is None:
            return
        self.superseded = self.table.superseded
        self._events.append(Superseded(self.superseded))
        for link in list(self._links.values()):
            self._close(link, CloseCode.TWO_NODES, self.superseded, now)

    # Links

    def _say(self, link: Link, message: Message) -> None:
        """Send at once, before all that waits for room."""
        frame = encode(message)
        if link.full_since is not None:
            link.blind += len(frame)
        self._put(link, frame)

    def _reply(self, link: Link, message: Message) -> None:
        if not self.spread.reply(link.number, message):
            raise FrameError(CloseCode.SLOW, "it goes on asking and does not read the answers")

    def _put(self, link: Link, frame: bytes) -> None:
        self.counts.octets_out += len(frame)
        self.counts.frames_out[KINDS[frame[4]]] += 1
        self._out.setdefault(link.number, []).append(frame)

    def _close(self, link: Link, code: CloseCode, text: str, now: float) -> None:
        self._say(link, Close(code, text[:1000]))
        self._hang(link, graceful=True)
        self._part(link, now)

    def _hang(self, link: Link, *, graceful: bool) -> None:
        if self._links.pop(link.number, None) is not None:
            if not graceful:
                self._out.pop(link.number, None)
            self._effects.append(Hang(link.number, graceful))

    def _part(self, link: Link, now: float) -> str | None:
        """Forget a link; gives the peer that it was the link of."""
        self._links.pop(link.number, None)
        name = link.name
        if name is None or self._of_peer.get(name) is not link:
            return None
        del self._of_peer[name]
        self.spread.gone(link.number, now)
        self._expect()
        self._plan_soon(now)
        return name

    def _prune(self, now: float) -> None:
        """Close links that nobody needs, and those that never said who they are."""
        for link in [one for one in self._links.values() if one.hello is None]:
            if now - link.opened_at > (ANSWER_PATIENCE if link.dialled else HELLO_PATIENCE):
                who = link.certified or link.endpoint
                self._refuse(link, who, CloseCode.NO_HELLO, "it did not say who it is", now)
        wanted = self.table.wanted
        if all(name in wanted for name in self._of_peer):
            return
        for name, link in list(self._of_peer.items()):
            if name in wanted:
                link.unwanted_since = None
            elif link.unwanted_since is None:
                link.unwanted_since = now
            elif now - link.unwanted_since > UNWANTED_FOR:
                self._close(link, CloseCode.UNWANTED, "no ring links the two", now)

    # Whom to call

    def _plan_soon(self, now: float) -> None:
        """After the table changed; in a large cluster several changes are one plan."""
        at = now + min(0.25, len(self.table) / 200)
        self._plan_at = at if self._plan_at is None else min(self._plan_at, at)

    def _plan(self, now: float) -> None:
        """Aim at those who should be linked and are not, and at nobody else."""
        self._plan_at = None
        wanted = self.table.wanted
        for name in sorted(wanted - self._of_peer.keys()):
            record = self.table.record(name)
            if record is not None:
                # The lower name dials; the other waits whether it does.
                self._dials.aim(name, name, record.endpoints, now if self.table.name < name else now + 0.5)
        strangers = () if self._of_peer else (*self._options.seeds, *self._options.remembered)
        doors = {f"@{endpoint}": endpoint for endpoint in strangers if endpoint not in self._own_endpoints}
        # One after the other, in an order of each node's own: the first is often enough.
        for nth, key in enumerate(self._rng.sample(list(doors), len(doors))):
            self._dials.aim(key, None, (doors[key],), now + nth * SEEDS_APART)
        for aim in list(self._dials.aims):
            if aim.key not in wanted and aim.key not in doors and not aim.once:
                self._dials.drop(aim.key)

    def _heal(self, now: float) -> None:
        """Once in a while call somebody who is gone: only so do two halves find each other again."""
        self._heal_at = now + HEAL_EVERY * self._rng.uniform(0.5, 1.5)
        reachable = 0
        gone: list[str] = []
        answered = set(self._own_endpoints)
        for name in self.table.names:
            record = self.table.record(name)
            assert record is not None
            if self.table.state(name) is MemberState.ALIVE:
                reachable += 1
                answered.update(record.endpoints)
            elif not record.left:
                gone.extend(record.endpoints[:1])
        # A seed may be written as a host's name, which no record has.
        answered.update(at for at, name in self._at_endpoint.items() if self.table.state(name) is MemberState.ALIVE)
        gone.extend(seed for seed in self._options.seeds if seed not in answered)
        if gone and self._rng.random() < 3 * len(gone) / reachable:
            endpoint = self._rng.choice(gone)
            self._dials.aim(f"@{endpoint}", None, (endpoint,), now, once=True)

    # Verdicts

    def _settle(self, now: float) -> None:
        """After whatever happened: own news to all links, and the verdicts that are due."""
        self._tell_own(now)
        if now >= self.table.due():
            self._judge(now)
            self._tell_own(now)
        if self.table.superseded is not None:
            self._stand_aside(now)
        if not self._recovery.active:
            return
        if self.table.outlived >= self.table.own.generation:
            self._replica.exceed(self.table.outlived)
            self.table.set_own(now, generation=self._replica.generation)
            self._tell_own(now)
        for link in self._of_peer.values():
            if link.synced:
                self._ask_of_self(link, now)
        others = sum(1 for name in self._of_peer if self.table.state(name) is MemberState.ALIVE)
        doors = {*self._options.seeds, *self._options.remembered} - self._own_endpoints
        if self._recovery.settle(now, others, askable=bool(doors)):
            self.table.fresh = False
            if self._replica.generation != self.table.own.generation:
                self.table.set_own(now, generation=self._replica.generation)
            self._plan_soon(now)

    def _tell_own(self, now: float) -> None:
        if self.table.own.sequence != self._own_told:
            self._own_told = self.table.own.sequence
            self.spread.records([self.table.name], None, now, urgent=True)

    def _judge(self, now: float) -> None:
        refuted = self.table.refutations
        changed = self.table.judge(now)
        if self.table.refutations > refuted:
            self._health.worsen(now)
        self._let_go()
        for name in self.table.forgotten():
            self._replica.forget(name)
            self.spread.let_go.discard(name)
            self._problems.pop(name, None)
            self._skewed.discard(name)
            self._copies.pop(name, None)
            changed |= {name}
        if not changed:
            return
        for name in sorted(changed):
            state = self.table.state(name)
            if state is None:
                self._states.pop(name, None)
                self._doubts.pop(name, None)
            elif name != self.table.name and self._states.get(name) is not state:
                self._states[name] = state
                self.counts.verdicts[state] += 1
                self._replica.judge(name, state)
        self._expect()
        self._plan_soon(now)
        self._events.append(MembersChanged(changed))

    def _let_go(self) -> None:
        """Of who is told of no more its leases' namespace goes, too; durable keys stay, and are told of for ever."""
        for name in sorted(self.table.untold - self.spread.let_go):
            if self._replica.forget(name):
                self.spread.let_go.add(name)
                self._keys.put(name, None)
        self.spread.let_go &= self.table.untold

    def _expect(self) -> None:
        """A durable write wants one more disk than this node's, where there is a peer to have it."""
        able = any(self.table.state(name) is MemberState.ALIVE for name in self._of_peer)
        if able is not bool(self._copies_expected):
            self._copies_expected = int(able)
            self._replica.expect(self._copies_expected)
