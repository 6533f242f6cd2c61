"""The part `ops`: HTTP for people and programs, and the manhole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.application.service import IService, IServiceCollection, MultiService

from dcosnet.errors import ConfigError
from dcosnet.interfaces import (
    IDrains,
    IMembership,
    IMetrics,
    IRestResource,
    ITaskSource,
    IToolbox,
    ITraffic,
    IViews,
    IZone,
    Part,
)
from dcosnet.io.listening import ListeningService, parse_socket
from dcosnet.ops.counts import OpsMetrics
from dcosnet.ops.guard import own_names
from dcosnet.ops.http import Root, make_site
from dcosnet.ops.manhole import manhole_factory, manhole_socket
from dcosnet.ops.rest.drains import BeginDrain, Drains, EndDrain
from dcosnet.ops.rest.hosts import Hosts
from dcosnet.ops.rest.livez import Live
from dcosnet.ops.rest.members import Members
from dcosnet.ops.rest.metrics import Metrics, Registry, make_registry
from dcosnet.ops.rest.nodes import Nodes
from dcosnet.ops.rest.page import Page
from dcosnet.ops.rest.readyz import Ready
from dcosnet.ops.rest.records import Records
from dcosnet.ops.rest.services import Services
from dcosnet.ops.rest.sources import Sources
from dcosnet.ops.rest.status import Status
from dcosnet.ops.rest.tasks import Tasks
from dcosnet.ops.rest.version import Version
from dcosnet.ops.rest.vips import Vips
from dcosnet.ops.routes import Routes


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """
    `[ops]`. Endpoint strings; a relative path of a UNIX socket is inside the state directory.

    `manhole` gives whoever can open its socket this process; off unless set.
    """

    listen: tuple[str, ...] = ("tcp:62080:interface=127.0.0.1",)
    manhole: str | None = None


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """The listeners, with all resources behind them."""
    if not settings.listen:
        raise ConfigError("ops.listen", "names nothing to listen on; leave [ops] out instead")
    views, zones, sources = toolbox[IViews], toolbox.all(IZone), toolbox.all(ITaskSource)
    membership, planes = toolbox[IMembership], toolbox.all(ITraffic)
    sockets = [parse_socket(text, "ops.listen", toolbox.state_dir, 0o660) for text in settings.listen]
    started_at = toolbox.reactor.seconds()

    def uptime() -> float:
        seconds: float = toolbox.reactor.seconds() - started_at
        return seconds

    # The counts of this part are among those that its own resource tells.
    metrics: list[IMetrics] = [*toolbox.all(IMetrics)]
    registry = make_registry(metrics)
    own: list[IRestResource] = [
        Version(toolbox.node.version),
        Vips(views, zones, planes),
        Records(zones),
        Hosts(zones),
        Services(zones),
        Tasks(views, sources),
        Sources(sources),
        Members(toolbox.node.name, membership),
        Drains(toolbox.node.name, views, membership),
        BeginDrain(views, toolbox[IDrains]),
        EndDrain(views, toolbox[IDrains]),
        Nodes(views, toolbox.reactor),
        Status(toolbox, uptime),
        Live(),
        Ready(toolbox),
        Metrics(registry),
        # dcos-net's registry without a name is the one of its process.
        Metrics(registry, "/v1/metrics"),
        Metrics(registry, "/v1/metrics/default"),
        Registry(metrics),
        Page(toolbox, views, zones, sources, membership, planes, uptime),
    ]
    try:
        routes = Routes([*own, *toolbox.all(IRestResource)])
    except ValueError as error:
        raise ConfigError("ops", str(error)) from None
    root = Root(routes, own_names(toolbox.node))
    site = make_site(root, toolbox.reactor)
    metrics.append(OpsMetrics(toolbox, root.counts, site))

    service = MultiService()
    http = ListeningService(toolbox.reactor, sockets, site)
    http.setServiceParent(service)
    manhole = None
    if settings.manhole is not None:
        where = manhole_socket(settings.manhole, toolbox.state_dir)
        factory = manhole_factory(lambda: _namespace(service, toolbox))
        manhole = ListeningService(toolbox.reactor, [where], factory)
        manhole.setServiceParent(service)

    def describe() -> Mapping[str, Any]:
        return {"listen": http.addresses, "manhole": manhole.addresses if manhole is not None else []}

    return Part(service, ready=lambda: None if http.addresses else "not listening yet", describe=describe)


def _namespace(service: IService, toolbox: IToolbox) -> Mapping[str, Any]:
    """What the manhole's user finds: the root service, the parts' services by name, the toolbox."""
    tree = service.parent
    root = tree
    while getattr(root, "parent", None) is not None:
        root = root.parent
    parts = {part.name: part for part in tree} if IServiceCollection.providedBy(tree) else {}
    return {"root": root, "parts": parts, "toolbox": toolbox}
