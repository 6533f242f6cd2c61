"""
The state of a master that refuses its stream, asked for every so often.

To a subscription it is a stream of snapshots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.sources.mesos.access import AccessError, Answer
from dcosnet.sources.mesos.pause import Pause

log = Logger()


class Polled:
    """
    An answer to begin with and, every `interval` seconds, what `ask` gives, each as a record to `take`.

    The first answer that is none ends it: whoever polls begins anew, and waits
    as after any stream that was lost. `lost` fires once with the reason, for
    people, also after `close`.
    """

    def __init__(
        self, reactor: Any, ask: Callable[[], Deferred[Answer]], interval: float, take: Callable[[bytes], None]
    ) -> None:
        self._ask = ask
        self._interval = interval
        self._take = take
        self._pause = Pause(reactor)
        self._held = False
        self._asking: Deferred[None] | None = None
        self.lost: Deferred[str] = Deferred()

    def start(self, first: Answer) -> None:
        """Give what was answered already, and ask from then on."""
        self._give(first)
        self._asking = Deferred.fromCoroutine(self._go()).addErrback(self._ended)

    def close(self, why: str) -> None:
        """Ask no more. Idempotent."""
        self._pause.stop()
        if self._asking is not None:
            self._asking.cancel()
        self._end(why)

    def pause(self) -> None:
        """What was given is being read still; asking for more of the same would only pile it up."""
        self._held = True

    def resume(self) -> None:
        """Ask again."""
        self._held = False

    async def _go(self) -> None:
        while True:
            await self._pause.wait(self._interval)
            if self._held:
                continue
            answer = await self._ask()
            if answer.code != 200:
                self._end(f"answered GET_STATE with {answer.code}")
                return
            self._give(answer)

    def _give(self, answer: Answer) -> None:
        # The answer is what a SUBSCRIBED holds, under other names.
        self._take(b'{"type":"SUBSCRIBED","subscribed":' + answer.body + b"}")

    def _ended(self, failure: Failure) -> None:
        if not failure.check(defer.CancelledError, AccessError):
            log.failure("Polling a master failed", failure)
        self._end(str(failure.value))

    def _end(self, why: str) -> None:
        if not self.lost.called:
            self.lost.callback(why)
