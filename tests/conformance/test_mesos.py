"""
The recorded event streams and answers of Mesos, step by step.

Where a known defect of dcos-net is put right, the test's name says so.
"""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest

from dcosnet.model.addressing import parse_range
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Health, Runtime, TaskId, TaskState
from dcosnet.model.viplabels import dns_name, hash_text
from dcosnet.sources.mesos.events import AgentFold, MasterFold, Phase
from dcosnet.views.viptable import VipTable
from dcosnet.views.zones import TASKS, TaskZone

STREAMS = ("operator-api", "hello-world", "recovered-agents")
ANSWERS = ("dns-hostname", "unhealthy", "vip-labels")
NAMED_VIPS = {
    "A": parse_range("11.0.0.0-11.255.255.254"),
    "AAAA": parse_range("fd01:c::-fd01:c::ffff:ffff:ffff:ffff"),
}


class Views:
    """What the views make of facts, changed keys alone."""

    def __init__(self):
        self.tasks = {}
        self.zone, self.table = TaskZone(), VipTable()

    def take(self, facts):
        changed = self.tasks.keys() | {id_.key for id_ in facts.tasks}
        self.tasks = {id_.key: Owned(task, "host-a", Stamp(1, 0, "host-a")) for id_, task in facts.tasks.items()}
        snapshot = Snapshot(self.tasks, {}, {})
        self.zone.update(snapshot, frozenset(changed))
        self.table.update(snapshot, frozenset(changed))

    def records(self):
        return {
            (name, record.type.name, str(record.data))
            for name, records in self.zone.records.items()
            for record in records
            if name != TASKS
        }

    def vips(self):
        return dict(map(shown_vip, self.table.vips.values()))

    def vip_records(self):
        records = set()
        for vip in self.table.vips.values():
            for backend in vip.backends:
                kind = "A" if backend.address.version == 4 else "AAAA"
                if dns_name(vip.key):
                    records.add((dns_name(vip.key), kind, str(NAMED_VIPS[kind].start(hash_text(vip.key)))))
        return records


def document(fixtures_dir, name):
    return (fixtures_dir / f"mesos/{name}.json").read_bytes()


def expectation(fixtures_dir, name):
    return json.loads((fixtures_dir / f"mesos/{name}.expected.json").read_text())


def shown_task(task):
    """In the form of the fixtures, with sets where order means nothing."""
    healthy = {Health.UNKNOWN: None, Health.HEALTHY: True, Health.UNHEALTHY: False}[task.health]
    ports = frozenset((p.name, p.protocol.value, p.port, p.host_port, frozenset(p.vips)) for p in task.ports)
    return (
        task.name,
        task.framework,
        task.runtime,
        str(task.agent),
        tuple(map(str, task.addresses)),
        task.state,
        healthy,
        ports,
    )


def expected_task(row):
    ports = frozenset(
        (p["name"], p["protocol"], p.get("port"), p.get("host_port"), frozenset(p.get("vip", ())))
        for p in row.get("ports", ())
    )
    return (
        row["name"],
        row["framework"],
        Runtime(row["runtime"]),
        row["agent_ip"],
        tuple(row.get("task_ip", ())),
        TaskState(row["state"]),
        row.get("healthy"),
        ports,
    )


def task_id(row):
    return TaskId(row["framework_id"], row["task_id"])


def shown_tasks(facts):
    return {id_: shown_task(task) for id_, task in facts.tasks.items()}


def expected_tasks(rows):
    return {task_id(row): expected_task(row) for row in rows}


def expected_records(rows):
    return {(row["name"], row["type"], value) for row in rows for value in row["values"]}


def shown_vip(vip):
    key = vip.key
    identity = ("address", str(key.address)) if key.address else ("name", key.name, key.framework)
    backends = frozenset((str(each.agent), str(each.address), each.port, each.weight) for each in vip.backends)
    return (key.protocol.value, *identity, key.port), backends


def expected_vips(rows):
    found = {}
    for row in rows:
        identity = ("address", row["ip"]) if "ip" in row else ("name", row["name"], row["framework"])
        backends = {(each["agent_ip"], each["ip"], each["port"], each["weight"]) for each in row["backends"]}
        found[row["protocol"], *identity, row["port"]] = frozenset(backends)
    return found


