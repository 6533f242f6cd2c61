"""The views as they run, between a real store and sources of the test."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from zope.interface import implementer

from dcosnet.interfaces import ITaskSource
from dcosnet.io.turns import Turns
from dcosnet.model.facts import Facts, SourceStatus
from dcosnet.model.member import Member
from dcosnet.model.net import Protocol
from dcosnet.model.node import Node
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing.fake_membership import FakeMembership
from dcosnet.testing.store_rig import StoreRig
from dcosnet.views.service import Views
from dcosnet.views.zones import TASKS

NODE = Node("n", ip_address("127.0.0.1"))
WEB = Task(
    TaskId("f", "web"), "web", "shop", NODE.address, ports=(Port(Protocol.TCP, host_port=80, vips=("/web:80",)),)
)
NAME = f"web.shop.agentip.{TASKS}"


@implementer(ITaskSource)
class Told:
    """Says what the test says."""

    name = "told"

    def watch(self, sink) -> None:
        self.tell = sink

    def status(self) -> SourceStatus:
        return SourceStatus(synced=True, detail="")


class Rig:
    def __init__(self, store: StoreRig) -> None:
        later = Turns(store.clock).later
        self.store = store
        self.source = Told()
        self.views = Views(
            NODE,
            store.store,
            FakeMembership([Member(NODE.name, (NODE.address,))], later),
            [self.source],
            [],
            later,
            store.clock.seconds,
        )
        self.history: list[tuple[bool, str | None]] = []
        zone = next(one for one in self.views.zones if one.apex == TASKS)
        zone.zone.subscribe(lambda value, _changed: self.history.append((NAME in value.records, value.unsynced)))

    def turn(self) -> None:
        for _ in range(10):
            self.store.turn()

    def tell(self, *tasks: Task) -> None:
        self.source.tell(Facts({task.id: task for task in tasks}))
        self.turn()


@pytest.fixture
def rig(tmp_path):
    store = StoreRig(tmp_path)
    made = Rig(store)
    yield made
    made.views.stopService()
    store.stop()


@pytest.mark.parametrize("early", [True, False])
def test_absent_names_are_denied_only_once_those_that_exist_are_told(rig, early) -> None:
    """Whether the source speaks before the views start, as one that starts first may, or after."""
    if early:
        rig.source.tell(Facts({WEB.id: WEB}))
    rig.views.startService()
    if not early:
        rig.turn()
        rig.source.tell(Facts({WEB.id: WEB}))
    rig.turn()
    assert rig.history[-1] == (True, None)
    assert (False, None) not in rig.history


def test_a_task_that_the_store_refuses_costs_only_itself(rig) -> None:
    rig.views.startService()
    large = Task(TaskId("f", "large"), "large", "shop", NODE.address, labels={"text": "x" * (1 << 20)})
    rig.tell(large, WEB)
    assert rig.history[-1] == (True, None)
    assert rig.store.store.get(large.id.key) is None


def test_a_task_that_is_refused_takes_what_was_told_of_it_before_along(rig) -> None:
    """It runs elsewhere by now, or not at all: the old value would be a lie."""
    rig.views.startService()
    rig.tell(WEB)
    assert rig.views.vips.value
    rig.tell(Task(WEB.id, "web", "shop", NODE.address, labels={"text": "x" * (1 << 20)}))
    assert rig.store.store.get(WEB.id.key) is None
    assert not rig.views.vips.value
    assert rig.history[-1] == (False, None)
