"""Own facts become own keys."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.model.facts import Agent, Facts, Framework, Leader
from dcosnet.model.member import Member, MemberState
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.provenance import Provenance
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing import strategies
from dcosnet.views.local import MANY, LocalKeys
from dcosnet.views.values import decode_leader, decode_task, encode_agent, encode_framework, encode_leader, encode_task

HERE, THERE = ip_address("10.0.0.1"), ip_address("10.0.0.2")
WEB = Task(TaskId("f", "web"), "web", "shop", HERE, ports=(Port(Protocol.TCP, 80, vips=("/web:80", "bad")),))
FAR = Task(TaskId("f", "far"), "far", "shop", THERE)
MASTER = Endpoint(HERE, 5050)
LED = Leader(MASTER, (MASTER,), epoch=4)
A, B = Member("host-a", (HERE,)), Member("host-b", (THERE,))


def young(name, framework):
    return None


class Rig:
    """LocalKeys of host-a before a store that keeps what is written."""

    def __init__(self, *sources, members=(A,)):
        self.store, self.owners = {}, {}
        self.keys = LocalKeys("host-a", sources, lambda key: "host-a" if key in self.store else self.owners.get(key))
        self.keys.take_members({one.name: one for one in members})

    def tell(self, source, facts):
        self.keys.take(source, facts)
        return self.flush()

    def members(self, *members):
        self.keys.take_members({one.name: one for one in members})
        return self.flush()

    def told_by(self, task, owner):
        """Another node's word on a task is the last in the store."""
        self.keys._owner_of = lambda key: owner if key == task.id.key else "host-a"
        self.keys.take_owner(task.id, owner)
        return self.flush()

    def step(self, limit=1):
        changes = self.keys.step(limit, young)
        for key, value in changes.items():
            if value is None:
                del self.store[key]
            else:
                self.store[key] = value
        return changes

    def flush(self):
        changes = {}
        while not self.keys.settled:
            changes |= self.step()
        return changes


def of(*tasks, **more):
    return Facts({task.id: task for task in tasks}, **more)


@given(strategies.tasks)
def test_what_this_node_wrote_it_need_not_decode(told):
    """What is handed over is what every other node decodes, and belongs to this very value alone."""
    rig = Rig("files")
    changes = rig.tell("files", of(told))
    value = changes[told.id.key]
    assert rig.keys.written(told.id.key, value) == decode_task(value)
    assert rig.keys.written(told.id.key, value) is None


@pytest.mark.parametrize("later", [None, attrs.evolve(WEB, weight=2)])
def test_what_was_written_since_is_not_taken_for_this(later):
    """Nor what another node writes, though it may be the same."""
    rig = Rig("files")
    value = rig.tell("files", of(WEB))[WEB.id.key]
    rig.tell("files", of(*([later] if later is not None else [])))
    assert rig.keys.written(WEB.id.key, bytes(bytearray(value))) is None
    assert not rig.keys._written, "what nobody asks for would stay"


def test_a_poll_that_tells_nothing_new_writes_nothing():
    rig = Rig("files")
    assert rig.tell("files", of(WEB)) == {WEB.id.key: encode_task(WEB, {})}
    again = attrs.evolve(WEB, provenance=Provenance("", "", 99.0))
    assert rig.tell("files", of(again)) == {}


def test_what_a_source_no_longer_tells_is_deleted():
    rig = Rig("files")
    rig.tell("files", of(WEB))
    assert rig.tell("files", of()) == {WEB.id.key: None}


def test_the_first_source_holds_a_task_that_two_tell_of():
    other = attrs.evolve(WEB, weight=7)
    rig = Rig("first", "second")
    assert rig.tell("second", of(other)) == {WEB.id.key: encode_task(other, {})}
    assert rig.tell("first", of(WEB)) == {WEB.id.key: encode_task(WEB, {})}
    assert rig.tell("first", of()) == {WEB.id.key: encode_task(other, {})}


def test_absence_is_not_told_before_every_source_was_read():
    keys = LocalKeys("host-a", ("files", "mesos"), lambda key: None)
    assert keys.unsynced() == "source files has not been read yet"
    keys.take("files", Facts())
    assert keys.unsynced() == "source mesos has not been read yet"
    keys.take("mesos", Facts(unsynced=("agent 10.0.0.2 was not heard",)))
    assert keys.unsynced() == "source mesos: agent 10.0.0.2 was not heard"
    keys.take("mesos", Facts())
    assert keys.unsynced() is None


