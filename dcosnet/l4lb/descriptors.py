"""
How many connections and flows fit beside the listeners into the limit of open files.

Pure. A listener and a flow take one descriptor each, a connection two.
"""

from __future__ import annotations

import attrs

RESERVED = 384
"""Descriptors that the rest of the process needs: DNS, HTTP, files, peers, pipes."""
_LEAST = 64
"""Some traffic has to pass however many listeners there are."""


@attrs.frozen
class Room:
    """How many there may be at a time; `reason` is why that is less than was asked for, and what to do, or None."""

    connections: int
    flows: int
    reason: str | None = None


def share(limit: int | None, listeners: int, connections: int, flows: int) -> Room:
    """What fits of so many connections and flows; `limit` is None where files have none."""
    if limit is None:
        return Room(connections, flows)
    room = max(_LEAST, limit - RESERVED - listeners)
    some = min(flows, room // 4)
    fit = Room(min(connections, (room - some) // 2), some)
    if (fit.connections, fit.flows) == (connections, flows):
        return fit
    return attrs.evolve(
        fit,
        reason=f"{limit} open files are allowed and listeners have {listeners} of them; raise the limit (LimitNOFILE)",
    )
