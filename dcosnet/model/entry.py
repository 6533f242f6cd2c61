"""An entry of the replicated store."""

from __future__ import annotations

from enum import StrEnum

import attrs

from dcosnet.model.stamp import Stamp


class Lifetime(StrEnum):
    """A lease dies with its owner; a durable entry outlives it, and its owner's restarts."""

    LEASE = "lease"
    DURABLE = "durable"


@attrs.frozen
class Entry:
    """
    A key as its owner wrote it.

    `version` counts the owner's writes; `created` is when the owner first wrote
    the key since it was last absent, `written` when it did so last.
    """

    key: str
    owner: str
    value: bytes
    lifetime: Lifetime
    version: int
    created: Stamp
    written: Stamp
