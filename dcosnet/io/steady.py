"""
A time that nobody sets, for cores that measure with it.

Twisted's own is the host's clock, which an administrator or NTP moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class Steady:
    """The reactor's calls, and the seconds of CLOCK_MONOTONIC."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        """Since some moment of the past; never less than before."""
        return time.monotonic()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:  # noqa: A002 - Twisted's
        """As the reactor does."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """As the reactor does."""
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls
