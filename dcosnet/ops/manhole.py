"""
A Python prompt inside the running process, on a UNIX socket.

Keys and a terminal's control codes as they are: telnet(1) cannot open such a
socket, and its negotiation would only be noise to what can. Who may connect is
decided by the socket's permissions alone, which is why a mode that admits
others is refused. `socat -,raw,echo=0 UNIX-CONNECT:PATH` connects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import ServerFactory

from dcosnet.errors import ConfigError
from dcosnet.io.listening import Socket, parse_socket


def manhole_socket(text: str, base: Path) -> Socket:
    """Where the manhole listens. Raises ConfigError unless it is a UNIX socket of its owner alone."""
    where = parse_socket(text, "ops.manhole", base, 0o600)
    if where.path is None:
        raise ConfigError("ops.manhole", f"{text!r} is no UNIX socket; whoever connects is this process")
    if where.mode & 0o077:
        raise ConfigError("ops.manhole", f"mode {where.mode:o} admits others; use 600")
    return where


def manhole_factory(namespace: Callable[[], Mapping[str, Any]]) -> IProtocolFactory:
    """Makes a prompt for each connection, with a namespace as it is at that moment."""
    # Installs the reactor; a node without a manhole does without all of it.
    from twisted.conch.insults.insults import ServerProtocol
    from twisted.conch.manhole import ColoredManhole

    def prompt() -> ColoredManhole:
        return ColoredManhole(dict(namespace()))

    def terminal() -> Any:  # ServerProtocol is untyped
        return ServerProtocol(prompt)

    factory = ServerFactory.forProtocol(terminal)
    factory.noisy = False
    return factory
