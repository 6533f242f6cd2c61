"""What the table [node] says; what it leaves open is found out by `io/host`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dcosnet.config.fields import ConfigPath, IpAddress

# It is a part of keys, which have 512 bytes; and nobody reads a longer one.
_NAME_MAX = 253


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """
    This node as it is configured.

    Without a name it is the host's, without an address the one that a route out
    would use.
    """

    name: str | None = None
    address: IpAddress | None = None
    public_addresses: tuple[IpAddress, ...] = ()
    state_dir: ConfigPath = Path("/var/lib/dcosnet")

    def __post_init__(self) -> None:
        if self.name is not None and (not self.name.strip() or "/" in self.name or not self.name.isprintable()):
            raise ValueError(f"name {self.name!r} is not usable; it stands in keys and in addresses of pages")
        if self.name is not None and len(self.name.encode()) > _NAME_MAX:
            raise ValueError(f"name {self.name[:20]!r}... is longer than {_NAME_MAX} bytes")
        for address in (*((self.address,) if self.address is not None else ()), *self.public_addresses):
            if address.is_unspecified or address.is_multicast:
                raise ValueError(f"nobody can connect to {address}; write an address of this host, or leave it out")
