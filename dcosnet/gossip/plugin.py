"""The part `membership`; it always runs."""

from __future__ import annotations

import msgspec
from twisted.application.service import Service

from dcosnet.gossip.membership import Membership
from dcosnet.interfaces import IMembership, IToolbox, Part


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to set."""


def make_part(settings: Settings, toolbox: IToolbox) -> Part:  # noqa: ARG001 - every part is made so
    """Build the membership of this node alone: there is nothing to start."""
    service = Service()
    service.setName("membership")
    return Part(service=service, offers={IMembership: Membership(toolbox.node, toolbox.later)})
