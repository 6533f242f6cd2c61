"""The part `files`: services from a folder, told as tasks of this node."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dcosnet.config.fields import ConfigPath
from dcosnet.interfaces import IMetrics, ITaskSource, IToolbox, Part
from dcosnet.sources.files.service import FilesSource


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[files]`."""

    path: ConfigPath = Path("/etc/dcosnet/services.d")


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Make the source; nothing is read before it starts."""
    source = FilesSource(toolbox.reactor, settings.path, toolbox.node, toolbox.rng.random)
    return Part(
        service=source,
        contributes=((ITaskSource, source), (IMetrics, source)),
        ready=source.unready,
        describe=source.describe,
    )
