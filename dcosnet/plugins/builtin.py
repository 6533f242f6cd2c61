"""
The parts that come with dcosnet, and how they hang together.

Only names are here: a part's module is imported when its table is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import attrs
from twisted.plugin import IPlugin
from zope.interface import implementer

from dcosnet.interfaces import (
    IDrains,
    IFold,
    IKeyValue,
    IMembership,
    IMetrics,
    IReplica,
    IRestResource,
    IServicePlugin,
    ITaskSource,
    IToolbox,
    ITraffic,
    IViews,
    IZone,
    Part,
)

if TYPE_CHECKING:
    # Twisted asks each value of a plugin module whether it is a plugin, and
    # zope's class of interfaces cannot be asked.
    from zope.interface.interface import InterfaceClass


def _set(*interfaces: InterfaceClass) -> frozenset[InterfaceClass]:
    return frozenset(interfaces)


@implementer(IPlugin, IServicePlugin)
@attrs.frozen
class Builtin:
    """A descriptor that imports its module (`Settings`, `make_part`) when asked."""

    name: str
    module: str
    needs: frozenset[InterfaceClass] = frozenset()
    offers: frozenset[InterfaceClass] = frozenset()
    contributes: frozenset[InterfaceClass] = frozenset()

    @property
    def config(self) -> type:
        """The settings of the part's table."""
        settings: type = import_module(self.module).Settings
        return settings

    def make_part(self, config: Any, toolbox: IToolbox) -> Part:
        """Let the module make its part."""
        part: Part = import_module(self.module).make_part(config, toolbox)
        return part


gossip = Builtin(
    "gossip", "dcosnet.gossip.plugin", needs=_set(IReplica), offers=_set(IMembership), contributes=_set(IMetrics)
)
kv = Builtin("kv", "dcosnet.kv.plugin", offers=_set(IKeyValue, IReplica), contributes=_set(IMetrics))
files = Builtin("files", "dcosnet.sources.files.plugin", contributes=_set(ITaskSource, IMetrics))
mesos = Builtin("mesos", "dcosnet.sources.mesos.plugin", contributes=_set(ITaskSource, IMetrics))
register = Builtin("register", "dcosnet.sources.register.plugin", contributes=_set(ITaskSource, IRestResource))
views = Builtin(
    "views",
    "dcosnet.views.plugin",
    needs=_set(IKeyValue, IMembership, ITaskSource, IFold),
    offers=_set(IViews, IDrains),
    contributes=_set(IZone, IMetrics),
)
l4lb = Builtin("l4lb", "dcosnet.l4lb.plugin", needs=_set(IViews), contributes=_set(IZone, IMetrics, ITraffic))
drain = Builtin("drain", "dcosnet.drain.plugin", needs=_set(IViews, IDrains, ITraffic))
dns = Builtin("dns", "dcosnet.dns.plugin", needs=_set(IZone), contributes=_set(IMetrics))
ops = Builtin(
    "ops",
    "dcosnet.ops.plugin",
    needs=_set(IViews, IDrains, IZone, ITaskSource, IMembership, IMetrics, IRestResource, ITraffic),
)
demo = Builtin("demo", "dcosnet.ops.demo", needs=_set(IViews, IZone))