def test_a_new_task_inherits_the_age_of_its_vip_name():
    old = Stamp(5, 0, "host-b")
    keys = LocalKeys("host-a", ("files",), lambda key: None)
    keys.take("files", of(WEB))
    changes = keys.step(9, lambda name, framework: old if (name, framework) == ("/web", "shop") else None)
    assert decode_task(changes[WEB.id.key])[1] == {"/web": old}


def test_only_what_a_source_says_that_it_changed_is_looked_at():
    rig = Rig("mesos")
    rig.tell("mesos", of(WEB, FAR))
    heavy = attrs.evolve(FAR, weight=9)
    assert rig.tell("mesos", of(heavy, changed=frozenset({WEB.id}))) == {WEB.id.key: None}
    assert rig.tell("mesos", of(heavy, changed=frozenset({FAR.id}))) == {FAR.id.key: encode_task(heavy, {})}


# --- the leading master's node ------------------------------------------------


def test_changes_of_very_many_tasks_are_all_looked_at():
    """As where a framework is renamed: they are walked through in steps, and those that are gone go, too."""
    rig = Rig("mesos")
    tasks = [attrs.evolve(WEB, id=TaskId("f", str(n))) for n in range(MANY + 2)]
    rig.tell("mesos", of(*tasks))
    renamed = [attrs.evolve(each, framework="other") for each in tasks[1:]]
    rig.tell("mesos", of(*renamed, changed=frozenset(each.id for each in tasks)))
    assert rig.store == {each.id.key: encode_task(each, {}) for each in renamed}


def test_the_node_of_the_leading_master_tells_of_frameworks_agents_and_the_leader():
    shop, agent = Framework("f", "shop"), Agent("a/b", "host", HERE)
    rig = Rig("mesos")
    facts = Facts(frameworks={"f": shop}, agents={"a/b": agent}, leader=LED)
    assert rig.tell("mesos", facts) == {
        "framework/f": encode_framework(shop),
        "agent/a%2Fb": encode_agent(agent),
        "leader/host-a": encode_leader(LED),
    }
    renamed = attrs.evolve(shop, name="store")
    assert rig.tell("mesos", attrs.evolve(facts, frameworks={"f": renamed}, changed=frozenset())) == {
        "framework/f": encode_framework(renamed)
    }
    assert rig.tell("mesos", Facts()) == {"framework/f": None, "agent/a%2Fb": None, "leader/host-a": None}


def test_a_node_that_does_not_lead_tells_of_no_framework_or_agent():
    assert Rig("mesos").tell("mesos", Facts(frameworks={"f": Framework("f", "shop")})) == {}


def test_the_leader_is_told_after_everything_else():
    rig = Rig("mesos")
    rig.keys.take("mesos", of(WEB, FAR, leader=LED))
    order = []
    while not rig.keys.settled:
        order += rig.step()
    assert order == [WEB.id.key, FAR.id.key, "leader/host-a"]


@pytest.mark.parametrize(
    ("state", "owns"),
    [
        (MemberState.ALIVE, False),
        (MemberState.UNREACHABLE, False),
        (MemberState.DEAD, True),
        (MemberState.LEFT, True),
    ],
)
def test_the_leading_node_tells_of_the_tasks_whose_agent_is_no_member(state, owns):
    rig = Rig("mesos", members=(A, attrs.evolve(B, state=state)))
    assert (FAR.id.key in rig.tell("mesos", of(WEB, FAR, leader=LED))) is owns
    assert WEB.id.key in rig.store


def test_a_member_that_dies_leaves_its_tasks_to_the_leading_node():
    rig = Rig("mesos", members=(A, B))
    rig.tell("mesos", of(FAR, leader=LED))
    assert rig.members(A, attrs.evolve(B, state=MemberState.DEAD)) == {FAR.id.key: encode_task(FAR, {})}


def test_a_member_that_joins_takes_its_tasks_over_when_it_tells_of_them():
    """Not before: in between their names would be gone."""
    rig = Rig("mesos")
    rig.tell("mesos", of(FAR, leader=LED))
    assert rig.members(A, B) == {}
    assert rig.told_by(FAR, "host-b") == {FAR.id.key: None}


