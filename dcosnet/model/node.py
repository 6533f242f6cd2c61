"""A node: one dcosnet process, and how its host can be reached."""

from __future__ import annotations

import attrs

from dcosnet.model.net import Address


@attrs.frozen
class Node:
    """A dcosnet process as it presents itself; `started_at` in seconds since the epoch."""

    name: str
    address: Address
    public_addresses: tuple[Address, ...] = ()
    version: str = ""
    started_at: float = 0.0
