"""What gossip counts: plain integers, read when somebody asks."""

from __future__ import annotations

from dcosnet.gossip.messages import CloseCode, Reason
from dcosnet.gossip.wire import TYPES

KINDS = {number: kind.__name__.lower() for number, kind in TYPES.items()}
"""The types of frames, as labels."""


class Counts:
    """Since the start of this process."""

    def __init__(self) -> None:
        self.octets_in = 0
        self.octets_out = 0
        self.frames_in = dict.fromkeys(KINDS.values(), 0)
        self.frames_out = dict.fromkeys(KINDS.values(), 0)
        self.dials = 0
        self.dials_failed = dict.fromkeys(Reason, 0)
        self.links_opened = 0
        self.links_lost = dict.fromkeys(Reason, 0)
        self.refused = {(code, theirs): 0 for code in CloseCode for theirs in (False, True)}
        """By close code, and whether it was the other end that refused."""
        self.records_refused = 0
        self.changes_refused = 0
        self.comparisons = 0
        self.pauses = 0
        self.verdicts = dict.fromkeys(("alive", "unreachable", "dead", "left"), 0)