def port_mappings(facts):
    return {
        (port.protocol.value, port.host_port, str(task.addresses[0]), port.port)
        for task in facts.tasks.values()
        if task.state in {TaskState.RUNNING, TaskState.KILLING} and task.runtime is not Runtime.DOCKER
        for port in task.ports
        if port.host_port is not None and port.port is not None
    }


def expected_mappings(rows):
    return {(row["protocol"], row["host_port"], row["ip"], row["port"]) for row in rows}


def check_end(facts, views, expected):
    assert shown_tasks(facts) == expected_tasks(expected["tasks"])
    assert views.records() == expected_records(expected["records"])
    assert views.vips() == expected_vips(expected["vips"])
    assert views.vip_records() == expected_records(expected["vip_records"])
    assert port_mappings(facts) == expected_mappings(expected["port_mappings"])


def play(lines, steps):
    """Play the lines that the steps name, and compare after each; gives the fold and its views."""
    fold, views = MasterFold(), Views()
    state = {"agents": {}, "frameworks": {}, "pending_agents": [], "waiting": [], "vips": [], "port_mappings": []}
    tasks, records = {}, set()
    for number, step in enumerate(steps):
        fold.apply(lines[step["line"] - 1], float(number))
        facts = fold.facts()
        views.take(facts)
        state |= {key: step[key] for key in state if key in step}
        for row in step.get("tasks_removed", ()):
            del tasks[task_id(row)]
        tasks |= expected_tasks(step.get("tasks_set", ()))
        records -= expected_records(step.get("records_removed", ()))
        records |= expected_records(step.get("records_added", ()))
        assert {id_: str(agent.address) for id_, agent in facts.agents.items()} == state["agents"], step
        assert {id_: framework.name for id_, framework in facts.frameworks.items()} == state["frameworks"], step
        assert fold.pending == set(state["pending_agents"]), step
        assert fold.waiting == set(map(task_id, state["waiting"])), step
        assert shown_tasks(facts) == tasks, step
        assert views.records() == records, step
        assert views.vips() == expected_vips(state["vips"]), step
        assert port_mappings(facts) == expected_mappings(state["port_mappings"]), step
        assert fold.problems == ()
    return fold, views


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_makes_the_same_tables_after_every_event(fixtures_dir, name):
    lines, expected = document(fixtures_dir, name).splitlines(), expectation(fixtures_dir, name)
    assert len(expected["steps"]) == len(lines)
    fold, views = play(lines, expected["steps"])
    check_end(fold.facts(), views, expected)
    for lookup in expected.get("lookups", ()):
        assert expected_records([lookup]) <= views.records()


@pytest.mark.parametrize("name", STREAMS[::2])
def test_tasks_that_come_before_their_framework_or_agent_wait_for_it(fixtures_dir, name):
    lines, expected = document(fixtures_dir, name).splitlines(), expectation(fixtures_dir, name)
    fold, views = play(lines, expected["reordered"]["steps"])
    check_end(fold.facts(), views, expected)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_answer_makes_the_same_tasks(fixtures_dir, name):
    """As an agent's answer, and as a master's snapshot where it has the tasks of one."""
    text, expected = document(fixtures_dir, name), expectation(fixtures_dir, name)
    state = json.loads(text)["get_state"]
    polled = AgentFold()
    assert polled.take(text, {"get_agent": state["get_agents"]["agents"][0]}, 1.0)
    views = Views()
    views.take(polled.facts())
    check_end(polled.facts(), views, expected)
    assert polled.problems == ()
    if "tasks" in state["get_tasks"]:
        fold = MasterFold()
        fold.apply({"type": "SUBSCRIBED", "subscribed": {"get_state": state}}, 1.0)
        assert fold.facts().tasks == polled.facts().tasks


def test_recovered_agents_hold_back_the_facts_and_are_given_time_for_their_tasks(fixtures_dir):
    """DCOS_OSS-5463: nothing is told before the master itself knows what runs."""
    fold = MasterFold()
    phases = []
    for number, line in enumerate(document(fixtures_dir, "recovered-agents").splitlines()):
        fold.apply(line, float(number))
        phases.append(fold.phase)
    assert phases[:3] == [Phase.AWAIT_AGENTS, Phase.AWAIT_AGENTS, Phase.AWAIT_TASKS]
    assert set(phases[3:]) == {Phase.AWAIT_TASKS}
    assert fold.due() == 2.0 + 10.0
    fold.tick(11.9)
    assert fold.facts().unsynced
    fold.tick(12.0)
    assert fold.phase is Phase.SERVE
    assert fold.facts().unsynced == ()
    assert fold.due() is None


