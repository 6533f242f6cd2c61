"""
What two nodes say to each other, as values.

Positional in MessagePack: a node may append fields, and an older one ignores
them. `wire` makes frames of them; what they mean is `cluster`'s business.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec

PROTOCOL = 1
"""The version that is spoken here; HELLO tells the range."""

Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""All that counts here; what is one more than it can still be written down."""

NAME_LIMIT = 253
"""Octets of the name of a node, as it may be in the DNS."""

Name = Annotated[str, msgspec.Meta(max_length=NAME_LIMIT)]
"""Who is spoken of; of a node that is not known nothing else is checked."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """Anything that is said over a link."""


class Reason(StrEnum):
    """Why a neighbour was accused."""

    SILENT = "silent"
    REFUSED = "refused"
    NO_ANSWER = "no_answer"
    CERTIFICATE = "certificate"
    CLOSED = "closed"


class CloseCode(IntEnum):
    """Why a link is closed on purpose."""

    LEAVING = 1
    UNWANTED = 2
    DOUBLE = 3
    WRONG_CLUSTER = 4
    VERSION = 5
    TWO_NODES = 6
    STALE = 7
    BUSY = 8
    OVERSIZE = 9
    MALFORMED = 10
    IDENTITY = 11
    QUARANTINE = 12
    SELF = 13
    SLOW = 14
    NO_HELLO = 15


class Accusation(msgspec.Struct, frozen=True, array_like=True):
    """A neighbour that could not be reached: of which generation and incarnation, and why."""

    name: Name
    generation: Number
    incarnation: Number
    reason: str


class Record(msgspec.Struct, frozen=True, array_like=True):
    """
    A member as it describes itself; nobody else writes it.

    `sequence` grows with each change within a generation, `incarnation` when it
    refutes that it is gone. `endpoints` are where to dial ("10.0.0.1:62501"),
    `addresses` all that its host is known by.
    """

    name: str
    generation: Number
    incarnation: Number
    sequence: Number
    endpoints: tuple[str, ...]
    addresses: tuple[str, ...]
    left: bool = False
    accuses: tuple[Accusation, ...] = ()


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A record passed on; `dead` is the teller's verdict, for who has never heard of that member."""

    record: Record
    dead: bool = False


class Hello(Message, frozen=True, array_like=True):
    """
    The first thing that each end says.

    `nonce` is drawn at each start, so that a cloned disk is seen; `clock` is the
    host's time in milliseconds, `root` the digest of all that is known. `fresh`
    says that the sender has lost what it knew of itself, its generation too.
    """

    least: Number
    most: Number
    cluster: str
    name: str
    generation: Number
    nonce: Number
    clock: Number
    root: bytes
    fresh: bool


class Close(Message, frozen=True, array_like=True):
    """The last thing; `code` is a CloseCode, `text` for people."""

    code: Number
    text: str


class Ping(Message, frozen=True, array_like=True):
    """Are you there?"""

    number: Number


class Pong(Message, frozen=True, array_like=True):
    """Here I am, and this is the digest of all that I know."""

    number: Number
    root: bytes


class Members(Message, frozen=True, array_like=True):
    """Records that the other end may lack."""

    told: tuple[Told, ...]


class Doubted(Message, frozen=True, array_like=True):
    """
    Members that are dead for the sender: (name, generation, incarnation).

    Said to one who comes back, and passed on by whoever thinks otherwise, until
    it reaches them and they refute it.
    """

    lives: tuple[tuple[Name, Number, Number], ...]


class Digest(Message, frozen=True, array_like=True):
    """The leaves of both digests that are not zero: members, then keys."""

    members: bytes
    keys: bytes


class Frontier(Message, frozen=True, array_like=True):
    """
    All that the sender knows in some leaves: (name, generation, sequence) and (owner, generation, version).

    `member_leaves` and `key_leaves` are the indices of those leaves, one octet
    each. `answer` asks for the same of the other end.
    """

    member_leaves: bytes
    members: tuple[tuple[Name, Number, Number], ...]
    key_leaves: bytes
    keys: tuple[tuple[Name, Number, Number], ...]
    answer: bool


class Have(Message, frozen=True, array_like=True):
    """Namespaces that are known further than the other end may know them."""

    keys: tuple[tuple[Name, Number, Number], ...]


class Pull(Message, frozen=True, array_like=True):
    """Asks for what leads on from (owner, generation, version)."""

    keys: tuple[tuple[Name, Number, Number], ...]


class Put(msgspec.Struct, frozen=True, array_like=True):
    """An entry in a delta; stamps are (milliseconds, counter, node)."""

    key: str
    value: bytes
    durable: bool
    version: Number
    created: tuple[Number, Number, Name]
    written: tuple[Number, Number, Name]


class Change(Message, frozen=True, array_like=True):
    """
    A delta of one owner's namespace.

    `more`: it was asked for with a Pull, and the next one follows unasked.
    """

    owner: Name
    generation: Number
    since: Number
    version: Number
    settled: bool
    bare: bool
    more: bool
    puts: tuple[Put, ...]
    deletes: tuple[str, ...]


class Piece(Message, frozen=True, array_like=True):
    """A piece of the body of a Change that is too large for one frame; it was asked for with a Pull."""

    last: bool
    data: bytes


class Stored(Message, frozen=True, array_like=True):
    """The other end's own durable entries are on this disk, up to (generation, version)."""

    generation: Number
    version: Number


class Nothing(Message, frozen=True, array_like=True):
    """To a Pull: there is nothing more of this owner here than was asked from."""

    owner: Name
