"""
Who is there: the records of all members, and the verdicts that follow from them.

Each record is written by its member alone, so there is nothing to merge: of two
the one with the greater (generation, sequence) is newer. Verdicts are not
exchanged; they are folded from the accusations in the records, and from time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import attrs
import msgspec

from dcosnet.errors import PeerError
from dcosnet.gossip.digest import Digest
from dcosnet.gossip.messages import NAME_LIMIT, Accusation, Reason, Record, Told
from dcosnet.gossip.rings import Rings
from dcosnet.gossip.verdict import Court
from dcosnet.model.member import MemberState

DEAD_AFTER, DEAD_LATEST = 5.0, 30.0
"""Seconds from unreachable to dead: if all observers agree, and if only just enough of them do."""

FLAPS_FOR = 600.0
HOLD_MOST = 60.0
"""Who was unreachable several times within FLAPS_FOR seconds stays so for longer each time, up to HOLD_MOST."""

SHARED_FOR, KEPT_FOR = 36 * 3600.0, 72 * 3600.0
"""Seconds for which one that is gone is told to others, and remembered."""

ACCUSED_FOR = 120.0
"""Seconds for which the accusation of a dead member stays, so that slower nodes come to the same verdict."""

REFUTES_EVERY = 1.0

ENDPOINTS_LIMIT, ADDRESSES_LIMIT, ACCUSES_LIMIT = 16, 64, 128
RECORD_LIMIT = 40_000
"""Octets of a record: whoever passes it on has others in the same frame."""

MEMBERS_LIMIT = 5000

_encoder = msgspec.msgpack.Encoder()


@attrs.frozen
class MemberView:
    """A member as this node sees it; times are seconds of the caller's clock."""

    name: str
    state: MemberState
    generation: int
    incarnation: int
    sequence: int
    endpoints: tuple[str, ...]
    addresses: tuple[str, ...]
    since: float
    degraded: bool = False
    accused_by: tuple[tuple[str, str, float], ...] = ()
    rtt: float | None = None
    linked: bool = False
    skew: float | None = None
    problem: str | None = None


class FullError(PeerError):
    """There are as many members as are remembered; whoever tells of one more is not to blame."""


class _Member:
    __slots__ = ("accused", "agreed", "back_at", "dead", "flaps", "jury", "record", "since", "state", "unreachable")

    def __init__(self, record: Record, now: float, *, dead: bool) -> None:
        self.record = record
        self.dead = dead
        self.state = MemberState.LEFT if record.left else MemberState.DEAD if dead else MemberState.ALIVE
        self.since = now
        self.accused: dict[str, float] = {}
        """Who accuses it, since when; also of what is past by now."""
        self.unreachable: float | None = None
        """Since when the observers say so."""
        self.jury: frozenset[str] | None = None
        """Who its observers were when they began to say so, or when it last spoke."""
        self.agreed = 1.0
        self.back_at: float | None = None
        """When it counts as alive again, while it comes back."""
        self.flaps: deque[float] = deque(maxlen=16)

    @property
    def is_settled(self) -> bool:
        """Whether it stays what it is until something is heard of it."""
        if self.record.left:
            return self.state is MemberState.LEFT
        if self.dead:
            return self.state is MemberState.DEAD
        return self.state is MemberState.ALIVE and self.unreachable is None


