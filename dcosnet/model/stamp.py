"""A hybrid logical time: orders writes of all nodes without asking any clock."""

from __future__ import annotations

import attrs


@attrs.frozen(order=True)
class Stamp:
    """Milliseconds since the epoch, a counter within them, and the writer's name to break ties."""

    milliseconds: int
    counter: int
    node: str
