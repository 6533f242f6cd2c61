"""A node: one dcosnet process, and how its host can be reached."""

from __future__ import annotations

import attrs

from dcosnet.model.net import Address


@attrs.frozen
class Node:
    """
    A dcosnet process as it presents itself.

    `started_at` and `updated`, when it last said all this, are seconds since the
    epoch by its own clock. `refresh` is the greatest number that it has been
    asked with to say it anew.
    """

    name: str
    address: Address
    public_addresses: tuple[Address, ...] = ()
    version: str = ""
    started_at: float = 0.0
    updated: float = 0.0
    refresh: int = 0
