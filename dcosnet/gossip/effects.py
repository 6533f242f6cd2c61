"""What the core wants done, and what it tells: the values between `cluster` and whoever drives it."""

from __future__ import annotations

import attrs

from dcosnet.gossip.messages import CloseCode


@attrs.frozen
class Write:
    """Send these bytes over a link; `link` is the number it was opened with."""

    link: int
    data: bytes


@attrs.frozen
class Dial:
    """
    Connect to an endpoint ("10.0.0.1:62501"), within `timeout` seconds.

    Answered by `opened` with this number as the link's, or by `unreached`.
    `name` is who is expected there, None for a seed; with certificates nobody
    else is to be accepted.
    """

    link: int
    endpoint: str
    name: str | None
    timeout: float


@attrs.frozen
class Hang:
    """Close a link; gracefully, so that what was written before arrives, or at once. No `closed` is to follow."""

    link: int
    graceful: bool


Effect = Write | Dial | Hang


@attrs.frozen
class MembersChanged:
    """The state or the record of these members is another one now; `Cluster.members` shows them."""

    names: frozenset[str]


@attrs.frozen
class LinkRefused:
    """A link was refused, by this end or by the other ("theirs"): with whom, why, and for people in words."""

    who: str
    code: CloseCode
    theirs: bool
    text: str


@attrs.frozen
class Superseded:
    """Another process of this name is newer: this one stops taking part. For people in words."""

    text: str


@attrs.frozen
class Paused:
    """This process did not run for so many seconds."""

    seconds: float


@attrs.frozen
class ClockDiffers:
    """The clock of a peer is so many seconds ahead of this host's, or behind: more than people should put up with."""

    who: str
    ahead: float


Event = MembersChanged | LinkRefused | Superseded | Paused | ClockDiffers
