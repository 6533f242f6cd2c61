"""
Leaves out the line that every port of Twisted writes when it begins to listen.

It names a class and a port; the part that listens says the address, and what
for. Twisted has no switch for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.python import log

P = ParamSpec("P")
T = TypeVar("T")


def quietly(listen: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call something that listens. What it logs through Twisted's old interface has no text, so nothing is written."""
    result: T = log.callWithContext({"log_format": ""}, listen, *args, **kwargs)
    return result
