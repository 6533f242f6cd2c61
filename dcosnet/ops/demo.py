"""
The part `demo`: example backends, and on the console the lines to try.

It serves nothing of dcosnet: it stands for the applications that a node has
around it. Without root and on one machine it lets a user see a name resolve and
a VIP answer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TextIO

import msgspec
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from dcosnet.errors import ConfigError
from dcosnet.interfaces import IToolbox, IViews, IZone, Part
from dcosnet.io.listening import ListeningService, Socket
from dcosnet.model.net import Address, Endpoint, parse_endpoint, sort_key
from dcosnet.model.viplabels import ZONE
from dcosnet.model.zone import Zone
from dcosnet.ops.banner import Example, banner, pick
from dcosnet.ops.connections import Bounded
from dcosnet.ops.http import IDLE_TIMEOUT, QuietSite

# Readiness is a question, not an event; a person does not notice this wait.
_ASK_EVERY = 0.2


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[demo]`: the example backends, ADDRESS:PORT each."""

    backends: tuple[str, ...] = ("127.0.0.1:8001", "127.0.0.1:8002")


def make_part(settings: Settings, toolbox: IToolbox, out: TextIO | None = None) -> Part:
    """The backends and the console text; `out` is the process's own standard output unless given."""
    service = MultiService()
    backends = [_backend(toolbox.reactor, text) for text in settings.backends]
    for backend in backends:
        backend.setServiceParent(service)
    # twistd turns sys.stdout into log events; these lines are to be pasted.
    Announcement(toolbox, out or sys.__stdout__).setServiceParent(service)

    def describe() -> Mapping[str, Any]:
        return {"backends": [address for backend in backends for address in backend.addresses]}

    def ready() -> str | None:
        return None if all(backend.addresses for backend in backends) else "not listening yet"

    return Part(service, ready=ready, describe=describe)


def _backend(reactor: Any, text: str) -> ListeningService:
    try:
        endpoint = parse_endpoint(text)
    except ValueError as error:
        raise ConfigError("demo.backends", str(error)) from None
    interface = str(endpoint.address).replace(":", "\\:")
    site = QuietSite(Hello(endpoint), timeout=IDLE_TIMEOUT, reactor=reactor)
    where = Socket(f"tcp:{endpoint.port}:interface={interface}", "demo.backends")
    return ListeningService(reactor, [where], Bounded(site))


class Hello(Resource):
    """Says which backend it is at every path, and that it is well at /health."""

    isLeaf = True

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._text = f"hello from {endpoint}\n".encode()

    def render_GET(self, request: Request) -> bytes:
        """One line of text."""
        request.setHeader("content-type", "text/plain; charset=utf-8")
        return b"ok\n" if request.path == b"/health" else self._text


class Announcement(Service):
    """
    Prints the lines to try once every other part is ready, and again when what they say has changed.

    A VIP may move to another address or name when the user edits the example.
    """

    log = Logger()

    def __init__(self, toolbox: IToolbox, out: TextIO | None) -> None:
        self._toolbox = toolbox
        self._views: IViews = toolbox[IViews]
        self._zones: Sequence[IZone] = [zone for zone in toolbox.all(IZone) if zone.apex == ZONE]
        self._out = out
        self._told: Example | None = None
        self._loop = LoopingCall(self._look)
        clock: IReactorTime = toolbox.reactor
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        # Other parts may still have to start: the first look is not now.
        running: Deferred[LoopingCall] = self._loop.start(_ASK_EVERY, now=False)
        running.addErrback(lambda failure: self.log.failure("the demonstration stopped looking", failure))

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        if any(reason is not None for reason in self._toolbox.readiness().values()):
            return
        tasks = self._views.snapshot.value.tasks
        addresses = {name: found for zone in self._zones for name, found in _addresses(zone.zone.value).items()}
        example = pick(self._views.vips.value, addresses, [tasks[key] for key in sorted(tasks)])
        if example is None or example == self._told:
            return
        self._told = example
        if self._out is not None:
            self._out.write(banner(example, self._toolbox.describe(), _here()))
            self._out.flush()


def _here() -> Path | None:
    """The directory that the person stands in; None if somebody removed it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _addresses(zone: Zone) -> Mapping[str, Sequence[Address]]:
    return {
        name: sorted(
            (record.data for record in records if isinstance(record.data, IPv4Address | IPv6Address)), key=sort_key
        )
        for name, records in zone.records.items()
    }
