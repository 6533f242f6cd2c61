"""What a VIP is to a data plane: a listener, and the service behind it."""

from __future__ import annotations

import attrs

from dcosnet.model.net import Address, Endpoint, Protocol
from dcosnet.model.vip import Backend, VipKey


@attrs.frozen(cache_hash=True)
class Listener:
    """Where clients come: a protocol, an address and a port."""

    protocol: Protocol
    address: Address
    port: int

    @property
    def endpoint(self) -> Endpoint:
        """What to bind to."""
        return Endpoint(self.address, self.port)

    def __str__(self) -> str:
        return f"{self.protocol}/{self.endpoint}"


@attrs.frozen
class Service:
    """
    Who answers at a listener: backends of the listener's family, ordered as the VIP's.

    `vip` is whose listener it is, `name` its name in the zone or None.
    """

    vip: VipKey
    backends: tuple[Backend, ...]
    name: str | None = None
