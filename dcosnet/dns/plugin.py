"""
The `dns` part: from settings and zones to a server.

Sockets are bound in privilegedStartService, so that a port in use stops the
daemon before anything runs. The part is ready once they are bound and every
zone may deny names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from dcosnet.dns.access import LOCAL, AccessList, Network, parse_network
from dcosnet.dns.answers import Answers
from dcosnet.dns.chain import AnswerOrder, Chain
from dcosnet.dns.edns import SIZE_MIN
from dcosnet.dns.forward import PRIVATE, Routes, suffixes
from dcosnet.dns.metrics import Counts, DnsMetrics
from dcosnet.dns.server import Listener
from dcosnet.dns.upstream import Forwarder
from dcosnet.dns.wire import wire_of
from dcosnet.dns.zone import Zones
from dcosnet.errors import ConfigError, ConfigErrors
from dcosnet.interfaces import IMetrics, IToolbox, IZone, Part
from dcosnet.io.host import is_local
from dcosnet.io.udp import SIZE, CannotBind, RealUdp, Udp
from dcosnet.model.cell import Changed
from dcosnet.model.net import Endpoint, parse_address, parse_endpoint
from dcosnet.model.zone import Zone

log = Logger()

PORT = 53


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    The table [dns].

    `listen` are addresses with ports, each served over UDP and TCP; port 0
    takes a free one. `allow` holds networks and "local": loopback, private
    ranges, link-local, and the addresses listened on.
    """

    listen: tuple[str, ...] = ("127.0.0.1:53",)
    upstreams: tuple[str, ...] = ()
    forward_zones: dict[str, tuple[str, ...]] = {}
    allow: tuple[str, ...] = (LOCAL,)
    answer_order: AnswerOrder = AnswerOrder.ROUND_ROBIN
    max_udp_size: int = 1232


class DnsService(Service):
    """Binds, serves, and lets go."""

    name = "dns"

    def __init__(
        self, listen: Sequence[Endpoint], make: Callable[[], Listener], zones: Sequence[IZone], serving: _Serving
    ) -> None:
        self.bound: tuple[Endpoint, ...] = ()
        self._listen = listen
        self._make = make
        self._zones = zones
        self._serving = serving
        self._listeners: list[Listener] = []
        self._unsubscribe: list[Callable[[], None]] = []

    def privilegedStartService(self) -> None:
        """Take the ports. Raises CannotBind, and then holds none."""
        bound = []
        try:
            for endpoint in self._listen:
                listener = self._make()
                bound.append(listener.bind(endpoint))
                self._listeners.append(listener)
        except CannotBind:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            raise
        self.bound = tuple(bound)

    def unsent(self) -> int:
        """Replies over UDP that the system did not take."""
        return sum(listener.unsent for listener in self._listeners)

    def startService(self) -> None:
        """Follow the zones and receive."""
        super().startService()
        for zone in self._zones:
            # The value of now is served at once, so that no query finds a zone missing.
            self._serving.update(zone.zone.value, None)
            self._unsubscribe.append(zone.zone.subscribe(self._serving.update))
        for listener in self._listeners:
            listener.start()
        log.info("DNS answers on {addresses}", addresses=", ".join(map(str, self.bound)))

    def stopService(self) -> Any:
        """Let go of everything; fires when the ports are free."""
        super().stopService()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        closing = [listener.close() for listener in self._listeners]
        self._listeners.clear()
        self.bound = ()
        self._serving.forwarder.close()
        return DeferredList([each for each in closing if each is not None], consumeErrors=True)


