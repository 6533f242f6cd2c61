"""
Host name labels made of anything: the rules of dcos-net.

Mesos-DNS has rules of its own, which belong to its zone. Pure and total: every
text gives a label or, where nothing usable is left, the empty string.
"""

from __future__ import annotations

import re

LABEL_MAX = 63  # RFC 1035 2.3.4
NAME_MAX = 253  # of the text form without trailing dot: 255 octets on the wire

_DASHES = re.compile(r"[-_.]")
_DROPPED = re.compile(r"[^a-z0-9-]")
_UPPER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}  # ASCII alone, unlike str.lower


def label(text: str) -> str:
    """
    One label of at most 63 characters out of `text`; "" when nothing is left.

    Letters fold to lower case, "-", "_" and "." become dashes, all else is
    dropped, and dashes at either end are stripped. Where the cut at 63 falls on
    dashes, the letters and digits that follow fill the room (spec/dns.md 1.3).
    """
    kept = _DROPPED.sub("", _DASHES.sub("-", text.translate(_UPPER))).lstrip("-")
    if len(kept) <= LABEL_MAX:
        return kept.rstrip("-")
    head = kept[:LABEL_MAX].rstrip("-")
    rest = kept[LABEL_MAX:].replace("-", "")
    return head + rest[: LABEL_MAX - len(head)]


def fragment(text: str) -> str:
    """
    Several labels out of `text`, split at its dots; parts without content are dropped.

    dcos-net keeps a part that becomes empty by the label rule, which makes a
    name that no resolver accepts ("a..b"); here it is dropped as well.
    """
    return ".".join(part for part in map(label, text.split(".")) if part)


def usable(name: str) -> bool:
    """Whether a dotted name can stand in a zone: not empty, no empty or long label, not too long."""
    return 0 < len(name) <= NAME_MAX and all(0 < len(part) <= LABEL_MAX for part in name.split("."))
