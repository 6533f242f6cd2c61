"""An agent's and a master's word on one node."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.facts import Facts
from dcosnet.model.net import parse_address
from dcosnet.model.task import Task, TaskId
from dcosnet.sources.mesos.merge import MANY, Merge

HERE, THERE = parse_address("10.0.0.1"), parse_address("10.0.0.2")
IDS = [TaskId("f", str(n)) for n in range(4)]


def task(id_, name, agent):
    return Task(id_, name, "marathon", agent)


def facts(tasks, before=None):
    """Facts whose `changed` is told against those before."""
    if before is None:
        return Facts(tasks)
    ids = tasks.keys() | before.tasks.keys()
    return Facts(tasks, changed=frozenset(each for each in ids if tasks.get(each) != before.tasks.get(each)))


def whole(master, agent):
    """What is meant, said at length."""
    if master is None or agent is None:
        return dict((master or agent or Facts()).tasks)
    return {id_: each for id_, each in master.tasks.items() if each.agent != HERE} | dict(agent.tasks)


masters = st.dictionaries(st.sampled_from(IDS), st.tuples(st.sampled_from("ab"), st.sampled_from([HERE, THERE])))
agents = st.dictionaries(st.sampled_from(IDS), st.sampled_from("xy"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("master"), st.one_of(st.none(), masters)),
        st.tuples(st.just("agent"), st.one_of(st.none(), agents)),
    ),
    max_size=8,
)


@given(steps=steps)
def test_step_by_step_is_the_same_as_at_once(steps):
    """And `changed` names all that differs from the telling before."""
    merge, master, agent, before = Merge(), None, None, {}
    for who, content in steps:
        if who == "master":
            new = None if content is None else {id_: task(id_, *each) for id_, each in content.items()}
            master = None if new is None else facts(new, master)
        else:
            new = None if content is None else {id_: task(id_, name, HERE) for id_, name in content.items()}
            agent = None if new is None else facts(new, agent)
        merged = merge.merge(master, agent, HERE)
        assert dict(merged.tasks) == whole(master, agent)
        if merged.changed is not None:
            differing = {id_ for id_ in IDS if before.get(id_) != merged.tasks.get(id_)}
            assert differing <= merged.changed
        before = dict(merged.tasks)


def test_a_master_that_shows_already_what_it_tells_next_does_no_harm():
    """Its tasks are a live view, and the agent is heard in between."""
    merge, live = Merge(), {IDS[0]: task(IDS[0], "a", HERE), IDS[1]: task(IDS[1], "b", THERE)}
    master, agent = Facts(live), Facts({IDS[2]: task(IDS[2], "x", HERE)})
    merge.merge(master, agent, HERE)
    del live[IDS[0]]
    live[IDS[3]] = task(IDS[3], "c", THERE)
    changed = attrs.evolve(agent, changed=frozenset({IDS[2]}))
    assert merge.merge(master, changed, HERE).tasks.keys() == {IDS[1], IDS[2], IDS[3]}
    told = attrs.evolve(master, changed=frozenset({IDS[0], IDS[3]}))
    merged = merge.merge(told, changed, HERE)
    assert merged.tasks.keys() == {IDS[1], IDS[2], IDS[3]}
    assert merged.changed == {IDS[0], IDS[3]}


def test_one_changed_task_is_named_alone():
    """So that it costs one."""
    merge = Merge()
    master = Facts({IDS[0]: task(IDS[0], "a", THERE), IDS[1]: task(IDS[1], "b", THERE)})
    agent = Facts({IDS[2]: task(IDS[2], "x", HERE)})
    merge.merge(master, agent, HERE)
    changed = attrs.evolve(agent, tasks={IDS[2]: task(IDS[2], "y", HERE)}, changed=frozenset({IDS[2]}))
    assert merge.merge(master, changed, HERE).changed == {IDS[2]}


def test_changes_of_very_many_tasks_are_all_counted():
    """As where a framework is renamed; some moved from and to this node, too."""
    ids = [TaskId("f", str(n)) for n in range(MANY + 3)]
    merge, agent = Merge(), Facts()
    before = Facts({id_: task(id_, "a", HERE if n == 0 else THERE) for n, id_ in enumerate(ids)})
    assert set(merge.merge(before, agent, HERE).tasks) == set(ids[1:])
    after = {id_: task(id_, "b", HERE if n == 1 else THERE) for n, id_ in enumerate(ids)}
    merged = merge.merge(Facts(after, changed=frozenset(ids)), agent, HERE)
    assert dict(merged.tasks) == {id_: each for id_, each in after.items() if id_ != ids[1]}


def test_a_task_that_the_agent_ended_is_gone_though_the_master_is_silent():
    """The master's last word is older."""
    master = Facts({IDS[0]: task(IDS[0], "a", HERE), IDS[1]: task(IDS[1], "b", THERE)})
    assert set(Merge().merge(master, Facts(), HERE).tasks) == {IDS[1]}
