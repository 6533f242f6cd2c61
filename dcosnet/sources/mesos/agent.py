"""
The local agent: it has no event stream, so it is asked again and again.

Whatever goes wrong, the last facts stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from dcosnet.errors import PeerError
from dcosnet.io.names import Resolve
from dcosnet.model.facts import Facts
from dcosnet.model.net import Address
from dcosnet.sources.mesos.access import AccessError, Answer
from dcosnet.sources.mesos.backoff import Backoff
from dcosnet.sources.mesos.events import AgentFold
from dcosnet.sources.mesos.lookup import Lookups
from dcosnet.sources.mesos.pause import Pause

log = Logger()

BACKOFF_LIMIT = 60.0
"""Seconds: an agent that fails is asked at least so often, as dcos-net did."""
APART = 0.1
"""Seconds at least between two polls, however often somebody asks for one."""


class Asks(Protocol):
    """What the poller needs of Access."""

    def ask(self, url: str, call: str) -> Deferred[Answer]:
        """One call and its answer."""


class AgentPoller:
    """
    Polls one agent and folds what it says. `address` is where it is if its host name does not tell.

    `facts` is None until it answered once; `told` is called when it changed, or
    how the agent fares did. `trouble` is why the last poll failed. `heard_at`
    is when an answer came last, in the reactor's seconds.
    """

    def __init__(
        self,
        reactor: Any,
        access: Asks,
        url: str,
        *,
        address: Address,
        poll: float,
        jitter: Callable[[], float],
        resolve: Resolve,
        told: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._access = access
        self._address = address
        self._poll = poll
        self._jitter = jitter
        self._told = told
        self._fold = AgentFold()
        self._rejected: Counter[str] = Counter()
        self._lookups = Lookups(reactor, resolve, self._resolved)
        self._backoff = Backoff(jitter, poll, max(poll, BACKOFF_LIMIT))
        self._pause = Pause(reactor)
        self._last: tuple[bytes, bytes] | None = None
        self._again = False
        self._polling: Deferred[None] | None = None
        self.url = url
        self.facts: Facts | None = None
        self.trouble: str | None = None
        self.heard_at: float | None = None
        self.polls = {"ok": 0, "failed": 0, "error": 0}

    @property
    def fold(self) -> AgentFold:
        """For its problems and counts."""
        return self._fold

    @property
    def rejected(self) -> Mapping[str, int]:
        """What could not be used so far, by what was lost."""
        rejected = self._rejected.copy()
        rejected.update(self._fold.rejected)
        return rejected

    @property
    def lookup_failures(self) -> int:
        """Times that the agent's host name was not resolved."""
        return self._lookups.failures

    def start(self) -> None:
        """Poll from now on."""
        self._polling = Deferred.fromCoroutine(self._go()).addErrback(_ended)

    def stop(self) -> None:
        """Leave nothing in the reactor."""
        self._pause.stop()
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None
        self._lookups.stop()

    def poll_now(self) -> None:
        """
        Ask at once: something on this agent has changed. While it is asked, once more afterwards.

        An agent that fails is asked in its own time only.
        """
        if self.trouble is None:
            self._again = True
            self._pause.end()

    async def _go(self) -> None:
        while True:
            self._again = False
            try:
                wait = await self._once()
            except Exception as error:
                if self._pause.stopped:
                    raise
                log.failure("Polling the agent failed; it is asked again")
                wait = self._mistaken(error)
            await self._pause.wait(min(wait, APART), whole=True)
            if not self._again:
                await self._pause.wait(max(0.0, wait - APART))

    async def _once(self) -> float:
        """One poll; the seconds until the next one."""
        try:
            agent = await self._call("GET_AGENT")
            state = await self._call("GET_STATE")
            if (state, agent) != self._last and not self._fold.take(state, agent, self._reactor.seconds()):
                self._fail(f"{self.url}: no master has accepted it yet")
                return self._poll
            self._last = (state, agent)
        except AccessError as error:
            self._fail(str(error))
            return self._backoff.failed()
        except PeerError as error:
            self._fold.refuse()
            self._fail(f"{self.url}: {error}")
            return self._backoff.failed()
        self.heard_at = self._reactor.seconds()
        recovered = self.trouble is not None or self.facts is None
        self.trouble = None
        if recovered:
            log.info("The agent {url} answers", url=self.url)
        self._tell(recovered)
        self._backoff.succeeded()
        self.polls["ok"] += 1
        # From 0.9 to 1.1 of the interval: a thousand agents do not ask as one.
        return self._poll * (0.9 + 0.2 * self._jitter())

    async def _call(self, call: str) -> bytes:
        answer = await self._access.ask(self.url, call)
        if answer.code != 200:
            raise AccessError(f"{self.url}: answered {call} with {answer.code}")
        return answer.body

    def _mistaken(self, error: Exception) -> float:
        """Begin anew: how far the fold came nobody knows. The seconds until the next poll."""
        self._rejected.update(self._fold.rejected)
        self._fold, self._last = AgentFold(), None
        self._lookups.want(())
        self.polls["error"] += 1
        # Nobody is told of it: that may be what failed. Whoever asks sees it.
        self.trouble = f"{self.url}: a mistake of ours, which the log tells: {error!r}"
        return self._backoff.failed()

    def _fail(self, reason: str) -> None:
        self.polls["failed"] += 1
        if self.trouble is None:
            log.warn(  # noqa: G010 - it is Twisted's
                "The agent cannot be asked: {reason}", reason=reason
            )
        changed, self.trouble = self.trouble != reason, reason
        if changed:
            self._told()

    def _tell(self, always: bool) -> None:
        self._lookups.want(self._fold.unresolved())
        facts = self._fold.facts()
        if facts.unsynced:
            return  # its tasks wait for a name: told as they are, they would end what was told before
        if facts is not self.facts or always:
            self.facts = facts
            self._told()

    def _resolved(self, hostname: str, address: Address | None) -> None:
        # An agent does not tell its own pid; it runs on this node, though (D21).
        self._fold.resolved(hostname, address or self._address, self._reactor.seconds())
        self._tell(always=False)


def _ended(failure: Any) -> None:
    """The loop ends by being cancelled, and by nothing else."""
    if not failure.check(defer.CancelledError):
        log.failure("Polling the agent ended", failure)
