"""
Host names of agents and masters, resolved by the reactor's resolver.

A name that cannot be resolved is asked again for as long as it is wanted (D21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from dcosnet.io.names import Resolve
from dcosnet.model.net import Address

log = Logger()

RETRY = 30.0
"""Seconds until a name that could not be resolved is asked for again."""
AT_ONCE = 8
"""Names asked for at a time: the resolver has a few threads, and others need them too."""


class Lookups:
    """
    Resolves the names that are wanted, and tells each as it comes.

    `tell(name, None)` says that it failed this time. `failures` counts those.
    """

    def __init__(self, reactor: Any, resolve: Resolve, tell: Callable[[str, Address | None], None]) -> None:
        self._reactor = reactor
        self._resolve = resolve
        self._tell = tell
        self._wanted: frozenset[str] = frozenset()
        self._asked: dict[str, Deferred[Address | None]] = {}
        self._later: dict[str, IDelayedCall] = {}
        self.failures = 0

    def want(self, names: Iterable[str]) -> None:
        """These and no others; what is under way or was told to have failed lately is not asked for again."""
        self._wanted = frozenset(names)
        for name in self._later.keys() - self._wanted:
            self._later.pop(name).cancel()
        self._go_on()

    def stop(self) -> None:
        """Tell nothing more, and leave nothing in the reactor."""
        self._wanted = frozenset()
        for call in self._later.values():
            call.cancel()
        self._later.clear()
        for asked in list(self._asked.values()):
            asked.cancel()

    def _go_on(self) -> None:
        for name in self._wanted - self._asked.keys() - self._later.keys():
            # An answer that is there already may have led here again, and on.
            gone = name in self._asked or name in self._later or name not in self._wanted
            if len(self._asked) < AT_ONCE and not gone:
                self._ask(name)

    def _ask(self, name: str) -> None:
        found = self._resolve(name)
        self._asked[name] = found
        # An answer that is there already runs `_found` here, which takes it out again.
        found.addCallback(self._found, name)
        found.addErrback(lambda failure: log.failure("Taking the address of {name} failed", failure, name=name))

    def _found(self, address: Address | None, name: str) -> None:
        self._asked.pop(name, None)
        if name in self._wanted:
            if address is None:
                self.failures += 1
                self._later[name] = self._reactor.callLater(RETRY, self._again, name)
            else:
                self._wanted -= {name}
            try:
                self._tell(name, address)
            finally:
                self._go_on()
        else:
            self._go_on()

    def _again(self, name: str) -> None:
        del self._later[name]
        self._go_on()
