"""Where a fact came from, for people who ask why."""

from __future__ import annotations

import attrs


@attrs.frozen
class Provenance:
    """
    The source, the reference inside it, and when it was seen there.

    `observed_at` (seconds since the epoch) is for people only: it takes no part
    in equality and does not travel, or every poll would rewrite every key.
    """

    source: str
    reference: str
    observed_at: float = attrs.field(default=0.0, eq=False)
