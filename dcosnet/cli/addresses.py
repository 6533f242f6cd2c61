"""
Where the daemon's HTTP interface may be found, in the order to try.

`--api` alone when it is given; else what `[ops].listen` of the configuration
says, UNIX sockets first; else the addresses of a packaged daemon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from dcosnet.cli.failure import CommandError, Exit
from dcosnet.config.merge import Leaf, Merged
from dcosnet.config.node import NodeSettings
from dcosnet.config.structure import structure
from dcosnet.errors import ConfigErrors

_FIELDS = re.compile(r"(?<!\\):")
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a wildcard is reached


@attrs.frozen
class TcpAddress:
    """A host and port that speak plain HTTP."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@attrs.frozen
class UnixAddress:
    """The path of a socket that speaks HTTP."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


ApiAddress = TcpAddress | UnixAddress

DEFAULTS: tuple[ApiAddress, ...] = (UnixAddress(Path("/run/dcosnet/api.sock")), TcpAddress("127.0.0.1", 62080))


def parse_api(text: str) -> ApiAddress:
    """Read "http://HOST:PORT" or "unix:/PATH". Raises CommandError."""
    remedy = "write --api http://127.0.0.1:62080 or --api unix:/run/dcosnet/api.sock"
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if path:
            return UnixAddress(Path(path))
        raise CommandError(Exit.INVALID, f"{text!r} is not an address of the daemon", "it has no path", remedy)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise CommandError(Exit.INVALID, f"{text!r} is not an address of the daemon", str(error), remedy) from None
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
        why = "it is neither http://HOST:PORT nor unix:/PATH"
        raise CommandError(Exit.INVALID, f"{text!r} is not an address of the daemon", why, remedy)
    return TcpAddress(url.hostname, port or 80)


def configured(merged: Merged) -> tuple[ApiAddress, ...]:
    """What a daemon with this configuration listens on, UNIX sockets first; empty when it does not say."""
    leaf = merged.root.find(("ops", "listen"))
    texts = leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, list) else []
    found = [address for text in texts if isinstance(text, str) for address in _listening(text, merged)]
    return tuple(sorted(found, key=lambda address: isinstance(address, TcpAddress)))


def _listening(text: str, merged: Merged) -> Iterator[ApiAddress]:
    """Where to connect for an endpoint string; nothing for one that cannot be known, as a systemd socket."""
    kind, *fields = (field.replace("\\:", ":") for field in _FIELDS.split(text))
    named = dict(field.partition("=")[::2] for field in fields if "=" in field)
    first = fields[0] if fields and "=" not in fields[0] else ""
    if kind == "unix" and (path := named.get("address", first)):
        yield UnixAddress(_state_dir(merged) / path)
    if kind == "tcp":
        port, interface = named.get("port", first), named.get("interface", "")
        if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            yield TcpAddress(_ANY.get(interface) or interface, int(port))


def _state_dir(merged: Merged) -> Path:
    """A relative UNIX socket of `[ops]` is inside the state directory."""
    try:
        # The other tables are not this function's business: their parts need not be installed here.
        node = structure(merged.only("node"), {"node": NodeSettings}, always=("node",))["node"]
    except ConfigErrors:
        return NodeSettings().state_dir  # check-config tells what is wrong
    assert isinstance(node, NodeSettings)
    return node.state_dir