def test_the_node_of_an_agent_keeps_its_tasks_whoever_else_tells_of_them():
    rig = Rig("mesos")
    rig.tell("mesos", of(WEB))
    assert rig.told_by(WEB, "host-b") == {}


def test_a_leader_of_a_higher_epoch_elsewhere_ends_this_ones_word():
    rig = Rig("mesos")
    rig.tell("mesos", of(WEB, FAR, leader=LED, frameworks={"f": Framework("f", "shop")}))
    rig.keys.take_rival(LED.epoch)
    assert rig.flush() == {}
    rig.keys.take_rival(LED.epoch + 1)
    assert rig.flush() == {FAR.id.key: None, "framework/f": None}
    assert decode_leader(rig.store["leader/host-a"]) == LED
    rig.keys.take_rival(None)
    assert set(rig.flush()) == {FAR.id.key, "framework/f"}


# --- laws ---------------------------------------------------------------------


@attrs.frozen
class Told:
    """What a model of LocalKeys needs to know."""

    facts: dict
    members: dict
    rival: int | None

    def desired(self):
        """The keys, by the rules and without any memory."""
        homes = {}
        for member in sorted(self.members.values(), key=lambda one: (one.name != "host-a", one.name)):
            if member.state in (MemberState.ALIVE, MemberState.UNREACHABLE):
                for address in member.addresses:
                    homes.setdefault(address, member.name)
        out, leader = {}, None
        for name in ("b", "a"):
            facts = self.facts.get(name, Facts())
            leads = facts.leader is not None and (self.rival is None or facts.leader.epoch >= self.rival)
            for task in facts.tasks.values():
                home = homes.get(task.agent)
                if facts.leader is None or home == "host-a" or (home is None and leads):
                    out[task.id] = task
            if leads:
                out |= {("framework", id_): one for id_, one in facts.frameworks.items()}
                out |= {("agent", id_): one for id_, one in facts.agents.items()}
            leader = facts.leader or leader
        return out if leader is None else out | {"leader": leader}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.sampled_from(["a", "b"]), strategies.facts),
        st.tuples(st.just("members"), st.lists(strategies.members, max_size=3)),
        st.tuples(st.just("rival"), st.none() | st.integers(0, 4)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    ),
    max_size=10,
)


@given(steps, st.data())
def test_however_it_is_sliced_the_keys_are_what_the_sources_say(steps, data):
    """Other nodes tell of everything that they might, so nothing is kept for them."""
    store, told = {}, Told({}, {}, None)
    keys = LocalKeys("host-a", ("a", "b"), lambda key: "host-b")

    def write(limit):
        for key, value in keys.step(limit, young).items():
            if value is None:
                del store[key]
            else:
                store[key] = value

    for step in steps:
        match step:
            case "take", source, facts:
                before = told.facts.get(source)
                if before is not None and data.draw(st.booleans()):
                    ids = facts.tasks.keys() | before.tasks.keys()
                    changed = frozenset(id_ for id_ in ids if facts.tasks.get(id_) != before.tasks.get(id_))
                    facts = attrs.evolve(facts, changed=changed)
                told = attrs.evolve(told, facts={**told.facts, source: facts})
                keys.take(source, facts)
            case "members", members:
                told = attrs.evolve(told, members={one.name: one for one in members})
                keys.take_members(told.members)
            case "rival", epoch:
                told = attrs.evolve(told, rival=epoch)
                keys.take_rival(epoch)
            case "step", limit:
                write(limit)
    while not keys.settled:
        write(3)
    desired = told.desired()
    few = {TaskId: lambda id_: id_.key, tuple: lambda id_: None, str: lambda _: "leader/host-a"}
    named = {few[type(id_)](id_): value for id_, value in desired.items() if not isinstance(id_, tuple)}
    assert {key: decode_task(value)[0] for key, value in store.items() if key.startswith("task/")} == {
        key: value for key, value in named.items() if key.startswith("task/")
    }
    assert sum(key.startswith(("framework/", "agent/")) for key in store) == sum(type(id_) is tuple for id_ in desired)
    leader = store.get("leader/host-a")
    assert (None if leader is None else decode_leader(leader)) == named.get("leader/host-a")
