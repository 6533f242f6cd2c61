"""The VIP table: its rules by example, its laws by property."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Protocol
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Task, TaskId, TaskState
from dcosnet.testing import strategies
from dcosnet.views.viptable import VipTable

HOST_A = ip_address("10.0.0.1")
HOST_B = ip_address("10.0.0.2")


def task(name="t", agent=HOST_A, addresses=None, vips=("/web:80",), **more):
    ports = (Port(Protocol.TCP, 8000, vips=vips),)
    return Task(
        TaskId("f", name), name, "shop", agent, (agent,) if addresses is None else addresses, **{"ports": ports, **more}
    )


FIRST = Stamp(1, 0, "host-a")


def snapshot(*tasks, members=(), created=FIRST, since=None):
    owned = {each.id.key: Owned(each, "host-a", created, since or {}) for each in tasks}
    return Snapshot(owned, {}, {member.name: member for member in members})


def folded(snap):
    table = VipTable()
    table.update(snap, None)
    return table


def backends(table, name="tcp//web.shop:80"):
    return [(str(each.endpoint), each.weight) for each in table.vips[name].backends]


def test_tasks_with_one_label_stand_behind_one_vip():
    table = folded(snapshot(task("a"), task("b", agent=HOST_B)))
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 1)]


def test_an_unhealthy_task_drains():
    """Its flows go on and it gets no new ones."""
    assert backends(folded(snapshot(task(health=Health.UNHEALTHY)))) == [("10.0.0.1:8000", 0)]


def test_a_killed_task_drains_and_a_preparing_one_is_not_there():
    assert backends(folded(snapshot(task(state=TaskState.KILLING)))) == [("10.0.0.1:8000", 0)]
    assert not folded(snapshot(task(state=TaskState.PREPARING))).vips


def test_a_mapped_port_is_reached_at_the_agent():
    port = Port(Protocol.TCP, 80, host_port=31000, vips=("web:80",))
    table = folded(snapshot(task(addresses=(ip_address("9.0.0.2"),), ports=(port,))))
    assert backends(table, "tcp/web.shop:80") == [("10.0.0.1:31000", 1)]


def test_a_vip_given_by_address_takes_only_its_own_family():
    both = (ip_address("9.0.0.2"), ip_address("fd00::2"))
    table = folded(snapshot(task(addresses=both, vips=("fd01:c::1:80",))))
    assert backends(table, "tcp/fd01:c::1:80") == [("[fd00::2]:8000", 1)]


def test_an_unreadable_label_spoils_only_itself():
    table = folded(snapshot(task(vips=("nonsense", "web:0", "good:1"))))
    assert list(table.vips) == ["tcp/good.shop:1"]


@pytest.mark.parametrize("state", [MemberState.UNREACHABLE, MemberState.DEAD])
def test_backends_of_a_member_that_is_gone_are_left_out(state):
    """Of a dead one the leading master's node may still tell, until Mesos has noticed."""
    gone = Member("host-b", (HOST_B,), state)
    assert backends(folded(snapshot(task("a"), task("b", agent=HOST_B), members=[gone]))) == [("10.0.0.1:8000", 1)]


@pytest.mark.parametrize("members", [[], [Member("host-b", (HOST_B,), MemberState.LEFT)]])
def test_a_host_of_which_no_verdict_speaks_is_reachable(members):
    """An agent without dcosnet, or whose dcosnet was stopped on purpose, still runs its tasks."""
    assert len(backends(folded(snapshot(task("a"), task("b", agent=HOST_B), members=members)))) == 2


@pytest.mark.parametrize("state", [MemberState.UNREACHABLE, MemberState.DEAD])
def test_a_member_that_is_alive_speaks_for_the_address_of_one_that_is_gone(state):
    """A host was renamed, or has got a dead one's address; the old name is remembered for days."""
    table = VipTable()
    old, new = Member("old", (HOST_B,), state), Member("new", (HOST_B,))
    table.update(snapshot(task("a"), task("b", agent=HOST_B), members=[old]), None)
    assert len(backends(table)) == 1
    table.update(snapshot(task("a"), task("b", agent=HOST_B), members=[old, new]), frozenset({"member/new"}))
    assert len(backends(table)) == 2


def test_a_vip_whose_backends_are_all_unreachable_keeps_them():
    """A verdict on everybody is more likely wrong than right."""
    gone = Member("host-a", (HOST_A,), MemberState.UNREACHABLE)
    assert backends(folded(snapshot(task("a"), members=[gone]))) == [("10.0.0.1:8000", 1)]


def test_the_member_that_comes_back_brings_its_backends():
    table = VipTable()
    gone = Member("host-b", (HOST_B,), MemberState.UNREACHABLE)
    table.update(snapshot(task("a"), task("b", agent=HOST_B), members=[gone]), None)
    alive = Member("host-b", (HOST_B,))
    changed = table.update(snapshot(task("a"), task("b", agent=HOST_B), members=[alive]), frozenset({"member/host-b"}))
    assert changed == {"tcp//web.shop:80"}
    assert len(backends(table)) == 2


def test_a_name_is_as_old_as_the_stamp_it_inherits():
    """The first user of a name is gone; the name is not young for that."""
    table = folded(snapshot(task(), created=Stamp(9, 0, "host-a"), since={"/web": Stamp(2, 0, "host-b")}))
    assert table.vips["tcp//web.shop:80"].since == Stamp(2, 0, "host-b")
    assert table.since("/web", "shop") == Stamp(2, 0, "host-b")
    assert table.since("/other", "shop") is None


@given(st.data())
def test_incremental_folding_equals_folding_at_once(data):
    """Whatever the order and grouping of changes, the last snapshot decides; and what changed is told exactly."""
    table = VipTable()
    known: dict[str, object] = {}
    previous = None
    for snap in data.draw(st.lists(strategies.snapshots(), min_size=1, max_size=5)):
        if previous is None:
            changed = None
        else:
            keys = previous.tasks.keys() | snap.tasks.keys()
            changed = frozenset(key for key in keys if previous.tasks.get(key) != snap.tasks.get(key)) | {
                f"member/{name}"
                for name in previous.members.keys() | snap.members.keys()
                if previous.members.get(name) != snap.members.get(name)
            }
        told = table.update(snap, changed)
        assert dict(table.vips) == dict(folded(snap).vips)
        assert told == {name for name in known.keys() | table.vips.keys() if known.get(name) != table.vips.get(name)}
        known, previous = dict(table.vips), snap
    table.update(Snapshot({}, {}, {}), None)
    assert not table.vips
    assert not any((table._behind, table._keys, table._named, table._of_task, table._agents)), (
        "an index outlived its tasks"
    )
