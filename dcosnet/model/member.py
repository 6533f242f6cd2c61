"""A member: any node that this one knows of, and whether it can be reached."""

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