class Table:
    """
    All members, this one among them.

    `take` and the verbs of the own record change records; `judge` draws the
    verdicts, and gives the names whose state or record changed since last time.
    """

    def __init__(self, own: Record, now: float) -> None:
        self.name = own.name
        self.digest = Digest()
        self.ring = Rings()
        """All but the dead and those that left: unreachable ones keep their observers."""
        self.live = Rings()
        """As if the unreachable were gone, so that survivors link with each other."""
        self.superseded: str | None = None
        self.fresh = False
        """Whether this node has lost its disk, and so may have been of a greater generation; the caller says so."""
        self.outlived = 0
        """The greatest generation in which others have known this node."""
        self.refutations = 0
        self.held_back = now
        """Verdicts of death wait for the longest time where unreachability began before this."""
        self.peers: AbstractSet[str] = frozenset()
        """Whom this node has links with; the caller keeps it up to date."""
        self._members: dict[str, _Member] = {}
        self._accusing: set[str] = set()
        """Who accuses anybody."""
        self._changed: set[str] = set()
        self._open: set[str] = set()
        """Whose state may become another one though nothing is heard."""
        self._dirty = True
        self._judge_at: float | None = None
        self._judged_at = now - 1.0
        self._refuted_at = now - REFUTES_EVERY
        self._doubted = False
        self._unshared: set[str] = set()
        self._past: list[str] = []
        self._sweep_at = now + 60.0
        self._put(own, now, dead=False)

    # What is known

    @property
    def own(self) -> Record:
        """This node's record."""
        return self._members[self.name].record

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __len__(self) -> int:
        return len(self._members)

    @property
    def names(self) -> Iterable[str]:
        """All members that are remembered."""
        return self._members.keys()

    def state(self, name: str) -> MemberState | None:
        """The last verdict on a member; None for one that is not known."""
        member = self._members.get(name)
        return None if member is None else member.state

    def record(self, name: str) -> Record | None:
        """What a member says of itself."""
        member = self._members.get(name)
        return None if member is None else member.record

    def told(self, name: str) -> Told | None:
        """A record as it is passed on; None where it is not known, or gone for too long to be spoken of."""
        member = self._members.get(name)
        if member is None or name in self._unshared:
            return None
        return Told(member.record, member.dead)

    def view(self, name: str) -> MemberView:
        """A member for people; what links know is not in it. KeyError if it is not known."""
        member = self._members[name]
        record = member.record
        accused = tuple(
            (accuser, accusation.reason, since)
            for accuser, since in member.accused.items()
            if (accusation := self._accusation(accuser, name)) is not None
        )
        degraded = bool(accused) and member.state is MemberState.ALIVE
        return MemberView(
            name,
            member.state,
            record.generation,
            record.incarnation,
            record.sequence,
            record.endpoints,
            record.addresses,
            member.since,
            degraded,
            accused,
        )

    @property
    def untold(self) -> AbstractSet[str]:
        """Who has been gone for so long that nobody is told of it any more."""
        return self._unshared

    @property
    def wanted(self) -> frozenset[str]:
        """Whom this node is to be linked with."""
        ring, live = self.ring.neighbours(self.name), self.live.neighbours(self.name)
        return ring if ring == live else ring | live

    def observes(self, name: str) -> bool:
        """Whether this node is one whose word counts on a member."""
        return name in self.wanted

    def accuses(self, name: str) -> bool:
        """Whether this node accuses a member of what it now is."""
        return self._accusation(self.name, name) is not None

    def linked_as_wanted(self, one: str, other: str) -> bool:
        """Whether the rings link two members, and neither accuses the other."""
        return one in self.ring and other in self.ring.neighbours(one) and not self._down(one, other)

    # Records

    def take(self, told: Told, now: float) -> bool:
        """Hear a record; whether it was new. Raises PeerError for one that no member would write, or FullError."""
        record = told.record
        name = record.name
        before = self._members.get(name)
        if before is not None and name != self.name and record == before.record:
            return False  # nearly all that comes has come another way already
        check_record(record)
        if name == self.name:
            self._take_own(record)
            return False
        if before is not None and _age(record) <= _age(before.record):
            return False
        if before is None and len(self._members) >= MEMBERS_LIMIT:
            raise FullError(f"{name} would be member {MEMBERS_LIMIT + 1}; more are not remembered")
        self._put(record, now, dead=told.dead)
        return True

    def set_own(self, now: float, **changes: object) -> None:
        """Change something of this node's own record; it is news then."""
        record = msgspec.structs.replace(self.own, sequence=self.own.sequence + 1, **changes)
        self._put(record, now, dead=False)

    def accuse(self, name: str, reason: Reason, now: float) -> bool:
        """Accuse a neighbour of being gone; whether that is new."""
        target = self.record(name)
        if target is None or target.left or not self.observes(name) or self.accuses(name):
            return False
        others = tuple(one for one in self.own.accuses if one.name != name)
        if len(others) >= ACCUSES_LIMIT:
            return False
        accusation = Accusation(name, target.generation, target.incarnation, reason)
        self.set_own(now, accuses=(*others, accusation))
        return True

    def absolve(self, name: str, now: float) -> bool:
        """Take an accusation back; whether there was one."""
        if not any(one.name == name for one in self.own.accuses):
            return False
        self.set_own(now, accuses=tuple(one for one in self.own.accuses if one.name != name))
        return True

    def is_accused(self) -> bool:
        """Whether others accuse this node of what it now is."""
        accusations = (self._accusation(accuser, self.name) for accuser in self._members[self.name].accused)
        # Of a life that is still to come nobody can know anything; it would be refuted for ever.
        return any(one is not None and (one.generation, one.incarnation) == _life(self.own) for one in accusations)

    def doubt(self, name: str, life: tuple[int, int]) -> bool:
        """Hear that a member is dead for somebody; whether it is to be told to others, who may reach it."""
        member = self._members.get(name)
        if member is None or _life(member.record) != life or member.record.left:
            return False
        if name == self.name:
            self._doubted = self._dirty = True
            return False
        return not member.dead

    def is_dead(self, name: str) -> bool:
        """Whether a member's present life is over; its state may still be dead in the next one."""
        member = self._members.get(name)
        return member is not None and member.dead

    def life(self, name: str) -> tuple[int, int] | None:
        """Generation and incarnation of a member."""
        member = self._members.get(name)
        return None if member is None else _life(member.record)

    def supersede(self, why: str) -> None:
        """Hear that a newer process has this node's name; the first word stays."""
        self.superseded = self.superseded or why

    def _take_own(self, record: Record) -> None:
        self.outlived = max(self.outlived, record.generation)
        if self.outlived >= self.own.generation and self.fresh:
            return  # what this node was before it lost its disk; the caller lets it go beyond
        if _age(record) > _age(self.own):
            self.supersede(
                f"another process calls itself {self.name} and is newer (generation {record.generation}, here "
                f"{self.own.generation}); give one of them another node.name, or stop it"
            )

    def _put(self, record: Record, now: float, *, dead: bool) -> None:
        name = record.name
        member = self._members.get(name)
        before: Record | None = None
        if member is None:
            member = self._members[name] = _Member(record, now, dead=dead)
        else:
            before, member.record = member.record, record
            if _life(record) > _life(before):
                member.dead = False
                member.unreachable = member.jury = None
                if member.state is MemberState.DEAD:
                    member.since = now
                if record.generation > before.generation:
                    member.flaps.clear()
        self._index(record, before, member, now)
        if member.jury is not None:
            member.jury = self.ring.neighbours(name)
        self._unshared.discard(name)
        self.digest.put(name, (record.generation, record.sequence))
        self._place(name, member)
        self._changed.add(name)
        self._dirty = True

    def _index(self, record: Record, before: Record | None, member: _Member, now: float) -> None:
        """Note with each accused member who accuses it."""
        name, past = record.name, () if before is None else before.accuses
        (self._accusing.add if record.accuses else self._accusing.discard)(name)
        for accusation in past:
            if accusation not in record.accuses and accusation.name in self._members:
                self._members[accusation.name].accused.pop(name, None)
                self._changed.add(accusation.name)
        for accusation in record.accuses:
            if accusation not in past and accusation.name in self._members:
                self._members[accusation.name].accused[name] = now
                self._changed.add(accusation.name)
        if before is None:
            # Accusations may come before the record of whom they are about.
            for accuser in self._accusing:
                if any(one.name == name for one in self._members[accuser].record.accuses):
                    member.accused.setdefault(accuser, now)

    def _place(self, name: str, member: _Member) -> None:
        gone = member.dead or member.record.left
        (self.ring.discard if gone else self.ring.add)(name)
        away = gone or member.state in (MemberState.UNREACHABLE, MemberState.DEAD)
        (self.live.discard if away else self.live.add)(name)

    # Verdicts

    def due(self) -> float:
        """When `judge` is to be called, if nothing is heard."""
        due = self._sweep_at
        if self._judge_at is not None:
            due = min(due, self._judge_at)
        if self._dirty:
            # A thousand records in a burst are not a thousand walks of the graph.
            due = min(due, self._judged_at + len(self._members) / 20_000)
        return due

    def judge(self, now: float) -> frozenset[str]:
        """Draw the verdicts of this moment; the members whose state or record changed since last time."""
        if now >= self._sweep_at:
            self._sweep(now)
        if not self._dirty and (self._judge_at is None or now < self._judge_at):
            return frozenset()
        self._dirty, self._judge_at, self._judged_at = False, None, now
        self._refute(now)
        verdicts = self._verdicts()
        # Of all others nothing is new: they are what they were.
        open_ = (self._open | self._changed | verdicts.keys()) - {self.name}
        for name in [name for name in self._members if name in open_] if open_ else ():
            member = self._members[name]
            self._decide(name, member, verdicts.get(name), now)
            (self._open.discard if member.is_settled else self._open.add)(name)
        changed, self._changed = frozenset(self._changed), set()
        return changed

    def _decide(self, name: str, member: _Member, agreed: float | None, now: float) -> None:
        """Bring one member's state to what its record, its observers' verdict and the time say."""
        if member.record.left:
            self._set(name, member, MemberState.LEFT, now)
            return
        if member.dead:
            self._set(name, member, MemberState.DEAD, now)
            return
        if agreed is None:
            member.unreachable = member.jury = None
            self._let_back(name, member, now)
            return
        member.back_at = None
        member.agreed = agreed
        if member.unreachable is None:
            member.unreachable = now
            member.jury = self.ring.neighbours(name)
            if member.state is MemberState.ALIVE:
                self._flap(member, now)
        dies = member.unreachable + self._patience(member)
        if now >= dies:
            member.dead = True
            self._set(name, member, MemberState.DEAD, now)
        else:
            self._judge_later(dies)
            self._keep_away(name, member, now)

    def _keep_away(self, name: str, member: _Member, now: float) -> None:
        """Whose last life was dead stays dead until it comes back; its word alone is no sign that it can be reached."""
        if member.state is not MemberState.DEAD:
            self._set(name, member, MemberState.UNREACHABLE, now)

    def _patience(self, member: _Member) -> float:
        if member.unreachable is not None and member.unreachable <= self.held_back:
            return DEAD_LATEST
        return DEAD_AFTER + (DEAD_LATEST - DEAD_AFTER) * (1.0 - member.agreed)

    def _flap(self, member: _Member, now: float) -> None:
        while member.flaps and now - member.flaps[0] > FLAPS_FOR:
            member.flaps.popleft()
        member.flaps.append(now)

    def _let_back(self, name: str, member: _Member, now: float) -> None:
        """Nobody says any more that it is gone: at once the first time, later each time that it comes back."""
        if member.state is not MemberState.ALIVE:
            if member.back_at is None:
                again = len(member.flaps) - 1
                member.back_at = now if again < 1 else now + min(HOLD_MOST, 2.0**again)
            if now < member.back_at:
                self._judge_later(member.back_at)
                self._keep_away(name, member, now)
                return
        member.back_at = None
        self._set(name, member, MemberState.ALIVE, now)

    def _judge_later(self, at: float) -> None:
        self._judge_at = at if self._judge_at is None else min(self._judge_at, at)

    def _set(self, name: str, member: _Member, state: MemberState, now: float) -> None:
        if member.state is state:
            return
        member.state = state
        member.since = now
        self._changed.add(name)
        self._place(name, member)
        self._dirty = True  # others have other neighbours now

    def _refute(self, now: float) -> None:
        """If others say that this node is gone, say that it is not."""
        if self.own.left or not (self._doubted or self.is_accused()):
            return
        if now < self._refuted_at + REFUTES_EVERY:
            self._judge_later(self._refuted_at + REFUTES_EVERY)
            return
        self._refuted_at = now
        self._doubted = False
        self.refutations += 1
        self.set_own(now, incarnation=self.own.incarnation + 1)
        self._dirty = False

    def _verdicts(self) -> Mapping[str, float]:
        """Who is unreachable, and how far its observers agree."""
        accusers: dict[str, set[str]] = {}
        for accuser in self._accusing:
            for one in self._members[accuser].record.accuses:
                if self._is_present(one):
                    accusers.setdefault(one.name, set()).add(accuser)
        if not accusers:
            return {}
        juries = {name: member.jury for name, member in self._members.items() if member.jury is not None}
        return Court(self.name, self.ring, accusers, juries, self.peers).verdicts()

    def _down(self, one: str, other: str) -> bool:
        return self._accusation(one, other) is not None or self._accusation(other, one) is not None

    def _accusation(self, accuser: str, target: str) -> Accusation | None:
        """An accusation that is not of the past."""
        accused = self._members.get(target)
        if accused is None or accuser not in accused.accused:
            return None
        for one in self._members[accuser].record.accuses:
            if one.name == target:
                return one if self._is_present(one) else None
        return None

    def _is_present(self, accusation: Accusation) -> bool:
        """
        Whether it is about what the accused now is, or will be once we hear of it.

        A further incarnation of the same process does not make it reachable: that
        is over when the accuser takes it back.
        """
        accused = self._members.get(accusation.name)
        return accused is not None and accusation.generation >= accused.record.generation

    # Memory

    def forgotten(self) -> tuple[str, ...]:
        """Members that were remembered for long enough, taken from the table now."""
        names, self._past = tuple(dict.fromkeys(self._past)), []
        for name in names:
            self._unshared.discard(name)
            self._open.discard(name)
            member = self._members.pop(name)
            self._accusing.discard(name)
            for accusation in member.record.accuses:
                if accusation.name in self._members:
                    self._members[accusation.name].accused.pop(name, None)
            self.ring.discard(name)
            self.live.discard(name)
        return names

    def _sweep(self, now: float) -> None:
        """Let go of what is past: old accusations of this node's own, and members that are long gone."""
        self._sweep_at = now + 60.0
        for accusation in self.own.accuses:
            member = self._members.get(accusation.name)
            if member is None or not self._is_present(accusation):
                self.absolve(accusation.name, now)
            elif member.dead and now - member.since <= ACCUSED_FOR:
                continue
            elif not member.dead and member.jury is not None and self.name in member.jury:
                continue  # it is judged by who observed it when it went
            elif not self.observes(accusation.name):
                # This node does not look after it any more, and would not learn that it is back.
                self.absolve(accusation.name, now)
        for name, member in self._members.items():
            if name == self.name or member.state not in (MemberState.DEAD, MemberState.LEFT):
                continue
            gone = now - member.since
            if gone > KEPT_FOR:
                self._past.append(name)
            elif gone > SHARED_FOR and name not in self._unshared:
                self._unshared.add(name)
                self.digest.put(name, None)


