"""
What each link lacks, and how it gets it.

For each link there are sets of names, never queues of what is sent: a delta is
made when there is room for it, so that a burst becomes one and a slow peer
costs names. Records of members go first, then small deltas, then bulk.

Small news goes to every link whose peer may lack it. Left out is a peer that
has told of it, and one that the sender is linked with itself: it gets the news
from there, or the digests find that it did not. Large news is announced, and
each node pulls it from one link at a time.

Behind five verbs, so that broadcast trees can take its place: `feed`, `due`,
`tick`, `take_output`, `take_events`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import inf
from random import Random

import attrs

from dcosnet.errors import PeerError
from dcosnet.gossip.messages import Change, CloseCode, Have, Members, Message, Nothing, Pull, Told
from dcosnet.gossip.table import weigh
from dcosnet.gossip.wire import PIECE, FrameError, encode, encode_change, from_delta, to_delta
from dcosnet.interfaces import IReplica
from dcosnet.model.delta import NOTHING, Known

ROUND = 65_536
"""Octets for one link in one round of output; what is left waits until the driver has said whether there is room."""

BULK = 262_144
"""Octets of keys and values, about, of one Change that was pulled."""

MEMBERS_WEIGHT = 24_576
"""Octets of records after which a frame takes no more of them."""

HAVES_AT_ONCE = 200

GATHER, GATHER_URGENT = 0.02, 0.005
"""
Seconds for which records are gathered: those that tell of nobody's end always, so
that where many join at once many are one frame; the others only where a link has
just been told of one, since where a half is lost thousands follow on the first.
"""

ANNOUNCE_AFTER = 0.05
"""Seconds for which announcements are gathered, so that many are one frame."""

REPLIES = 64
"""How many answers, and how many pulls, may wait for a peer that goes on asking and does not read."""

KNOWN = 16_384
"""Of how many owners it is kept how far a peer knows them: of more than there can be."""

PULLS, PULLS_OF_LINK = 16, 4
"""How many owners are pulled at a time, and of them from one link."""

PULL_PATIENCE = 5.0
"""Seconds without progress after which another link is asked."""


@attrs.frozen
class Refused:
    """A link sent what the store does not take, in words."""

    link: int
    text: str


@attrs.define
class _Pull:
    link: int
    deadline: float


class _Link:
    __slots__ = (
        "announce",
        "announce_at",
        "asked",
        "bulk",
        "known",
        "members",
        "members_at",
        "members_told",
        "offers",
        "owed",
        "peer",
        "pulled",
        "replies",
        "room",
        "sending",
    )

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.room = True
        self.known: dict[str, Known] = {}
        """What the peer has said, or was sent, of owners."""
        self.members: dict[str, None] = {}
        """Whose records it is to get; where nothing is urgent, from `members_at` on."""
        self.members_at: float | None = None
        self.members_told = -inf
        """When it was told of records last."""
        self.owed: dict[str, Known] = {}
        """Of which owners it is to get what follows on this."""
        self.announce: dict[str, None] = {}
        """Of which owners it is told that there is more, once `announce_at` has come."""
        self.announce_at: float | None = None
        self.asked: dict[str, Known] = {}
        """What it has pulled, from where on."""
        self.pulled = False
        """Whether anything was ever pulled over it."""
        self.offers: dict[str, None] = {}
        """What is lacking here and may be pulled over it, once it is not asked for so much."""
        self.replies: deque[Message] = deque()
        self.bulk: list[bytes] = []
        """Frames of a Change in pieces that are still to go."""
        self.sending: str | None = None
        """Whose Change that is."""

    def note(self, owner: str, known: Known) -> None:
        """Note how far the peer knows an owner. Of too many the oldest is let go: that costs what is sent twice."""
        self.known.pop(owner, None)
        self.known[owner] = known
        if len(self.known) > KNOWN:
            del self.known[next(iter(self.known))]

    @property
    def idle(self) -> bool:
        return not (self.busy or self.announce)

    @property
    def busy(self) -> bool:
        return bool(self.members or self.owed or self.asked or self.replies or self.bulk)


class Spread:
    """
    News between the store and the links.

    `told` gives the record of a member as it is passed on, `linked` whether two
    members are linked as far as one can tell.
    """

    def __init__(
        self,
        replica: IReplica,
        told: Callable[[str], Told | None],
        linked: Callable[[str, str], bool],
        rng: Random,
    ) -> None:
        self.let_go: set[str] = set()
        """Owners that are gone for good: nothing is told of them, taken or pulled, or they would go round for ever."""
        self._replica = replica
        self._told = told
        self._linked = linked
        self._rng = rng
        self._links: dict[int, _Link] = {}
        self._busy: dict[int, None] = {}
        """Links that have something to get; all others cost nothing."""
        self._gathering: dict[int, None] = {}
        """Links with an `announce_at` or a `members_at`."""
        self._pulls: dict[str, _Pull] = {}
        self._lacking: dict[str, None] = {}
        """What some link knows further and is not being pulled yet."""
        self._heard_from: dict[str, tuple[str, Known]] = {}
        """From whom the last news of an owner came, for the telling that follows."""
        self._told_of: dict[str, Known] = dict(replica.known())
        """How far each owner was known when the links were told last."""
        self._events: list[Refused] = []
        self._made: tuple[tuple[str, Known, Known], bytes | None] | None = None
        self._now = 0.0
        self.changes_sent = 0
        self.changes_taken = 0
        self.changes_known = 0
        """Taken in vain: the duplicates of spreading over many links."""
        self.pulls = 0

    # Links

    def joined(self, link: int, peer: str) -> None:
        """A link with a peer stands."""
        self._links[link] = _Link(peer)

    def gone(self, link: int, now: float) -> None:
        """A link is no more; what was pulled over it is pulled over another."""
        self._now = now
        self._busy.pop(link, None)
        self._gathering.pop(link, None)
        parted = self._links.pop(link, None)
        if parted is None:
            return
        for owner in [owner for owner, pull in self._pulls.items() if pull.link == link]:
            del self._pulls[owner]
            self._consider(owner, now)
        for owner in [owner for owner in parted.offers if owner in self._lacking]:
            self._consider(owner, now)
        self._pull_more(now)

    def room(self, link: int, room: bool) -> None:
        """Whether a link takes bulk."""
        if link in self._links:
            self._links[link].room = room

    @property
    def caught_up(self) -> bool:
        """Whether nothing is being pulled, nor is to be."""
        return not self._pulls and not self._lacking

    def idle(self, link: int) -> bool:
        """Whether nothing is on its way to the peer, and nothing is being pulled."""
        return not self._pulls and self._links[link].idle

    def has_pulled(self, link: int) -> bool:
        """Whether something was asked for over this link."""
        return self._links[link].pulled

    def knows(self, link: int, owner: str) -> Known:
        """What the peer has said that it knows of an owner."""
        one = self._links.get(link)
        return NOTHING if one is None else one.known.get(owner, NOTHING)

    # News

    def records(self, names: Collection[str], source: int | None, now: float, *, urgent: bool) -> None:
        """There are new records: every link gets them, but the one that they came from."""
        some = dict.fromkeys(names)
        for number, link in self._links.items():
            if number == source:
                continue
            link.members.update(some)
            at = link.members_told + GATHER_URGENT if urgent else now + GATHER
            if at <= now:
                link.members_told = now
                self._busy[number] = None
            elif link.members_at is None or at < link.members_at:
                link.members_at = at
                self._gathering[number] = None

    def reply(self, link: int, message: Message) -> bool:
        """Say something over a link when there is room; whether its peer takes what it is sent."""
        one = self._links[link]
        one.replies.append(message)
        self._busy[link] = None
        return len(one.replies) <= REPLIES

    def owe(self, link: int, names: Iterable[str]) -> None:
        """A peer lacks the records of these members."""
        self._links[link].members.update(dict.fromkeys(names))
        self._busy[link] = None

    def news(self, owner: str, now: float) -> None:
        """The store knows something new of an owner."""
        self._now = now
        known = self._replica.known().get(owner)
        base = self._told_of.get(owner, NOTHING)
        if known is None or known <= base:
            if known is None:
                self._told_of.pop(owner, None)
            else:
                self._told_of[owner] = known
                # It was dead and is alive, and its leases are to be fetched: it has at least what was known of it.
                for number, link in self._links.items():
                    if link.peer == owner:
                        self._hears(number, owner, base)
            self._consider(owner, now)
            return
        self._told_of[owner] = known
        if owner in self._pulls:
            return  # it is told as a whole when the last of it is there
        source, told = self._heard_from.pop(owner, (None, NOTHING))
        via = source if source is not None and told >= known else None
        for number, link in self._links.items():
            if link.peer == via or link.known.get(owner, NOTHING) >= known:
                continue
            if via is not None and (self._linked(via, link.peer) or self._linked(owner, link.peer)):
                continue
            start = link.known.get(owner, base)
            before = link.owed.get(owner)
            link.owed[owner] = start if before is None else min(before, start)
            self._busy[number] = None
        if owner in self._lacking:
            self._consider(owner, now)

    def compare(self, link: int, theirs: Mapping[str, Known], leaves_of_mine: Iterable[str], now: float) -> None:
        """A peer has told all that it knows of some leaves; pull what it knows further."""
        self._now = now
        one = self._links[link]
        for owner in leaves_of_mine:
            if owner not in theirs:
                one.note(owner, NOTHING)
        for owner, known in theirs.items():
            if owner in self.let_go:
                continue
            one.note(owner, known)
            self._compare(owner, known, now)

    # Five verbs

    def feed(self, data: tuple[int, Message], now: float) -> None:
        """Take what a peer said of keys. Raises FrameError where it asks for more than it may."""
        self._now = now
        link, message = data
        if link not in self._links:
            return
        if isinstance(message, Change):
            self._take(link, message, now)
        elif isinstance(message, Have):
            for owner, generation, version in message.keys:
                known = Known(generation, version)
                self._hears(link, owner, known)
                self._compare(owner, known, now)
        elif isinstance(message, Pull):
            asked = self._links[link].asked
            for owner, generation, version in message.keys:
                asked[owner] = Known(generation, version)
            self._busy[link] = None
            if len(asked) > REPLIES:
                raise FrameError(CloseCode.SLOW, f"it pulls {len(asked)} owners at a time; {REPLIES} are allowed")
        elif isinstance(message, Nothing):
            self._links[link].known.pop(message.owner, None)
            self._pulled(link, message.owner, now)

    def due(self) -> float | None:
        """When `tick` is to be called; at once if some link has more to get than one round gives."""
        if any(self._links[number].room for number in self._busy):
            return 0.0
        if not self._pulls and not self._gathering:
            return None
        times = [pull.deadline for pull in self._pulls.values()]
        for number in self._gathering:
            link = self._links[number]
            times.extend(time for time in (link.announce_at, link.members_at) if time is not None)
        return min(times)

    def tick(self, now: float) -> None:
        """Say what was gathered, and ask others for what was pulled in vain."""
        self._now = now
        for number in [number for number in self._links if number in self._gathering] if self._gathering else ():
            link = self._links[number]
            if link.members_at is not None and now >= link.members_at:
                link.members_at, link.members_told = None, now
                self._busy[number] = None
            if link.announce_at is not None and now >= link.announce_at:
                link.announce_at = None
                link.replies.extend(self._announcements(link))
                self._busy[number] = None
            if link.members_at is None and link.announce_at is None:
                del self._gathering[number]
        for owner, pull in list(self._pulls.items()):
            if now >= pull.deadline:
                del self._pulls[owner]
                one = self._links.get(pull.link)
                if one is not None:
                    one.known.pop(owner, None)  # not from there again, until it says anew that it has it
                self._consider(owner, now)
        self._pull_more(now)

    def take_output(self) -> Iterable[tuple[int, bytes]]:
        """Frames for links that have room, members first; at most one round for each."""
        for number in list(self._busy):
            link, budget = self._links[number], ROUND
            while budget > 0 and (frame := self._next(number, link)) is not None:
                budget -= len(frame)
                yield number, frame
            if not link.busy:
                del self._busy[number]

    def take_events(self) -> Iterable[Refused]:
        """What was refused."""
        events, self._events = self._events, []
        return events

    # Out

    def _next(self, number: int, link: _Link) -> bytes | None:
        """The next frame for a link, in the order of lanes."""
        if not link.room:
            return None
        while link.members:
            told = self._records(link)
            if told:
                return encode(Members(told))
        if link.replies:
            return encode(link.replies.popleft())
        while link.owed:
            frame = self._owed(number, link)
            if frame is not None:
                return frame
        return self._bulk(link)

    def _records(self, link: _Link) -> tuple[Told, ...]:
        told, weight = [], 0
        for name in list(link.members):
            del link.members[name]
            one = self._told(name)
            if one is not None:
                told.append(one)
                weight += weigh(one.record)
            if weight > MEMBERS_WEIGHT:
                break
        return tuple(told)

    def _announcements(self, link: _Link) -> Iterator[Have]:
        """What is known here further than the peer has said; nothing of what it has said meanwhile."""
        known = self._replica.known()
        keys = [
            (owner, *known[owner])
            for owner in link.announce
            if owner in known and link.known.get(owner, NOTHING) < known[owner]
        ]
        link.announce.clear()
        for start in range(0, len(keys), HAVES_AT_ONCE):
            yield Have(tuple(keys[start : start + HAVES_AT_ONCE]))

    def _announce(self, number: int, owner: str) -> None:
        link = self._links[number]
        link.announce[owner] = None
        if link.announce_at is None:
            link.announce_at = self._now + ANNOUNCE_AFTER
            self._gathering[number] = None

    def _owed(self, number: int, link: _Link) -> bytes | None:
        """A small delta that a link lacks; a large one is announced instead."""
        owner = next(iter(link.owed))
        start = link.owed.pop(owner)
        if owner in link.asked or owner == link.sending:
            return None  # on its way with what was pulled; told before that it would join on to nothing
        known = self._replica.known().get(owner, NOTHING)
        if link.known.get(owner, NOTHING) >= known:
            return None
        small = self._small(owner, start, known)
        if small is None:
            self._announce(number, owner)
            return None
        link.note(owner, known)
        self.changes_sent += 1
        return small

    def _small(self, owner: str, start: Known, known: Known) -> bytes | None:
        """The frame of what leads from one to the other; None if it is large. Made once for all links."""
        if self._made is None or self._made[0] != (owner, start, known):
            delta = self._replica.missing(owner, start, PIECE)
            frames = () if delta is None or delta.known < known else encode_change(from_delta(delta, more=False))
            self._made = ((owner, start, known), frames[0] if len(frames) == 1 else None)
        return self._made[1]

    def _bulk(self, link: _Link) -> bytes | None:
        """The next frame of what a link has pulled."""
        while not link.bulk and link.asked:
            owner, start = next(iter(link.asked.items()))
            delta = self._replica.missing(owner, start, BULK)
            if delta is None:
                del link.asked[owner]
                return encode(Nothing(owner))
            more = delta.known < self._replica.known().get(owner, NOTHING)
            if more:
                link.asked[owner] = delta.known
            else:
                del link.asked[owner]
            link.note(owner, delta.known)
            link.bulk = list(reversed(encode_change(from_delta(delta, more=more))))
            link.sending = owner
            self.changes_sent += 1
        if not link.bulk:
            return None
        frame = link.bulk.pop()
        sent, link.sending = link.sending, link.sending if link.bulk else None
        if sent is not None and link.sending is None and sent not in link.asked:
            known = link.known.get(sent, NOTHING)
            if known < self._replica.known().get(sent, NOTHING):
                link.owed[sent] = known
        return frame

    # In

    def _take(self, number: int, change: Change, now: float) -> None:
        owner, delta = change.owner, to_delta(change)
        if owner in self.let_go:
            self._pulled(number, owner, now)
            return
        # Without its leases it is as little known there as where they are to be fetched.
        theirs = Known(delta.generation, 0) if delta.bare else delta.known
        self._hears(number, owner, theirs)
        self._heard_from[owner] = (self._links[number].peer, delta.known)
        try:
            new = self._replica.take(delta)
        except PeerError as error:
            self._heard_from.pop(owner, None)
            self._links[number].known.pop(owner, None)
            self._pulled(number, owner, now)
            self._events.append(Refused(number, str(error)))
            return
        if new:
            self.changes_taken += 1
        else:
            self._heard_from.pop(owner, None)
            self.changes_known += 1
            if delta.bare:
                self._links[number].note(owner, theirs)
        pull = self._pulls.get(owner)
        if pull is not None and pull.link == number:
            if change.more and new:
                pull.deadline = now + PULL_PATIENCE
            else:
                self._pulled(number, owner, now)
        self._compare(owner, delta.known, now)

    def _hears(self, number: int, owner: str, known: Known) -> None:
        link = self._links[number]
        if owner not in self.let_go and known > link.known.get(owner, NOTHING):
            link.note(owner, known)

    def _pulled(self, source: int, owner: str, now: float) -> None:
        """A pull has ended, well or in vain."""
        pull = self._pulls.get(owner)
        if pull is None or pull.link != source:
            return
        del self._pulls[owner]
        known = self._replica.known().get(owner, NOTHING)
        for number, link in self._links.items():
            if link.known.get(owner, NOTHING) < known:
                self._announce(number, owner)
        self._consider(owner, now)
        self._pull_more(now)

    def _compare(self, owner: str, theirs: Known, now: float) -> None:
        """A link has told of an owner: what it knows no further than this node needs no look at all the others."""
        if owner in self._lacking or theirs > self._replica.known().get(owner, NOTHING):
            self._consider(owner, now)

    def _consider(self, owner: str, now: float) -> None:
        """Pull what some link knows further, or note it for later."""
        if owner in self._pulls:
            return
        known = self._replica.known().get(owner, NOTHING)
        able = [number for number, link in self._links.items() if link.known.get(owner, NOTHING) > known]
        self._lacking.pop(owner, None)
        if not able:
            return
        number = self._best(owner, able)
        if number is None:
            self._lacking[owner] = None
            for one in able:
                self._links[one].offers[owner] = None
            return
        self._pulls[owner] = _Pull(number, now + PULL_PATIENCE)
        self._links[number].pulled = True
        self._links[number].replies.append(Pull(((owner, *known),)))
        self._busy[number] = None
        self.pulls += 1

    def _pull_more(self, now: float) -> None:
        """Ask links that are free for what they were noted for; each note is looked at once, however many there are."""
        if not self._lacking:
            return
        for number, link in self._links.items():
            while link.offers and len(self._pulls) < PULLS and self._pulled_over(number) < PULLS_OF_LINK:
                owner = next(iter(link.offers))
                del link.offers[owner]
                if owner in self._lacking:
                    self._consider(owner, now)

    def _pulled_over(self, number: int) -> int:
        return sum(pull.link == number for pull in self._pulls.values())

    def _best(self, owner: str, able: Iterable[int]) -> int | None:
        """Whom to ask: the owner itself, or anyone who is not asked for much already."""
        if len(self._pulls) >= PULLS:
            return None
        free = [number for number in able if self._pulled_over(number) < PULLS_OF_LINK]
        if not free:
            return None
        return next((number for number in free if self._links[number].peer == owner), None) or self._rng.choice(free)