@pytest.fixture
def told(fixtures_dir):
    """The end of the stream operator-api, with the facts told."""
    fold, views = MasterFold(), Views()
    for line in document(fixtures_dir, "operator-api").splitlines():
        fold.apply(line, 0.0)
    views.take(fold.facts())
    return fold, views


def event_of(row, agents):
    """A TASK_ADDED that means a task in the normal form."""
    states = {"running": "TASK_RUNNING", "killing": "TASK_KILLING", "terminal": "TASK_FINISHED"}
    ports = [{"number": port["port"], "name": port["name"], "protocol": port["protocol"]} for port in row["ports"]]
    infos = [{"ip_addresses": [{"ip_address": text} for text in row["task_ip"]]}]
    task = {
        "framework_id": {"value": row["framework_id"]},
        "task_id": {"value": row["task_id"]},
        "agent_id": {"value": agents[row["agent_ip"]]},
        "name": row["name"],
        "state": states[row["state"]],
        "container": {"type": "MESOS"},
        "discovery": {"name": row["name"], "ports": {"ports": ports}},
        "statuses": [{"timestamp": 1.0, "container_status": {"network_infos": infos}}],
    }
    return {"type": "TASK_ADDED", "task_added": {"task": task}}


def test_updates_change_the_watched_names_and_a_new_address_of_a_running_task_is_told(fixtures_dir, told):
    """D17: dcos-net leaves the records of a running task as they were; here they follow, the sharing rule alike."""
    fold, views = told
    updates = expectation(fixtures_dir, "operator-api")["updates"]
    agents = {str(agent.address): id_ for id_, agent in fold.facts().agents.items()}
    followed = 0
    for number, update in enumerate(updates["events"]):
        before = views.records()
        fold.apply(event_of(update["task"], agents), 1.0)
        views.take(fold.facts())
        watched = {record for record in views.records() if record[0] in updates["watched_names"]}
        expected = expected_records(update["records_of_name"])
        if number == 1:
            kept, new = update["records_of_name"][0], update["task"]["task_ip"][0]
            moved = {(name, kind, new if value == "9.0.2.3" else value) for name, kind, value in expected}
            assert not update["zone_changed"]
            assert watched == moved
            assert expected_records([kept]) <= watched
            followed += 1
        else:
            assert watched == expected
            # What follows 9.0.2.9 is known to be gone already.
            assert (views.records() != before) == update["zone_changed"]
    assert followed == 1


def test_a_framework_that_is_renamed_renames_its_tasks(fixtures_dir, told):
    """D17: dcos-net applies a new name only to tasks that come after it."""
    fold, views = told
    id_ = next(id_ for id_, framework in fold.facts().frameworks.items() if framework.name == "marathon")
    info = {"framework_info": {"id": {"value": id_}, "name": "second"}}
    fold.apply({"type": "FRAMEWORK_UPDATED", "framework_updated": {"framework": info}}, 1.0)
    views.take(fold.facts())
    expected = expected_records(expectation(fixtures_dir, "operator-api")["records"])
    assert views.records() == {(name.replace(".marathon.", ".second."), kind, value) for name, kind, value in expected}


def test_an_agent_that_moves_moves_its_tasks(fixtures_dir, told):
    """D17, of agents: the names lead where the agent is now."""
    fold, views = told
    old = ip_address("172.17.0.4")
    id_ = next(id_ for id_, agent in fold.facts().agents.items() if agent.address == old)
    moved = {"agent_info": {"id": {"value": id_}, "hostname": "172.17.0.44"}}
    fold.apply({"type": "AGENT_ADDED", "agent_added": {"agent": moved}}, 1.0)
    views.take(fold.facts())
    agent_records = {record for record in views.records() if ".agentip." in record[0]}
    assert not [record for record in agent_records if record[2] == str(old)]
    assert [record for record in agent_records if record[2] == "172.17.0.44"]
