"""Members as a test says they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zope.interface import implementer

from dcosnet.interfaces import IMembership
from dcosnet.model.cell import Cell, Later
from dcosnet.model.member import Member, MemberDetail, Refusal


@implementer(IMembership)
class FakeMembership:
    """
    An IMembership that says what it is told with `put` and `drop`.

    `fares` are the details of members, by name; `refused` is given as it is.
    """

    def __init__(self, members: Iterable[Member], later: Later, unsynced: str | None = None) -> None:
        self._members = {member.name: member for member in members}
        self.members: Cell[Mapping[str, Member]] = Cell(dict(self._members), later)
        self.unsynced: Cell[str | None] = Cell(unsynced, later)
        self.fares: dict[str, MemberDetail] = {}
        self.refused: Sequence[Refusal] = ()

    def put(self, *members: Member) -> None:
        """These are members now, or have changed."""
        self._publish({member.name: member for member in members}, ())

    def drop(self, *names: str) -> None:
        """These are forgotten."""
        self._publish({}, names)

    def details(self) -> Mapping[str, MemberDetail]:
        """What `fares` says, and nothing in particular of the others."""
        return {name: self.fares.get(name, MemberDetail()) for name in self._members}

    def refusals(self) -> Sequence[Refusal]:
        """What `refused` says."""
        return self.refused

    def _publish(self, put: Mapping[str, Member], dropped: Iterable[str]) -> None:
        gone = frozenset(dropped)
        self._members = {name: member for name, member in (self._members | dict(put)).items() if name not in gone}
        self.members.publish(dict(self._members), gone | put.keys())
