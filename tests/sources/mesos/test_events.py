"""Events folded into facts."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.task import TaskId, TaskState
from dcosnet.sources.mesos.events import AgentFold, MasterFold, Phase
from dcosnet.sources.mesos.pieces import LIMIT
from dcosnet.sources.mesos.recordio import ProtocolError


def agent_document(id_="S0", hostname="10.0.0.1", pid="slave(1)@10.0.9.9:5051"):
    return {"agent_info": {"id": {"value": id_}, "hostname": hostname}, "pid": pid}


def framework_document(id_="fw", name="marathon"):
    return {"framework_info": {"id": {"value": id_}, "name": name}, "active": True}


def status(timestamp, state, addresses=(), healthy=None):
    infos = [{"ip_addresses": [{"ip_address": each} for each in addresses]}]
    told = {"timestamp": float(timestamp), "state": state, "container_status": {"network_infos": infos}}
    return told if healthy is None else told | {"healthy": healthy}


def task_document(id_="web.1", framework="fw", agent="S0", state="TASK_STAGING", statuses=(), name="web"):
    ports = {
        "ports": [{"number": 80, "protocol": "tcp", "labels": {"labels": [{"key": "VIP", "value": f"/{name}:80"}]}}]
    }
    return {
        "task_id": {"value": id_},
        "framework_id": {"value": framework},
        "agent_id": {"value": agent},
        "name": name,
        "state": state,
        "discovery": {"ports": ports},
        "statuses": list(statuses),
    }


def subscribed(tasks=(), agents=(), frameworks=(), recovered=(), **more):
    state = {
        "get_tasks": {"tasks": list(tasks)},
        "get_executors": {"executors": [{"executor_info": {}}]},
        "get_agents": {"agents": list(agents), "recovered_agents": [each["agent_info"] for each in recovered]},
        "get_frameworks": {"frameworks": list(frameworks)},
    }
    return {"type": "SUBSCRIBED", "subscribed": {"get_state": state, **more}}


def task_added(document):
    return {"type": "TASK_ADDED", "task_added": {"task": document}}


def task_updated(document, told):
    ids = {"framework_id": document["framework_id"]}
    content = {**ids, "state": told["state"], "status": {"task_id": document["task_id"], **told}}
    return {"type": "TASK_UPDATED", "task_updated": content}


def agent_added(document):
    return {"type": "AGENT_ADDED", "agent_added": {"agent": document}}


def agent_removed(id_):
    return {"type": "AGENT_REMOVED", "agent_removed": {"agent_id": {"value": id_}}}


def framework_event(kind, document):
    inner = document if kind == "framework_removed" else {"framework": document}
    return {"type": kind.upper(), kind: inner}


def fold_of(*records):
    fold = MasterFold()
    for record in records:
        fold.apply(json.dumps(record).encode(), 0.0)
    return fold


RUNNING = task_document(state="TASK_RUNNING", statuses=[status(1, "TASK_RUNNING", ["9.0.0.1"])])
SERVING = subscribed([RUNNING], [agent_document()], [framework_document()])
WEB = TaskId("fw", "web.1")


# the property: the order of events


NAMES = {"a.example": ip_address("10.0.1.1"), "b.example": ip_address("10.0.1.2"), "gone.example": None}
hostnames = st.sampled_from(["10.0.0.1", "10.0.0.2", "localhost", *NAMES])
told_states = st.sampled_from(["TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE"])
addresses = st.lists(st.sampled_from(["9.0.0.1", "10.0.0.1", "fd01::1"]), max_size=2, unique=True)


@st.composite
def histories(draw):
    """Entities with the events of each in order, and the snapshot of the master at the end."""
    events, tasks, agents, frameworks = [], [], [], []
    for number in range(draw(st.integers(1, 3))):
        told = [
            agent_document(f"S{number}", hostname) for hostname in draw(st.lists(hostnames, min_size=1, max_size=3))
        ]
        lives = [[agent_added(each)] for each in told]
        gaps = [[agent_removed(f"S{number}")] if draw(st.booleans()) else [] for _ in told[1:]]
        events.append([*lives[0], *(event for gap, life in zip(gaps, lives[1:], strict=True) for event in gap + life)])
        agents.append(told[-1])
    for number in range(draw(st.integers(1, 2))):
        id_ = f"fw{number}"
        told = [
            framework_document(id_, name) for name in draw(st.lists(st.sampled_from("pqr"), min_size=1, max_size=3))
        ]
        updates = [framework_event("framework_updated", each) for each in told[1:]]
        events.append([framework_event("framework_added", told[0]), *updates])
        frameworks.append(told[-1])
    for number in range(draw(st.integers(0, 5))):
        words = draw(st.lists(st.tuples(told_states, addresses, st.none() | st.booleans()), max_size=4))
        told = [status(when, *word) for when, word in enumerate(words)]
        if draw(st.booleans()) and words:
            told.append(status(99, "TASK_FINISHED"))
        agent = f"S{draw(st.integers(0, len(agents) - 1))}"
        framework = f"fw{draw(st.integers(0, len(frameworks) - 1))}"
        document = task_document(f"t{number}", framework, agent)
        events.append([task_added(document), *(task_updated(document, each) for each in told)])
        state = told[-1]["state"] if told else document["state"]
        tasks.append(document | {"state": state, "statuses": draw(st.permutations(told))})
    return events, subscribed(draw(st.permutations(tasks)), agents, frameworks)


def look_up(fold):
    for name in fold.unresolved():
        fold.resolved(name, NAMES[name], 0.0)


@given(histories(), st.data())
def test_in_whatever_order_events_come_the_facts_are_those_of_the_snapshot(history, data):
    """Of one task, agent or framework they come in order; beyond that, the order means nothing."""
    queues, snapshot = history
    fold, told = fold_of(subscribed()), {}
    while queues := [queue for queue in queues if queue]:
        fold.apply(data.draw(st.sampled_from(queues)).pop(0), 0.0)
        if data.draw(st.booleans()):
            look_up(fold)
        facts = fold.facts()
        if not facts.unsynced:
            changed = facts.tasks.keys() | told.keys() if facts.changed is None else facts.changed
            for id_ in changed:
                told.pop(id_, None)
                if id_ in facts.tasks:
                    told[id_] = facts.tasks[id_]
            assert told == facts.tasks
    look_up(fold)
    whole = fold_of(snapshot)
    look_up(whole)
    assert fold.facts() == whole.facts()
    assert fold.waiting == whole.waiting == frozenset()
    assert fold.problems == whole.problems == ()


# the start phases


def test_nothing_waited_for_means_served_at_once():
    fold = fold_of(SERVING)
    assert fold.phase is Phase.SERVE
    assert fold.due() is None
    assert fold.facts().tasks.keys() == {WEB}


@pytest.mark.parametrize("kind", ["pending_tasks", "unreachable_tasks", "completed_tasks", "orphan_tasks"])
def test_of_a_snapshot_only_tasks_that_agents_have_count(kind):
    """The other lists hold tasks that do not run, or that ended long ago."""
    snapshot = subscribed([], [agent_document()], [framework_document()])
    snapshot["subscribed"]["get_state"]["get_tasks"][kind] = [RUNNING]
    fold = fold_of(snapshot)
    assert fold.phase is Phase.SERVE
    assert fold.facts().tasks == {}
    assert fold.problems == ()


def test_nothing_is_whole_before_the_snapshot():
    fold = MasterFold()
    assert fold.phase is Phase.INIT
    assert fold.facts().unsynced


def test_a_recovered_agent_is_waited_for_ten_minutes():
    fold = fold_of(subscribed(recovered=[agent_document("S0", "old-host")]))
    assert fold.phase is Phase.AWAIT_AGENTS
    assert "old-host" in fold.facts().unsynced[0]
    assert fold.due() == 600.0
    fold.tick(599.0)
    assert fold.phase is Phase.AWAIT_AGENTS
    fold.tick(600.0)
    assert (fold.phase, fold.due()) == (Phase.AWAIT_TASKS, 610.0)
    fold.tick(610.0)
    assert fold.phase is Phase.SERVE


@pytest.mark.parametrize("event", [agent_added(agent_document()), agent_removed("S0")])
def test_a_recovered_agent_that_is_back_or_gone_is_waited_for_no_longer(event):
    fold = fold_of(subscribed(recovered=[agent_document()]))
    fold.apply(event, 5.0)
    assert fold.pending == frozenset()
    assert (fold.phase, fold.due()) == (Phase.AWAIT_TASKS, 15.0)


def test_tasks_that_wait_hold_back_the_facts_for_ten_seconds():
    fold = fold_of(subscribed([RUNNING], [agent_document()]))
    assert fold.waiting == {WEB}
    assert (fold.phase, fold.due()) == (Phase.AWAIT_TASKS, 10.0)
    fold.apply(framework_event("framework_added", framework_document()), 3.0)
    assert fold.phase is Phase.SERVE
    late = fold_of(subscribed([RUNNING], [agent_document()]))
    late.tick(10.0)
    assert late.phase is Phase.SERVE
    assert late.facts().tasks == {}


def test_a_second_snapshot_replaces_the_first():
    """What the new one leaves out is gone; who reads the facts is told that anything may have changed."""
    fold = fold_of(SERVING)
    fold.facts()
    fold.apply(subscribed([], [agent_document("S1")], recovered=[agent_document("S2")]), 1.0)
    assert fold.phase is Phase.AWAIT_AGENTS
    fold.tick(601.0)
    fold.tick(611.0)
    facts = fold.facts()
    assert (facts.tasks, facts.frameworks, set(facts.agents), facts.changed) == ({}, {}, {"S1"}, None)


@pytest.mark.parametrize(("told", "expected"), [(5.0, 5.0), (20, 20.0), (0, 15.0), ("x", 15.0), (1e300, 15.0)])
def test_the_heartbeat_interval_is_what_the_master_tells(told, expected):
    assert fold_of(subscribed(heartbeat_interval_seconds=told)).heartbeat_interval == expected


# names of agents


def test_an_agents_host_name_is_looked_up_and_its_tasks_wait():
    fold = fold_of(subscribed([RUNNING], [agent_document(hostname="a.example")], [framework_document()]))
    assert fold.unresolved() == {"a.example"}
    assert fold.waiting == {WEB}
    fold.resolved("a.example", ip_address("10.0.1.1"), 1.0)
    assert fold.unresolved() == frozenset()
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.1.1")
    assert fold.phase is Phase.SERVE


def test_a_name_that_does_not_resolve_falls_back_to_the_pid_and_is_tried_again():
    """D21: dcos-net crashes, or parks the tasks for ever."""
    fold = fold_of(subscribed([RUNNING], [agent_document(hostname="a.example")], [framework_document()]))
    fold.resolved("a.example", None, 1.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.9.9")
    assert fold.unresolved() == {"a.example"}
    fold.resolved("a.example", ip_address("10.0.1.1"), 2.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.1.1")
    fold.resolved("a.example", None, 3.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.1.1")


def test_an_agent_that_cannot_be_reached_by_name_or_pid_costs_only_its_tasks():
    bad = [agent_document("S0", "a.example", pid="slave(1)@?"), agent_document("S1")]
    other = task_document("web.2", agent="S1")
    fold = fold_of(subscribed([RUNNING, other], bad, [framework_document()]))
    fold.resolved("a.example", None, 1.0)
    fold.tick(10.0)
    assert fold.facts().tasks.keys() == {TaskId("fw", "web.2")}
    assert [(problem.reference, "was not resolved" in problem.reason) for problem in fold.problems] == [
        ("agent S0", True)
    ]


def test_a_bad_pid_costs_nothing_where_the_host_name_is_an_address():
    fold = fold_of(subscribed([RUNNING], [agent_document(pid="slave(1)@nowhere")], [framework_document()]))
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.0.1")
    assert "'slave(1)@nowhere' has no address" in fold.problems[0].reason


# tasks


def test_tasks_of_two_frameworks_may_have_one_id():
    """dcos-net 831fcda: Spark calls its tasks "0", "1" ..."""
    frameworks = [framework_document("fw1", "one"), framework_document("fw2", "two")]
    tasks = [task_document("0", "fw1"), task_document("0", "fw2")]
    fold = fold_of(subscribed(tasks, [agent_document()], frameworks))
    fold.apply(task_updated(tasks[0], status(1, "TASK_FAILED")), 1.0)
    assert fold.facts().tasks.keys() == {TaskId("fw2", "0")}


def test_a_task_outlives_its_framework_and_its_agent_until_it_ends():
    """As dcos-net: the master tells the end of each task."""
    fold = fold_of(SERVING, framework_event("framework_removed", framework_document()), agent_removed("S0"))
    fold.apply(task_updated(RUNNING, status(2, "TASK_KILLING")), 1.0)
    facts = fold.facts()
    assert (facts.agents, facts.frameworks) == ({}, {})
    assert (facts.tasks[WEB].framework, facts.tasks[WEB].state) == ("marathon", TaskState.KILLING)
    fold.apply(task_updated(RUNNING, status(3, "TASK_KILLED")), 1.0)
    assert fold.facts().tasks == {}


def test_an_update_of_a_task_that_ended_brings_nothing_back():
    fold = fold_of(SERVING)
    fold.apply(task_updated(RUNNING, status(3, "TASK_KILLED")), 1.0)
    fold.apply(task_updated(RUNNING, status(3, "TASK_RUNNING")), 1.0)
    assert fold.facts().tasks == {}
    assert fold.waiting == frozenset()


def test_a_task_that_is_told_on_another_agent_moves():
    fold = fold_of(SERVING)
    fold.apply(task_added(RUNNING | {"agent_id": {"value": "S1"}}), 1.0)
    assert fold.waiting == {WEB}
    fold.apply(agent_added(agent_document("S1", "10.0.0.2")), 1.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.0.2")


def test_facts_that_did_not_change_are_the_same_object():
    """A status that tells nothing new is no change."""
    fold = fold_of(SERVING)
    first = fold.facts()
    fold.apply({"type": "HEARTBEAT"}, 1.0)
    fold.apply(task_updated(RUNNING, status(2, "TASK_RUNNING", ["9.0.0.1"])), 1.0)
    fold.apply(framework_event("framework_updated", framework_document()), 1.0)
    assert fold.facts() is first
    fold.apply(task_updated(RUNNING, status(3, "TASK_KILLING")), 1.0)
    second = fold.facts()
    assert second.changed == {WEB}
    assert second.tasks[WEB].state is TaskState.KILLING
    assert second.agents is first.agents
    assert second.frameworks is first.frameworks
    fold.apply(agent_added(agent_document("S9")), 1.0)
    assert fold.facts().changed == frozenset()
    assert fold.facts().agents.keys() == {"S0", "S9"}
    assert second.agents.keys() == {"S0"}


def test_a_new_snapshot_leaves_the_facts_told_before():
    """They stay in force until it is whole, though their tasks are a live view."""
    fold = fold_of(SERVING)
    told = fold.facts()
    fold.apply(subscribed(), 1.0)
    assert fold.facts().tasks == {}
    assert told.tasks.keys() == {WEB}


# bad input


@pytest.mark.parametrize(
    "record", [b"", b"<html>", b"[]", b"7", b'"SUBSCRIBED"', b'{"type": "HEARTBEAT"', b"\xff{}", b"[" * 9999]
)
def test_what_is_no_json_object_is_a_protocol_error(record):
    """The caller reconnects; it still has the facts told last."""
    fold = fold_of(SERVING)
    facts = fold.facts()
    with pytest.raises(ProtocolError):
        fold.apply(record, 1.0)
    assert facts.tasks.keys() == {WEB}


def test_a_snapshot_cut_short_is_a_protocol_error():
    whole = json.dumps(SERVING).encode()
    fold = MasterFold()
    with pytest.raises(ProtocolError):
        fold.apply(whole[:-40], 1.0)
    assert fold.phase is Phase.INIT


def told(**state):
    """A SUBSCRIBED whose state has this in place of what is usual."""
    whole = SERVING["subscribed"]["get_state"] | state
    return {"type": "SUBSCRIBED", "subscribed": {"get_state": {k: v for k, v in whole.items() if v != "absent"}}}


@pytest.mark.parametrize(
    "record",
    [
        {"type": "SUBSCRIBED"},
        {"type": "SUBSCRIBED", "subscribed": {}},
        {"type": "SUBSCRIBED", "subscribed": {"get_state": None}},
        {"type": "SUBSCRIBED", "subscribed": {"get_state": {}}},
        {"type": "SUBSCRIBED", "subscribed": {"get_state": []}},
        told(get_tasks="absent"),
        told(get_agents="absent"),
        told(get_frameworks="absent"),
        told(get_tasks=None),
        told(get_tasks=[]),
        told(get_tasks={"tasks": None}),
        told(get_tasks={"tasks": {"web.1": {}}}),
        told(get_agents={"agents": 7}),
        told(get_frameworks={"frameworks": "none"}),
    ],
)
def test_a_state_that_is_absent_is_not_an_empty_one(record):
    """Nothing may be made of it, for it would end every task of the cluster."""
    fold = fold_of(SERVING)
    with pytest.raises(ProtocolError, match="the state that the master tells has"):
        fold.apply(json.dumps(record).encode(), 1.0)
    assert fold.facts().unsynced


def test_a_state_of_empty_objects_is_an_empty_cluster():
    """What a master tells that knows nobody: JSON made of protobuf leaves out empty lists."""
    fold = fold_of(told(get_tasks={}, get_agents={}, get_frameworks={}))
    assert fold.phase is Phase.SERVE
    assert fold.facts().tasks == {}


def test_a_long_record_that_is_no_snapshot_is_a_protocol_error():
    record = json.dumps({"type": "TASK_ADDED", "task_added": {"list": ["x" * 100] * (LIMIT // 50)}}).encode()
    with pytest.raises(ProtocolError, match="no SUBSCRIBED but 'TASK_ADDED'"):
        MasterFold().apply(record, 1.0)


@pytest.mark.parametrize("kind", ["OFFER", None, 7, {"a": 1}])
def test_an_unknown_event_is_counted_and_costs_nothing(kind):
    fold = fold_of(SERVING, {"type": kind, "offer": {}})
    assert fold.events["other"] == fold.rejected["event"] == 1
    assert fold.facts().tasks.keys() == {WEB}
    assert len(fold.problems) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"type": "TASK_ADDED"},
        {"type": "TASK_ADDED", "task_added": []},
        {"type": "TASK_UPDATED", "task_updated": {"framework_id": {"value": "fw"}, "status": 7}},
        {"type": "AGENT_ADDED", "agent_added": {"agent": {"agent_info": {}}}},
        {"type": "AGENT_REMOVED", "agent_removed": "S0"},
        {"type": "FRAMEWORK_UPDATED", "framework_updated": {"framework": {"framework_info": {"id": {"value": "fw"}}}}},
        {"type": "FRAMEWORK_REMOVED", "framework_removed": {}},
    ],
)
def test_an_event_that_cannot_be_read_costs_only_itself(event):
    fold = fold_of(SERVING)
    before = fold.facts()
    fold.apply(event, 1.0)
    assert fold.facts() is before
    assert fold.rejected["event"] == 1
    assert [problem.reference for problem in fold.problems] == [f"event {event['type']}"]


def test_one_bad_task_of_a_snapshot_costs_only_itself():
    bad = [7, {"task_id": {"value": "x"}}, RUNNING]
    fold = fold_of(subscribed(bad, [agent_document(), None], [framework_document(), {}]))
    assert fold.facts().tasks.keys() == {WEB}
    assert {kind: count for kind, count in fold.rejected.items() if count} == {"task": 2, "agent": 1, "framework": 1}


def test_a_flaw_of_a_task_is_shown_under_its_key_while_the_task_has_it():
    ports = {"ports": {"ports": [{"number": 99999, "protocol": "tcp"}]}}
    fold = fold_of(SERVING, task_added(RUNNING | {"discovery": ports}))
    assert [problem.reference for problem in fold.problems] == [WEB.key]
    fold.apply(task_added(RUNNING), 1.0)
    assert fold.problems == ()
    assert fold.rejected["field"] == 1


def test_problems_are_bounded_in_number_and_counted():
    ports = {"ports": {"ports": [{"number": 99999, "protocol": "tcp"}]}}
    tasks = [task_document(f"t{number}") | {"discovery": ports} for number in range(1500)]
    fold = fold_of(subscribed(tasks, [agent_document()], [framework_document()]))
    for number in range(500):
        fold.apply({"type": f"NEW{number}"}, 1.0)
    assert len(fold.problems) == 1000
    assert fold.problem_count == 1500 + 20


def test_a_snapshot_is_taken_in_steps_that_lead_to_the_same():
    tasks = [task_document(f"t{number}") for number in range(500)]
    record = json.dumps(subscribed(tasks, [agent_document()], [framework_document()])).encode()
    whole, stepped = MasterFold(), MasterFold()
    whole.apply(record, 1.0)
    steps = stepped.steps(record, 1.0)
    next(steps)
    assert stepped.phase is Phase.INIT
    assert sum(1 for _ in steps) >= 60
    assert stepped.facts() == whole.facts()


# agents that are polled


def polled(tasks=(RUNNING,), frameworks=None, **agent):
    fold = AgentFold()
    assert fold.take(*answers(tasks, frameworks, **agent), 0.0)
    return fold


def answers(tasks=(RUNNING,), frameworks=None, **agent):
    told = [framework_document()] if frameworks is None else frameworks
    state = {"get_tasks": {"launched_tasks": list(tasks)}, "get_frameworks": {"frameworks": told}}
    return json.dumps({"get_state": state}).encode(), {"get_agent": agent_document(**agent)}


def test_an_agent_tells_its_own_tasks_only():
    facts = polled().facts()
    assert facts.tasks == fold_of(SERVING).facts().tasks
    assert (facts.agents, facts.frameworks, facts.unsynced) == ({}, {}, ())


def test_a_task_that_the_agent_tells_no_more_is_gone():
    fold = polled([RUNNING, task_document("web.2")])
    fold.facts()
    assert fold.take(*answers(), 1.0)
    assert fold.facts().tasks.keys() == {WEB}
    assert fold.facts().changed == {TaskId("fw", "web.2")}


def test_a_poll_that_tells_nothing_new_gives_the_same_facts():
    fold = polled()
    first = fold.facts()
    assert fold.take(*answers(), 9.0)
    assert fold.facts() is first


def test_an_agent_without_an_id_tells_nothing():
    """No master has accepted it yet."""
    fold = polled()
    first = fold.facts()
    assert not fold.take(answers([])[0], {"get_agent": {"agent_info": {"hostname": "10.0.0.1"}}}, 1.0)
    assert fold.facts() is first
    assert AgentFold().facts().unsynced


def test_an_agent_that_registered_anew_starts_afresh():
    fold = polled()
    other = RUNNING | {"agent_id": {"value": "S7"}}
    assert fold.take(*answers([other], id_="S7", hostname="10.0.0.7"), 1.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.0.7")


def test_a_polled_agents_host_name_is_looked_up():
    fold = polled(hostname="a.example")
    assert fold.facts().unsynced
    assert fold.unresolved() == {"a.example"}
    fold.resolved("a.example", None, 1.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.9.9")
    assert fold.take(*answers(hostname="a.example"), 2.0)
    assert fold.facts().tasks[WEB].agent == ip_address("10.0.9.9")


@pytest.mark.parametrize(
    ("state", "agent"),
    [
        (b"<html>", b"{}"),
        (b"[]", b"{}"),
        (b"{}", {"get_agent": agent_document()}),
        ({"get_state": {}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_tasks": {}}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_frameworks": {}}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_tasks": None, "get_frameworks": {}}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_tasks": {"tasks": None}, "get_frameworks": {}}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_tasks": 7}}, {"get_agent": agent_document()}),
        ({"get_state": {"get_tasks": {"launched_tasks": {}}}}, {"get_agent": agent_document()}),
        ({"get_state": {}}, {"get_agent": {"agent_info": {"id": 7}}}),
    ],
)
def test_an_answer_that_cannot_be_used_changes_nothing(state, agent):
    fold = polled()
    first = fold.facts()
    with pytest.raises(ProtocolError):
        fold.take(state, agent, 1.0)
    assert fold.facts() is first


def test_one_bad_task_of_an_agent_costs_only_itself():
    fold = polled([7, RUNNING], [framework_document(), 7])
    assert fold.facts().tasks.keys() == {WEB}
    assert (fold.rejected["task"], fold.rejected["framework"]) == (1, 1)