class _Serving:
    """What all listeners of the part share."""

    def __init__(self, zones: Zones, answers: Answers, forwarder: Forwarder) -> None:
        self.zones = zones
        self.answers = answers
        self.forwarder = forwarder

    def update(self, zone: Zone, changed: Changed) -> None:
        """Take a zone's change, and forget what it makes wrong."""
        wrong = self.zones.update(zone, changed)
        if wrong is None:
            self.answers.clear()
        else:
            self.answers.forget(wrong)


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Build the server. Raises ConfigErrors for settings that cannot be met."""
    return build(settings, toolbox, RealUdp(toolbox.reactor))


def build(settings: Settings, toolbox: IToolbox, udp: Udp) -> Part:
    """The same on any UDP network."""
    problems: list[ConfigError] = []
    listen = _endpoints("dns.listen", settings.listen, problems)
    routes = _routes(settings, listen, problems)
    access = AccessList(_networks(settings, listen, problems))
    if not SIZE_MIN <= settings.max_udp_size <= SIZE:
        problems.append(
            ConfigError("dns.max_udp_size", f"{settings.max_udp_size} is not between {SIZE_MIN} and {SIZE}")
        )
    if problems:
        raise ConfigErrors(problems)

    counts, zones, answers = Counts(), Zones(), Answers()
    forwarder = Forwarder(routes.endpoints, udp, toolbox.reactor, counts)
    chain = Chain(
        zones,
        answers,
        routes,
        forwarder,
        counts,
        order=settings.answer_order,
        rng=toolbox.rng,
        udp_size=settings.max_udp_size,
    )
    contributed = toolbox.all(IZone)
    service = DnsService(
        listen,
        lambda: Listener(toolbox.reactor, udp, access, answers, chain, counts),
        contributed,
        _Serving(zones, answers, forwarder),
    )

    def ready() -> str | None:
        if not service.bound:
            return "not listening yet"
        for each in contributed:
            if each.zone.value.unsynced is not None:
                return f"zone {each.apex}: {each.zone.value.unsynced}"
        return None

    def describe() -> Mapping[str, Any]:
        return {
            "listen": list(map(str, service.bound)),
            "upstreams": list(settings.upstreams),
            "forward_zones": {zone: list(servers) for zone, servers in settings.forward_zones.items()},
            "zones": sorted(each.apex for each in contributed),
        }

    return Part(
        service, contributes=[(IMetrics, DnsMetrics(counts, answers, service.unsent))], ready=ready, describe=describe
    )


def _endpoints(path: str, texts: Sequence[str], problems: list[ConfigError]) -> list[Endpoint]:
    found = []
    for text in texts:
        try:
            # Port 0 is for tests and for several daemons on one host; parse_endpoint refuses it.
            if text.endswith(":0"):
                found.append(Endpoint(parse_address(text[:-2].strip("[]")), 0))
            else:
                found.append(parse_endpoint(text, PORT))
        except ValueError as error:
            problems.append(ConfigError(path, str(error)))
    if not texts:
        problems.append(ConfigError(path, "is empty; name at least one ADDRESS:PORT"))
    twice = dict.fromkeys(endpoint for endpoint in found if endpoint.port and found.count(endpoint) > 1)
    problems.extend(ConfigError(path, f"{endpoint} is named twice") for endpoint in twice)
    return found


def _networks(settings: Settings, listen: Sequence[Endpoint], problems: list[ConfigError]) -> list[Network]:
    found: list[Network] = []
    for text in settings.allow:
        try:
            found += parse_network(text)
        except ValueError as error:
            problems.append(ConfigError("dns.allow", str(error)))
    if LOCAL in settings.allow:
        # A client on this host that asks 198.51.100.1 has that very address.
        found += (network for endpoint in listen for network in parse_network(str(endpoint.address)))
    return found


def _routes(settings: Settings, listen: Sequence[Endpoint], problems: list[ConfigError]) -> Routes:
    def servers(path: str, texts: Sequence[str]) -> list[Endpoint]:
        found = []
        for text in texts:
            try:
                endpoint = parse_endpoint(text, PORT)
            except ValueError as error:
                problems.append(ConfigError(path, str(error)))
                continue
            if endpoint.address.is_unspecified:
                problems.append(ConfigError(path, f"{endpoint} is no server's address; name the server's own"))
            elif _is_own(endpoint, listen):
                problems.append(
                    ConfigError(path, f"{endpoint} is this server itself; queries would go round in circles")
                )
            found.append(endpoint)
        return list(dict.fromkeys(found))

    default = servers("dns.upstreams", settings.upstreams)
    zones: dict[str, list[Endpoint]] = {}
    for name, texts in settings.forward_zones.items():
        path = f"dns.forward_zones.{name}"
        zone = name.lower().rstrip(".")
        if zone in zones:
            problems.append(ConfigError(path, f"{zone or 'the root'} is named twice"))
        problems.extend(ConfigError(path, reason) for reason in _misnamed(zone))
        if not texts:
            problems.append(ConfigError(path, "names no server"))
        zones[zone] = servers(path, texts)
    return Routes(zones, default)


def _misnamed(zone: str) -> list[str]:
    """Why names cannot be forwarded by this suffix."""
    reasons = []
    try:
        wire_of(zone)
    except ValueError as error:
        reasons.append(str(error))
    private = PRIVATE.intersection(suffixes(zone))
    if private:
        reasons.append(f"names under {', '.join(private)} are answered here and never forwarded")
    return reasons


def _is_own(endpoint: Endpoint, listen: Sequence[Endpoint]) -> bool:
    return any(
        own.port == endpoint.port
        and (
            own.address == endpoint.address
            or (
                own.address.is_unspecified
                and own.address.version == endpoint.address.version
                and is_local(endpoint.address)
            )
        )
        for own in listen
    )
