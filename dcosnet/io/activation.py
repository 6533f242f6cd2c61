"""
Sockets that the process was started with (sd_listen_fds(3)).

Twisted reads these variables on an import of its endpoints and deletes them, so
they are read when this module is imported, which `tap` does first. Nothing is
deleted here: stream sockets of `systemd:` endpoints are Twisted's to find.
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


_PASSED = dict(parse(os.environ, os.getpid()))


def take(prefix: str) -> Mapping[str, socket.socket]:
    """The passed sockets whose name begins so, by name; each is given once. What is no socket is closed."""
    taken: dict[str, socket.socket] = {}
    for descriptor in [number for number, name in _PASSED.items() if name.startswith(prefix)]:
        name = _PASSED.pop(descriptor)
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
