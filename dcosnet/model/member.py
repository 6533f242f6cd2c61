"""
A member: any node that this one knows of, and whether it can be reached.

`Member` is what others decide by. The rest is for who looks: it changes with
each round trip, so it is asked for and never published. Its times are ages in
seconds, because a page that tells of wrong clocks must not depend on one.
"""

from __future__ import annotations

from enum import StrEnum

import attrs

from dcosnet.model.net import Address


class MemberState(StrEnum):
    """Unreachable is quick and reversible and steers traffic; dead is slow and ends leases."""

    ALIVE = "alive"
    UNREACHABLE = "unreachable"
    DEAD = "dead"
    LEFT = "left"


@attrs.frozen
class Member:
    """A node as membership sees it."""

    name: str
    addresses: tuple[Address, ...]
    state: MemberState = MemberState.ALIVE


@attrs.frozen
class Accusation:
    """
    That somebody cannot reach a member: who, and why as a word ("silent").

    `age` is for how long that has been known here.
    """

    accuser: str
    reason: str
    age: float


@attrs.frozen
class MemberDetail:
    """
    How a member fares, as this node sees it.

    `age` is how long its state has lasted, None where nobody measured. `degraded`: some cannot reach it, and
    not so many that it would be unreachable. `rtt` and `skew`, by how much its
    clock is ahead of ours, are known of members that this node is linked with.
    `problem` is for people: what somebody should look at, or None.
    """

    age: float | None = None
    endpoints: tuple[str, ...] = ()
    generation: int = 0
    incarnation: int = 0
    linked: bool = False
    rtt: float | None = None
    skew: float | None = None
    degraded: bool = False
    accused_by: tuple[Accusation, ...] = ()
    problem: str | None = None


@attrs.frozen
class Refusal:
    """
    A link that was not made, or was cut: with whom, and why.

    `peer` is a name where one was proven, else an endpoint. `reason` is a word
    ("wrong_cluster"), `text` for people. `theirs` says that the other end
    refused. `age` is of the last of `count` times.
    """

    peer: str
    reason: str
    text: str
    theirs: bool
    age: float
    count: int = 1
