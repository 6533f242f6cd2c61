"""
How far an owner's namespace is known, and what leads further.

The store makes and takes deltas, gossip carries them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import attrs

from dcosnet.model.entry import Entry


class Known(NamedTuple):
    """
    How much is known of an owner: of two, the greater is newer.

    `generation` grows with each start of the owner; versions are counted within
    it. (0, 0) is nothing.
    """

    generation: int
    version: int


NOTHING = Known(0, 0)


@attrs.frozen
class Delta:
    """
    What changed in a namespace after `since`, up to `version`; None for a key that is gone.

    With `since` 0 it is the whole namespace. `settled`: the owner has said all
    that it knows, so what its former generation said and this one has not is
    void. `bare`: only durable entries are in it; the leases were dropped when
    their owner died.
    """

    owner: str
    generation: int
    since: int
    version: int
    changes: Mapping[str, Entry | None]
    settled: bool = False
    bare: bool = False

    @property
    def known(self) -> Known:
        """What is known once it has been taken."""
        return Known(self.generation, self.version)