def _age(record: Record) -> tuple[int, int]:
    return record.generation, record.sequence


def _life(record: Record) -> tuple[int, int]:
    return record.generation, record.incarnation


def check_name(name: str) -> None:
    """Raise PeerError for what no node can be called; `config/node` has the rule for people."""
    if not name.strip() or "/" in name or not name.isprintable() or len(name.encode()) > NAME_LIMIT:
        raise PeerError(f"{name[:40]!r} is no name of a node")


def check_record(record: Record) -> None:
    """Raise PeerError for a record that no member would write."""
    check_name(record.name)
    for what, count, limit in (
        ("endpoints", len(record.endpoints), ENDPOINTS_LIMIT),
        ("addresses", len(record.addresses), ADDRESSES_LIMIT),
        ("accusations", len(record.accuses), ACCUSES_LIMIT),
    ):
        if count > limit:
            raise PeerError(f"the record of {record.name} has {count} {what}; {limit} are allowed")
    if any(len(text) > NAME_LIMIT + 6 for text in (*record.endpoints, *record.addresses)):
        raise PeerError(f"the record of {record.name} has an address that is none")
    if len({one.name for one in record.accuses}) < len(record.accuses):
        raise PeerError(f"the record of {record.name} accuses somebody twice")
    if weigh(record) > RECORD_LIMIT:
        raise PeerError(f"the record of {record.name} has {weigh(record)} octets; {RECORD_LIMIT} are allowed")


def weigh(record: Record) -> int:
    """How many octets a record has on the wire."""
    return len(_encoder.encode(record))
