"""The part `drain`; it always runs, so that every node tells, also one that carries no traffic."""

from __future__ import annotations

import msgspec

from dcosnet.drain.service import Teller
from dcosnet.interfaces import IDrains, IToolbox, ITraffic, IViews, Part


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to set."""


def make_part(settings: Settings, toolbox: IToolbox) -> Part:  # noqa: ARG001 - every part is made so
    """Tell of what the data planes of this node carry."""
    return Part(Teller(toolbox[IViews], toolbox[IDrains], toolbox.all(ITraffic), toolbox.reactor))
