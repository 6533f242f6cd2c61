"""
Who is there, as the other parts see it.

Without a cluster that is this node alone. Ages are told to who looks, so this
knows the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs
from zope.interface import implementer

from dcosnet.gossip.table import MemberView
from dcosnet.interfaces import IMembership
from dcosnet.model.cell import Cell, Later
from dcosnet.model.member import Accusation, Member, MemberDetail, Refusal
from dcosnet.model.net import Address, parse_address
from dcosnet.model.node import Node

REFUSALS = 64
"""Refusals that are kept, the last ones."""
REFUSED_FOR = 600.0
"""Seconds for which a refusal is shown."""

_CLOCK_OFF = 10.0


@attrs.frozen
class _Refused:
    text: str
    at: float
    count: int


@implementer(IMembership)
class Membership:
    """
    The members by name; this node is one of them from the beginning, and alive.

    `seconds` is a time that does not jump, and the one that the core is given.
    """

    def __init__(self, node: Node, later: Later, seconds: Callable[[], float], unsynced: str | None = None) -> None:
        self._this = Member(node.name, (node.address,))
        self._seconds = seconds
        self._views: Mapping[str, MemberView] = {}
        self._superseded: Callable[[], str | None] = lambda: None
        self._refusals: dict[tuple[str, str, bool], _Refused] = {}
        self.members: Cell[Mapping[str, Member]] = Cell({node.name: self._this}, later)
        self.unsynced: Cell[str | None] = Cell(unsynced, later)

    def follow(self, views: Mapping[str, MemberView], superseded: Callable[[], str | None]) -> None:
        """Show these from now on; `update` says what has changed in them."""
        self._views = views
        self._superseded = superseded

    def update(self, names: Iterable[str]) -> Sequence[tuple[MemberView, Member | None]]:
        """Publish what changed of these; gives the others whose state is another one, and what they were."""
        members = dict(self.members.value)
        changed, moved = set(), []
        for name in names:
            if name == self._this.name:
                continue  # it is alive for as long as it can say so
            view, before = self._views.get(name), members.get(name)
            if view is None:
                members.pop(name, None)
            else:
                members[name] = Member(name, tuple(_addresses(view)), view.state)
                if before is None or before.state is not view.state:
                    moved.append((view, before))
            if members.get(name) != before:
                changed.add(name)
        self.members.publish(members, frozenset(changed))
        return moved

    def sync(self) -> None:
        """All that a peer knew is known here, or there is nobody to ask."""
        if self.unsynced.value is not None:
            self.unsynced.publish(None)

    def refuse(self, peer: str, reason: str, text: str, *, theirs: bool) -> bool:
        """Note a refusal; whether it is news, and not what was refused before."""
        key, now = (peer, reason, theirs), self._seconds()
        before = self._refusals.pop(key, None)
        known = before is not None and now - before.at < REFUSED_FOR
        self._refusals[key] = _Refused(text, now, before.count + 1 if before is not None and known else 1)
        if len(self._refusals) > REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        return not known

    def details(self) -> Mapping[str, MemberDetail]:
        """As IMembership says."""
        return {name: self._detail(name) for name in self.members.value}

    def refusals(self) -> Sequence[Refusal]:
        """As IMembership says."""
        now = self._seconds()
        return [
            Refusal(peer, reason, one.text, theirs, max(0.0, now - one.at), one.count)
            for (peer, reason, theirs), one in reversed(self._refusals.items())
            if now - one.at < REFUSED_FOR
        ]

    def _detail(self, name: str) -> MemberDetail:
        view = self._views.get(name)
        if view is None:
            return MemberDetail()
        now = self._seconds()
        accused_by = tuple(
            Accusation(accuser, reason, max(0.0, now - since)) for accuser, reason, since in view.accused_by
        )
        return MemberDetail(
            age=max(0.0, now - view.since),
            endpoints=view.endpoints,
            generation=view.generation,
            incarnation=view.incarnation,
            linked=view.linked,
            rtt=view.rtt,
            skew=view.skew,
            degraded=view.degraded,
            accused_by=accused_by,
            problem=view.problem if name != self._this.name else self._own_problem(view),
        )

    def _own_problem(self, own: MemberView) -> str | None:
        superseded = self._superseded()
        if superseded is not None:
            return superseded
        skews = [view.skew for view in self._views.values() if view.skew is not None]
        # Of two clocks that differ, nobody can say which is wrong.
        usual = sorted(skews)[len(skews) // 2] if len(skews) > 1 else 0.0
        if abs(usual) > _CLOCK_OFF:
            way = "behind" if usual > 0 else "ahead of"
            return f"this host's clock is {abs(usual):.0f} s {way} the others; set it"
        if own.accused_by:
            return f"{', '.join(accuser for accuser, _, _ in own.accused_by[:3])} cannot reach this node"
        return None


def _addresses(view: MemberView) -> Iterable[Address]:
    """Those that are addresses; what another node writes is not to be relied on."""
    for text in view.addresses:
        try:
            yield parse_address(text)
        except ValueError:
            continue
