"""The part `register`: leases through the API, told as tasks of this node."""

from __future__ import annotations

import msgspec

from dcosnet.config.fields import Duration
from dcosnet.errors import ConfigError
from dcosnet.interfaces import IRestResource, ITaskSource, IToolbox, Part
from dcosnet.sources.register.api import TTL_MIN, Registration, Registrations
from dcosnet.sources.register.service import RegisterSource


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`[register]`: how long a lease may be, and how many are kept."""

    max_ttl: Duration = Duration(86400.0)
    limit: int = 1000


def make_part(settings: Settings, toolbox: IToolbox) -> Part:
    """Make the source and its resources; nothing is read before it starts."""
    if settings.max_ttl < TTL_MIN:
        raise ConfigError("register.max_ttl", f"{settings.max_ttl.text} is less than {TTL_MIN:g}s, the shortest lease")
    if settings.limit < 1:
        raise ConfigError("register.limit", f"{settings.limit} allows no registration; leave [register] out instead")
    source = RegisterSource(toolbox.reactor, toolbox.state_dir, toolbox.node)
    return Part(
        service=source,
        contributes=(
            (ITaskSource, source),
            (IRestResource, Registration(source, settings.max_ttl, settings.limit)),
            (IRestResource, Registrations(source)),
        ),
    )
