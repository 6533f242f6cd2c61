"""Task names and the fixed zones."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.facts import Leader
from dcosnet.model.names import usable
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskId, TaskState
from dcosnet.model.zone import RecordType
from dcosnet.testing import strategies
from dcosnet.views.zones import TASKS, ZOOKEEPER, TaskZone, ZooKeeperZone, fixed_zones

AGENT = ip_address("10.0.0.1")
OWN = ip_address("9.0.0.2")
OWN6 = ip_address("fd00::2")


def zone_of(*tasks):
    zone = TaskZone()
    zone.update(Snapshot({each.id.key: Owned(each, "host-a", Stamp(1, 0, "host-a")) for each in tasks}, {}, {}), None)
    return zone


def found(zone, kind, name="web.shop"):
    return [str(record.data) for record in zone.records.get(f"{name}.{kind}.{TASKS}", ())]


def task(name="web", **more):
    return Task(TaskId("f", name), name, "shop", AGENT, **more)


def test_each_kind_of_name_points_where_it_says():
    zone = zone_of(task(addresses=(OWN, OWN6)))
    assert found(zone, "agentip") == ["10.0.0.1"]
    assert found(zone, "containerip") == ["9.0.0.2", "fd00::2"]
    assert found(zone, "autoip") == ["9.0.0.2", "fd00::2"]


def test_a_mapped_port_makes_autoip_the_agent():
    zone = zone_of(task(addresses=(OWN,), ports=(Port(Protocol.TCP, 80, host_port=31000),)))
    assert found(zone, "autoip") == ["10.0.0.1"]


def test_a_task_without_addresses_has_no_container_name():
    zone = zone_of(task())
    assert found(zone, "containerip") == []
    assert found(zone, "autoip") == ["10.0.0.1"]


def test_only_running_tasks_have_names():
    for state in TaskState:
        assert bool(found(zone_of(task(state=state)), "agentip")) == (state is TaskState.RUNNING)


def test_dots_become_dashes():
    """Unlike Mesos-DNS: `marathon.user` is one label here."""
    zone = zone_of(Task(TaskId("f", "t"), "b.a", "marathon.user", AGENT))
    assert found(zone, "agentip", "b-a.marathon-user") == ["10.0.0.1"]


def test_a_name_of_punctuation_makes_no_record():
    assert set(zone_of(Task(TaskId("f", "t"), "...", "shop", AGENT)).records) == {TASKS}


def test_a_shared_record_stays_until_its_last_task_is_gone():
    """Two containers of a pod give one record."""
    zone = TaskZone()
    first, second = (Task(TaskId("f", each), "pod", "shop", AGENT) for each in "ab")
    both = {each.id.key: Owned(each, "host-a", Stamp(1, 0, "host-a")) for each in (first, second)}
    zone.update(Snapshot(both, {}, {}), None)
    del both[first.id.key]
    assert zone.update(Snapshot(both, {}, {}), frozenset({first.id.key})) == frozenset()
    assert found(zone, "agentip", "pod.shop") == ["10.0.0.1"]
    del both[second.id.key]
    assert len(zone.update(Snapshot(both, {}, {}), frozenset({second.id.key}))) == 2  # agentip and autoip
    assert set(zone.records) == {TASKS}


def led(*masters, epoch=0, owner="host-a", told=1):
    """A node's word on who leads: the first of the masters."""
    ends = tuple(Endpoint(ip_address(each), 5050) for each in masters)
    return {f"leader/{owner}": Owned(Leader(ends[0], ends, epoch), owner, Stamp(told, 0, owner))}


def snapshot_of(leaders):
    return Snapshot({}, {}, {}, leaders=leaders)


def data_of(zone, name):
    return [str(record.data) for record in zone.records.get(name, ())]


def test_the_leader_and_all_masters_have_names():
    """In one step: dcos-net pushed the zone without `master.` first."""
    zone = TaskZone()
    told = zone.update(snapshot_of(led("10.0.0.3", "10.0.0.1", "10.0.0.2")), frozenset({"leader/host-a"}))
    assert told == {f"leader.{TASKS}", f"master.{TASKS}"}
    assert data_of(zone, f"leader.{TASKS}") == ["10.0.0.3"]
    assert data_of(zone, f"master.{TASKS}") == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert zone.update(snapshot_of({}), frozenset({"leader/host-a"})) == told
    assert set(zone.records) == {TASKS}


