"""The VIP table: its rules by example, its laws by property."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.drain import Drain, DrainedBackend, DrainedHost, DrainedService, DrainedTask, key_of
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Endpoint, Protocol
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


def drained(*whats, on=True, tasks=None, members=()):
    snap = snapshot(*([task("a"), task("b", agent=HOST_B)] if tasks is None else tasks), members=members)
    drains = {key_of(what): Owned(Drain(what, on=on), "host-a", FIRST) for what in whats}
    return attrs.evolve(snap, drains=drains)


@pytest.mark.parametrize(
    "what",
    [
        DrainedHost(HOST_B),
        DrainedHost("host-b"),
        DrainedTask(TaskId("f", "b")),
        DrainedService("shop", "b"),
        DrainedBackend(Endpoint(HOST_B, 8000)),
        DrainedBackend(Endpoint(HOST_B, 8000), Protocol.TCP),
    ],
)
def test_what_an_operator_drains_has_weight_zero(what):
    """By host, task, service or backend; the key of the drain tells why."""
    snap = drained(what, members=[Member("host-b", (HOST_B,))])
    table = folded(snap)
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 0)]
    assert table.drained == {"tcp//web.shop:80": {Endpoint(HOST_B, 8000): (key_of(what),)}}
    assert table.update(attrs.evolve(snap, drains={}), frozenset({key_of(what)})) == {"tcp//web.shop:80"}
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 1)]
    assert table.drained_changed == {"tcp//web.shop:80"}
    assert not table.drained


@pytest.mark.parametrize(
    "what",
    [
        DrainedHost(ip_address("10.0.0.3")),
        DrainedHost("host-c"),
        DrainedTask(TaskId("g", "b")),
        DrainedService("other", "b"),
        DrainedBackend(Endpoint(HOST_B, 8001)),
        DrainedBackend(Endpoint(HOST_B, 8000), Protocol.UDP),
    ],
)
def test_a_drain_of_something_else_concerns_nobody(what):
    table = folded(drained(what))
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 1)]
    assert not table.drained


def test_the_end_of_a_drain_drains_nothing():
    """An entry that is there to outdo an older one."""
    assert backends(folded(drained(DrainedHost(HOST_B), on=False)))[1] == ("10.0.0.2:8000", 1)


def test_a_vip_whose_backends_are_all_drained_takes_no_new_flows():
    """An operator said so, of all of them; they stay, so that the name does."""
    table = folded(drained(DrainedHost(HOST_A), DrainedHost(HOST_B)))
    assert backends(table) == [("10.0.0.1:8000", 0), ("10.0.0.2:8000", 0)]


def test_a_host_that_is_drained_by_name_is_drained_where_it_is():
    """It has got another address; the drain follows the name."""
    table = folded(drained(DrainedHost("host-x"), members=[Member("host-x", (HOST_A,))]))
    snap = drained(DrainedHost("host-x"), members=[Member("host-x", (HOST_B,))])
    table.update(snap, frozenset({"member/host-x"}))
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 0)]


def test_a_task_that_comes_to_a_drained_host_is_drained_from_the_start():
    table = folded(drained(DrainedHost(HOST_B), tasks=[task("a")]))
    both = drained(DrainedHost(HOST_B))
    table.update(both, frozenset({task("b").id.key}))
    assert backends(table) == [("10.0.0.1:8000", 1), ("10.0.0.2:8000", 0)]


def test_a_drained_backend_stays_when_its_host_is_gone():
    """Its flows are counted to the end; and it keeps no other unreachable one from being used."""
    gone = Member("host-b", (HOST_B,), MemberState.UNREACHABLE)
    assert backends(folded(drained(DrainedHost(HOST_B), members=[gone]))) == [
        ("10.0.0.1:8000", 1),
        ("10.0.0.2:8000", 0),
    ]
    both = Member("all", (HOST_A, HOST_B), MemberState.UNREACHABLE)
    assert backends(folded(drained(DrainedHost(HOST_B), members=[both]))) == [
        ("10.0.0.1:8000", 1),
        ("10.0.0.2:8000", 0),
    ]


def test_several_drains_of_one_backend_are_all_told():
    """Ending one of them is not enough, and that can be seen."""
    whats = (DrainedHost(HOST_B), DrainedTask(TaskId("f", "b")))
    snap = drained(*whats)
    table = folded(snap)
    assert table.drained["tcp//web.shop:80"][Endpoint(HOST_B, 8000)] == tuple(sorted(map(key_of, whats)))
    gone = key_of(whats[0])
    left = {key: owned for key, owned in snap.drains.items() if key != gone}
    assert table.update(attrs.evolve(snap, drains=left), frozenset({gone})) == set()
    assert table.drained_changed == {"tcp//web.shop:80"}


@given(st.data())
def test_incremental_folding_equals_folding_at_once(data):
    """Whatever the order and grouping of changes, the last snapshot decides; and what changed is told exactly."""
    table = VipTable()
    known: dict[str, object] = {}
    drained: dict[str, object] = {}
    previous = None
    for snap in data.draw(st.lists(strategies.snapshots(), min_size=1, max_size=5)):
        if previous is None:
            changed = None
        else:
            keys = previous.tasks.keys() | snap.tasks.keys()
            changed = (
                frozenset(key for key in keys if previous.tasks.get(key) != snap.tasks.get(key))
                | {
                    f"member/{name}"
                    for name in previous.members.keys() | snap.members.keys()
                    if previous.members.get(name) != snap.members.get(name)
                }
                | {
                    key
                    for key in previous.drains.keys() | snap.drains.keys()
                    if previous.drains.get(key) != snap.drains.get(key)
                }
            )
        told = table.update(snap, changed)
        whole = folded(snap)
        assert (dict(table.vips), dict(table.drained)) == (dict(whole.vips), dict(whole.drained))
        assert told == {name for name in known.keys() | table.vips.keys() if known.get(name) != table.vips.get(name)}
        assert table.drained_changed == {
            name for name in drained.keys() | table.drained.keys() if drained.get(name) != table.drained.get(name)
        }
        known, drained, previous = dict(table.vips), dict(table.drained), snap
    table.update(Snapshot({}, {}, {}), None)
    assert not table.vips
    left = (table._behind, table._keys, table._named, table._of_task, table._agents, table._draining, table._drained)
    assert not any(left), "an index outlived its tasks"
