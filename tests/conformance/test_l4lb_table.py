"""The recorded tasks of dcos-net's poller, folded into VIPs."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from dcosnet.model.net import Protocol
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Port, Runtime, Task, TaskId, TaskState
from dcosnet.views.viptable import VipTable


def load_task(row):
    return Task(
        TaskId(row["framework_id"], row["task_id"]),
        row["name"],
        row["framework"],
        ip_address(row["agent_ip"]),
        tuple(map(ip_address, row.get("task_ip", ()))),
        tuple(
            Port(
                Protocol(port["protocol"]),
                port.get("port"),
                port.get("host_port"),
                port.get("name", "default"),
                tuple(port.get("vip", ())),
            )
            for port in row.get("ports", ())
        ),
        TaskState(row["state"]),
        {None: Health.UNKNOWN, True: Health.HEALTHY, False: Health.UNHEALTHY}[row.get("healthy")],
        runtime=Runtime(row["runtime"]),
    )


def shown(vip):
    key = vip.key
    identity = ("address", str(key.address)) if key.address else ("name", key.name, key.framework)
    backends = {(str(each.agent), str(each.address), each.port, each.weight) for each in vip.backends}
    return (key.protocol.value, *identity, key.port), backends


def expected(row):
    identity = ("address", row["ip"]) if "ip" in row else ("name", row["name"], row["framework"])
    backends = {(each["agent_ip"], each["ip"], each["port"], each["weight"]) for each in row["backends"]}
    return (row["protocol"], *identity, row["port"]), backends


def test_tasks_make_the_vips_of_dcos_net(fixtures_dir):
    """Cases without IPv6 are left out: here it is always on."""
    checked = 0
    for case in json.loads((fixtures_dir / "l4lb/poller.expected.json").read_text())["cases"]:
        if not case["ipv6_enabled"]:
            continue
        tasks = map(load_task, case["tasks"])
        table = VipTable()
        table.update(
            Snapshot({task.id.key: Owned(task, "host-a", Stamp(1, 0, "host-a")) for task in tasks}, {}, {}), None
        )
        assert dict(map(shown, table.vips.values())) == dict(map(expected, case["vips"])), case["name"]
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize("families", ["ipv4", "ipv6"])
def test_backends_of_a_family_may_serve_a_vip_as_recorded(fixtures_dir, families):
    labels = {"named": "name:80", "ipv4": "192.0.2.1:80", "ipv6": "fd01:c::1:80"}
    addresses = {"ipv4": ip_address("10.0.0.9"), "ipv6": ip_address("fd00::9")}
    checked = 0
    for case in json.loads((fixtures_dir / "l4lb/backend-families.expected.json").read_text())["cases"]:
        if not case["ipv6_enabled"] or case["backend"] != families:
            continue
        port = Port(Protocol.TCP, 80, vips=(labels[case["vip"]],))
        task = Task(TaskId("f", "t"), "t", "f", ip_address("10.0.0.1"), (addresses[families],), (port,))
        table = VipTable()
        table.update(Snapshot({task.id.key: Owned(task, "host-a", Stamp(1, 0, "host-a"))}, {}, {}), None)
        assert bool(table.vips) == case["accepted"], case
        checked += 1
    assert checked == 3
