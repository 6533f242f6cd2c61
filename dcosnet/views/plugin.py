"""The part `views`; it always runs."""

from __future__ import annotations

import msgspec

from dcosnet.interfaces import (
    IDrains,
    IFold,
    IKeyValue,
    IMembership,
    IMetrics,
    ITaskSource,
    IToolbox,
    IViews,
    IZone,
    Part,
)
from dcosnet.views.drains import Drains
from dcosnet.views.service import Views


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to set."""


def make_part(settings: Settings, toolbox: IToolbox) -> Part:  # noqa: ARG001 - every part is made so
    """Build the read models from the store, the members and the sources."""
    views = Views(
        toolbox.node,
        toolbox[IKeyValue],
        toolbox[IMembership],
        toolbox.all(ITaskSource),
        toolbox.all(IFold),
        toolbox.later,
        toolbox.reactor.seconds,
    )
    drains = Drains(toolbox.node.name, toolbox[IKeyValue], lambda: views.snapshot.value.drains, toolbox.reactor.seconds)
    return Part(
        service=views,
        offers={IViews: views, IDrains: drains},
        contributes=((IMetrics, views), *((IZone, zone) for zone in views.zones)),
        ready=lambda: views.unsynced.value,
    )
