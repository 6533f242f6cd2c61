#!/usr/bin/env python3
"""
Writes the corpus for fuzzing: good frames, one a file, at least one of each type.

Run it when the protocol changes; a test compares what it would write with what is there.
"""

from __future__ import annotations

from pathlib import Path

from dcosnet.gossip.digest import Digest as Leaves
from dcosnet.gossip.messages import (
    Accusation,
    Change,
    Close,
    Digest,
    Doubted,
    Frontier,
    Have,
    Hello,
    Members,
    Message,
    Nothing,
    Piece,
    Ping,
    Pong,
    Pull,
    Put,
    Record,
    Stored,
    Told,
)
from dcosnet.gossip.wire import encode

CORPUS = Path(__file__).with_name("corpus")

_KNOWN = (("host-a", 1_700_000_000_000, 3), ("host-b", 7, 1), ("télé", 1, 0))
_STAMP = (1_700_000_000_000, 2, "host-b")
_RECORD = Record(
    "host-b",
    7,
    1,
    5,
    ("10.0.0.2:62501", "[fd01::2]:62501"),
    ("10.0.0.2",),
    False,
    (Accusation("host-c", 9, 0, "silent"),),
)
_PUTS = (
    Put("task/web", b"x" * 40, False, 1, _STAMP, _STAMP),
    Put("registry/prod", b"\x00\xff", True, 2, _STAMP, _STAMP),
)


def frames() -> dict[str, bytes]:
    """By file name."""
    leaves = Leaves()
    leaves.put("host-b", (7, 5))
    messages: dict[str, Message] = {
        "hello": Hello(1, 1, "prod", "host-b", 7, 99, 1_700_000_000_000, bytes(8), fresh=False),
        "close": Close(10, "what cannot be read"),
        "ping": Ping(1),
        "pong": Pong(1, bytes(range(8))),
        "members": Members((Told(_RECORD), Told(Record("host-c", 9, 0, 1, ("10.0.0.3:62501",), ()), True))),
        "members-left": Members((Told(Record("host-d", 1, 0, 2, (), (), True)),)),
        "digest": Digest(leaves.told(), leaves.told()),
        "frontier": Frontier(b"\x00\xa6", _KNOWN, b"\x01\xa6", _KNOWN, True),
        "have": Have(_KNOWN),
        "pull": Pull(_KNOWN),
        "change": Change("host-b", 7, 0, 2, True, False, False, _PUTS, ("task/gone",)),
        "change-more": Change("host-b", 7, 2, 3, False, False, True, (), ("task/web",)),
        "piece": Piece(False, b"\x99\xa6host-b"),
        "stored": Stored(1_700_000_000_000, 3),
        "nothing": Nothing("host-b"),
        "doubted": Doubted(_KNOWN),
    }
    return {f"{name}.bin": encode(message) for name, message in messages.items()}


def write() -> None:
    """All of them."""
    CORPUS.mkdir(exist_ok=True)
    for name, frame in frames().items():
        (CORPUS / name).write_bytes(frame)


if __name__ == "__main__":
    write()
