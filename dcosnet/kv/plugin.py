"""The part `kv`; it always runs."""

from __future__ import annotations

from functools import partial

import msgspec
from twisted.internet.threads import deferToThreadPool

from dcosnet.interfaces import IKeyValue, IMetrics, IReplica, IToolbox, Part
from dcosnet.io.disk import Disk
from dcosnet.kv.service import KeyValue


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to set."""


def make_part(settings: Settings, toolbox: IToolbox) -> Part:  # noqa: ARG001 - every part is made so
    """Build the store of this node, with its journal in `state_dir`/kv."""
    reactor = toolbox.reactor
    store = KeyValue(
        toolbox.node.name,
        toolbox.state_dir / "kv",
        Disk(),
        reactor.seconds,
        toolbox.later,
        reactor.callLater,
        # One commit at a time for each file is in the air, so the reactor's own threads do.
        partial(deferToThreadPool, reactor, reactor.getThreadPool()),
    )
    return Part(
        service=store,
        offers={IKeyValue: store, IReplica: store},
        contributes=((IMetrics, store),),
        describe=store.describe,
    )
