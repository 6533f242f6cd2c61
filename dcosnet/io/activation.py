"""
Sockets that the process was started with (sd_listen_fds(3)).

Twisted reads these variables on an import of its endpoints and deletes them, so
`tap` has them remembered before there is any. Nothing is deleted here: stream
sockets of `systemd:` endpoints are Twisted's to find.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST = 3
"""The first descriptor that is passed (SD_LISTEN_FDS_START)."""


def parse(environment: Mapping[str, str], pid: int) -> Mapping[int, str]:
    """The passed descriptors with their names; none when they are for another process, or nonsense."""
    try:
        if int(environment["LISTEN_PID"]) != pid:
            return {}
        count = int(environment["LISTEN_FDS"])
    except (KeyError, ValueError):
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    return {FIRST + number: name for number, name in enumerate(names[:count])}


_passed: dict[int, str] = {}
"""What this process was started with and nobody has taken; a property of the process, as its arguments are."""


def remember(environment: Mapping[str, str]) -> None:
    """Read the variables while they are there."""
    _passed.update(parse(environment, os.getpid()))


def take(prefix: str) -> Mapping[str, socket.socket]:
    """The passed sockets whose name begins so, by name; each is given once. What is no socket is left alone."""
    taken: dict[str, socket.socket] = {}
    for descriptor in [number for number, name in _passed.items() if name.startswith(prefix)]:
        name = _passed.pop(descriptor)
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            continue  # not open, or no socket
        sock.set_inheritable(False)
        if name in taken:
            sock.close()
        else:
            taken[name] = sock
    return taken
