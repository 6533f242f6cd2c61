"""A VIP: a virtual address and port, and the backends behind it."""

from __future__ import annotations

import attrs

from dcosnet.model.net import Address, Endpoint, Protocol, sort_key
from dcosnet.model.stamp import Stamp


@attrs.frozen
class VipKey:
    """
    Which VIP: named (name and framework) or given by its address.

    Names are the label's own text: "/web" and "web" are two VIPs that share one
    DNS name, as in dcos-net.
    """

    protocol: Protocol
    port: int
    name: str | None = None
    framework: str | None = None
    address: Address | None = None

    def __str__(self) -> str:
        left = self.address if self.name is None else f"{self.name}.{self.framework}"
        return f"{self.protocol}/{left}:{self.port}"

    @property
    def sort_key(self) -> tuple[str, str, str, tuple[int, int], int]:
        """Orders VIPs for people: by protocol, name, framework, address, port."""
        return (
            self.protocol,
            self.name or "",
            self.framework or "",
            sort_key(self.address) if self.address is not None else (0, 0),
            self.port,
        )


@attrs.frozen
class Backend:
    """
    Where a VIP may send a flow.

    `agent` is the host that runs it, whose reachability counts. A weight of
    zero drains: established flows go on, new ones go elsewhere.
    """

    address: Address
    port: int
    agent: Address
    weight: int = attrs.field(default=1, validator=attrs.validators.ge(0))

    @property
    def endpoint(self) -> Endpoint:
        """What to connect to."""
        return Endpoint(self.address, self.port)

    @property
    def draining(self) -> bool:
        """Whether it gets no new flows."""
        return self.weight == 0


@attrs.frozen
class Vip:
    """
    A VIP with its backends, ordered by address and port.

    `since` is when the name was first used: on a collision the older name keeps
    its address. It is None for a VIP given by address.
    """

    key: VipKey
    backends: tuple[Backend, ...]
    since: Stamp | None = None
