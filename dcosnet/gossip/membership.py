"""Who is there. Without peers that is this node alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from dcosnet.interfaces import IMembership
from dcosnet.model.cell import Cell, Later
from dcosnet.model.member import Member, MemberDetail, Refusal
from dcosnet.model.node import Node


@implementer(IMembership)
class Membership:
    """The members by name; this node is one of them from the beginning, and alive."""

    def __init__(self, node: Node, later: Later) -> None:
        this = Member(node.name, (node.address,))
        self.members: Cell[Mapping[str, Member]] = Cell({this.name: this}, later)
        self.unsynced: Cell[str | None] = Cell(None, later)

    def details(self) -> Mapping[str, MemberDetail]:
        return dict.fromkeys(self.members.value, MemberDetail())

    def refusals(self) -> Sequence[Refusal]:
        return ()
