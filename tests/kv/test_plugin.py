"""The part as assembly makes it, on the real reactor: its own thread and a real fsync."""

from ipaddress import ip_address
from random import Random

import pytest_twisted

from dcosnet.interfaces import IKeyValue, IMetrics
from dcosnet.io.turns import Turns
from dcosnet.kv.plugin import Settings, make_part
from dcosnet.model.entry import Lifetime
from dcosnet.model.node import Node


class Toolbox:
    """What kv takes from a toolbox."""

    rng = Random(1)
    node = Node("a", ip_address("127.0.0.1"))

    def __init__(self, reactor, state_dir):
        self.reactor = reactor
        self.state_dir = state_dir
        self.later = Turns(reactor).later


@pytest_twisted.ensureDeferred
async def test_a_durable_key_is_there_after_a_real_restart(tmp_path):
    """Acknowledged by the disk, off the reactor's thread; the part says it is ready, and names its metrics."""
    from twisted.internet import reactor

    for expected in (None, b"1"):
        part = make_part(Settings(), Toolbox(reactor, tmp_path))
        store = part.offers[IKeyValue]
        part.service.privilegedStartService()
        part.service.startService()
        entry = store.get("k")
        assert (entry and entry.value) == expected
        await store.write({"k": b"1"}, Lifetime.DURABLE).addTimeout(10, reactor)
        assert part.ready() is None
        assert part.describe()["keys"] == 1
        ((interface, metrics),) = part.contributes
        assert interface is IMetrics
        names = [family.name for family in metrics.collect()]
        assert len(names) == len(set(names))
        assert all(name.startswith("dcosnet_kv_") for name in names)
        await part.service.stopService().addTimeout(10, reactor)
