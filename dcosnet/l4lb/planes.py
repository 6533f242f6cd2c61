"""
Which data plane serves the VIPs, what it is able to do, and what is asked of it in vain.

Pure. A plane is known by a name, by its abilities, and by why it cannot run
here; another one is a line in the sequence that `choose` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs

ABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "tcp": "balances TCP",
        "udp": "balances UDP",
        "ipv6": "serves VIPs with IPv6 addresses",
        "retry": "tries another backend when one refuses, before the client notices",
        "drain": "sends nobody new to a backend of weight 0, and lets who is there finish",
        "weights": "gives each backend a share by its weight",
        "latency": "prefers backends that answer sooner (pick = least)",
        "outliers": "leaves out backends that fail",
        "half_close": "passes on the end of one direction alone",
        "limits": "bounds how many connections there are",
        "idle_timeout": "ends what has been idle for long, where it is told to",
        "client_address": "shows the client's address to the backend",
        "unprivileged": "runs without privileges",
    }
)
"""What a plane may be able to do, and what that means."""


@attrs.frozen
class Plane:
    """A plane that could be chosen; `why_not` gives the reason why it cannot run on this host, or None."""

    name: str
    able: frozenset[str]
    why_not: Callable[[], str | None] = lambda: None


@attrs.frozen
class Choice:
    """The plane that serves, and why it is that one."""

    plane: Plane
    reason: str


def choose(asked: str, planes: Sequence[Plane]) -> Choice:
    """
    The plane that was asked for by name, or for "auto" the first that can run here.

    Raises ValueError, with what to do, when the one that was asked for cannot
    run, or none can.
    """
    refused: dict[str, str] = {}
    for plane in planes:
        if asked not in ("auto", plane.name):
            continue
        why_not = plane.why_not()
        if why_not is None:
            if asked != "auto":
                return Choice(plane, "configured")
            others = "".join(f"; {name} is not used: {reason}" for name, reason in refused.items())
            return Choice(plane, f"the first that works here{others}")
        refused[plane.name] = why_not
    if not refused:
        raise ValueError(f"there is no plane {asked!r}; take auto or one of {', '.join(one.name for one in planes)}")
    raise ValueError("; ".join(f"{name} cannot run here: {reason}" for name, reason in refused.items()))


def lacking(asked: Mapping[str, str], plane: Plane) -> Sequence[tuple[str, str]]:
    """Of what is asked (ability by setting), what the plane is not able to do: the setting, and why for people."""
    return [
        (setting, f"the plane {plane.name} is not able to do this: {ability} ({ABILITIES[ability]})")
        for setting, ability in asked.items()
        if ability not in plane.able
    ]