def test_a_leading_master_is_a_master_though_nobody_listed_it():
    one = Endpoint(ip_address("10.0.0.7"), 5050)
    zone = TaskZone()
    zone.update(snapshot_of({"leader/host-a": Owned(Leader(one, ()), "host-a", Stamp(1, 0, "host-a"))}), None)
    assert data_of(zone, f"master.{TASKS}") == ["10.0.0.7"]


def test_the_leader_of_the_higher_epoch_leads_whatever_was_told_last():
    older, newer = led("10.0.0.1", epoch=4, told=9), led("10.0.0.2", epoch=5, owner="host-b", told=2)
    assert snapshot_of(older | newer).leader.value.epoch == 5
    assert snapshot_of(led("10.0.0.1", told=9) | led("10.0.0.2", owner="host-b", told=2)).leader.owner == "host-a"


def test_the_ensemble_has_five_names_however_many_masters_there_are():
    zone = ZooKeeperZone()
    assert set(zone.records) == {ZOOKEEPER}
    told = zone.update(snapshot_of(led("10.0.0.2", "10.0.0.1", "10.0.0.3")), frozenset({"leader/host-a"}))
    assert told == {f"zk-{n}.zk" for n in range(1, 6)}
    assert [data_of(zone, f"zk-{n}.zk") for n in range(1, 7)] == [
        ["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"], ["10.0.0.1"], ["10.0.0.2"], []
    ]  # fmt: skip
    assert zone.update(snapshot_of(led("10.0.0.1", "10.0.0.2")), frozenset({"leader/host-a"})) == {
        "zk-3.zk", "zk-4.zk", "zk-5.zk"
    }  # fmt: skip
    assert zone.update(snapshot_of({}), frozenset({"task/f/t"})) == frozenset()
    zone.update(snapshot_of({}), frozenset({"leader/host-a"}))
    assert set(zone.records) == {ZOOKEEPER}


@given(st.lists(strategies.snapshots(), min_size=1, max_size=5))
def test_incremental_folding_equals_folding_at_once(snaps):
    zone, previous, known = TaskZone(), None, {TASKS: TaskZone().records[TASKS]}
    for snap in snaps:
        changed = None
        if previous is not None:
            before, after = {**previous.tasks, **previous.leaders}, {**snap.tasks, **snap.leaders}
            changed = frozenset(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        told = zone.update(snap, changed)
        fresh = TaskZone()
        fresh.update(snap, None)
        assert dict(zone.records) == dict(fresh.records)
        assert told == {n for n in known.keys() | zone.records.keys() if known.get(n) != zone.records.get(n)}
        assert all(usable(name) and records for name, records in zone.records.items())
        known, previous = dict(zone.records), snap
    zone.update(Snapshot({}, {}, {}), None)
    assert set(zone.records) == {TASKS}
    assert not zone._of_task
    assert not zone._users


def test_fixed_zones_hold_what_dcos_net_serves():
    node = Node("host-a", AGENT, (ip_address("192.0.2.2"), ip_address("192.0.2.1")))
    zones = {zone.apex: zone for zone in fixed_zones(node)}
    assert set(zones) == {"thisnode.thisdcos.directory", "spartan", "localhost"}

    def data(name, apex):
        return [str(r.data) for r in zones[apex].records[name] if r.type is RecordType.A]

    assert data("ready.spartan", "spartan") == ["127.0.0.1"]
    assert data("ns.spartan", "spartan") == ["198.51.100.1"]
    assert data("localhost", "localhost") == ["127.0.0.1"]
    assert data("thisnode.thisdcos.directory", "thisnode.thisdcos.directory") == ["10.0.0.1"]
    assert data("public.thisnode.thisdcos.directory", "thisnode.thisdcos.directory") == ["192.0.2.1", "192.0.2.2"]
    for zone in zones.values():
        assert {RecordType.SOA, RecordType.NS} <= {record.type for record in zone.records[zone.apex]}
    unnamed = {zone.apex: zone for zone in fixed_zones(Node("host-a", AGENT))}
    assert "public.thisnode.thisdcos.directory" not in unnamed["thisnode.thisdcos.directory"].records
