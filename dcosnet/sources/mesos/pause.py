"""Waiting that somebody else may end."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall


class Pause:
    """One coroutine waits here; others wake it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        self._call: IDelayedCall | None = None
        self._whole = False
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called: who is cancelled then is meant to end."""
        return self._stopped

    def wait(self, seconds: float | None, *, whole: bool = False) -> Deferred[None]:
        """
        Fires after so many seconds, or when `end` is called before.

        None waits for `end` alone, `whole` for the time alone.
        """
        if self._stopped:
            return defer.fail(defer.CancelledError())
        waiting: Deferred[None] = Deferred(lambda _: self._clear())
        self._waiting, self._whole = waiting, whole
        self._call = self._reactor.callLater(seconds, self._over) if seconds is not None else None
        return waiting

    def end(self) -> None:
        """It has waited enough. Idempotent."""
        if self._waiting is not None and not self._whole:
            self._over()

    def stop(self) -> None:
        """
        Who waits from now on is cancelled instead. Call it before the coroutine is cancelled.

        What it waited for then may turn the cancelling into a failure of another
        kind, and it would go on.
        """
        self._stopped = True

    def _over(self) -> None:
        waiting = self._waiting
        self._clear()
        assert waiting is not None
        waiting.callback(None)

    def _clear(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._waiting = None
