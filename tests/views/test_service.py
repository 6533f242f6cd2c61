"""From sources to keys to read models, however it is cut into slices."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface import implementer

from dcosnet.interfaces import IKeyValue
from dcosnet.io.turns import Turns
from dcosnet.kv.store import Store
from dcosnet.kv.subscription import Subscription
from dcosnet.model.delta import Delta
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.facts import Facts, Leader
from dcosnet.model.member import Member
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.node import Node
from dcosnet.model.stamp import Stamp
from dcosnet.model.task import Port, Task, TaskId
from dcosnet.testing import strategies
from dcosnet.testing.fake_membership import FakeMembership
from dcosnet.views.service import Views
from dcosnet.views.values import decode_task, encode_leader, encode_node, encode_refresh, encode_task
from dcosnet.views.zones import TASKS, ZOOKEEPER

HERE, THERE = ip_address("10.0.0.1"), ip_address("10.0.0.2")
MASTER = Endpoint(HERE, 5050)


class Reactor:
    """Calls what is due a turn at a time; `Clock` would go on until nothing is due."""

    def __init__(self):
        self.due = []

    def seconds(self):
        return 0.0

    def callLater(self, delay, run):
        self.due.append(run)

    def turn(self):
        due, self.due = self.due, []
        for run in due:
            run()


@implementer(IKeyValue)
class MemoryStore:
    """The store without disk; `hear` tells it what another node wrote."""

    def __init__(self, later):
        self.core, self.later, self.readers, self.time = Store("host-a"), later, [], 0
        self.room = 1000

    def _stamp(self, owner):
        self.time += 1
        return Stamp(self.time, 0, owner)

    def _tell(self, changed):
        for reader in self.readers:
            reader.note(changed, self.core.live)

    def write(self, changes, lifetime):
        keys = self.core.own.entries.keys() | {key for key, value in changes.items() if value is not None}
        if len(keys - {key for key, value in changes.items() if value is None}) > max(
            self.room, len(self.core.own.entries)
        ):
            raise ValueError("no room")
        step = self.core.write(changes, lifetime, self._stamp("host-a"))
        if step is not None:
            self._tell(step.changed)

    def hear(self, owner, values):
        stamp = self._stamp(owner)
        entries = {key: Entry(key, owner, value, Lifetime.LEASE, 1, stamp, stamp) for key, value in values.items()}
        news = self.core.take(Delta(owner, self.time, 0, 1, entries, settled=True), horizon=self.time)
        self._tell(news.changed)

    def settle(self):
        self.core.settle()

    def get(self, key):
        return self.core.live.get(key)

    def owners(self, key):
        return self.core.owners(key)

    def subscribe(self, prefix, receive):
        self.readers.append(Subscription(prefix, receive, self.core.live, self.later))
        return self.readers[-1].end


class Source:
    def __init__(self, name):
        self.name = name

    def watch(self, sink):
        self.tell = sink


class Fold:
    """Remembers whether it was given each key that changed."""

    name = "fold"

    def __init__(self):
        self.tasks, self.largest = {}, 0

    def update(self, snapshot, changed):
        self.largest = max(self.largest, len(changed))
        for key in changed:
            if key.startswith("task/"):
                self.tasks.pop(key, None)
                if key in snapshot.tasks:
                    self.tasks[key] = snapshot.tasks[key].value


class Rig:
    def __init__(self, *names, slice_size=2, unsynced=None):
        self.reactor, self.wall = Reactor(), 1000.0
        later = Turns(self.reactor).later
        self.store, self.fold = MemoryStore(later), Fold()
        self.membership = FakeMembership([Member("host-a", (HERE,))], later, unsynced)
        self.sources = {name: Source(name) for name in names}
        self.views = Views(
            Node("host-a", HERE),
            self.store,
            self.membership,
            self.sources.values(),
            [self.fold],
            later,
            lambda: self.wall,
            slice_size,
        )
        self.views.startService()

    def turn(self):
        self.reactor.turn()

    def settle(self):
        for _ in range(1000):
            if not self.reactor.due:
                return
            self.turn()
        pytest.fail("it never comes to rest")

    def zone(self, apex):
        return next(each for each in self.views.zones if each.apex == apex).zone.value

    def shown(self):
        """All that is served, without the times at which it was written."""
        return {
            "tasks": {key: owned.value for key, owned in self.views.snapshot.value.tasks.items()},
            "frameworks": {key: owned.value for key, owned in self.views.snapshot.value.frameworks.items()},
            "agents": {key: owned.value for key, owned in self.views.snapshot.value.agents.items()},
            "zones": {
                each.apex: (dict(each.zone.value.records), each.zone.value.unsynced) for each in self.views.zones
            },
            "vips": {key: vip.backends for key, vip in self.views.vips.value.items()},
            "unsynced": self.views.unsynced.value,
            "folded": self.fold.tasks,
        }


def task(id_, **more):
    ports = (Port(Protocol.TCP, 80, vips=("/web:80",)),)
    return Task(
        TaskId("f", id_),
        **{"name": id_, "framework": "shop", "agent": HERE, "addresses": (THERE,), "ports": ports, **more},
    )


def of(*tasks, **more):
    return Facts({each.id: each for each in tasks}, **more)


MANY = tuple(task(f"t{n}") for n in range(9))


def test_a_task_is_served_two_turns_after_it_was_told():
    """One to write it, one to hear of it; the readers of the cells are told on the third."""
    rig = Rig("mesos")
    rig.settle()
    rig.sources["mesos"].tell(of(task("web")))
    rig.turn()
    rig.turn()
    assert f"web.shop.agentip.{TASKS}" in rig.zone(TASKS).records


def test_no_slice_is_larger_than_it_may_be():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(*MANY))
    rig.settle()
    assert len(rig.views.snapshot.value.tasks) == len(MANY)
    assert rig.fold.largest == 2
    rig.store.hear("host-b", {each.id.key: encode_task(each, {}) for each in map(task, "abcdefghi")})
    rig.settle()
    assert len(rig.views.snapshot.value.tasks) == 2 * len(MANY)
    assert rig.fold.largest == 2


def test_names_are_denied_only_when_all_that_was_told_is_served():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(*MANY))
    served = []
    while rig.reactor.due:
        rig.turn()
        names = sum(name.count(".agentip.") for name in rig.zone(TASKS).records)
        served.append(names)
        for apex in (TASKS, ZOOKEEPER):
            assert rig.zone(apex).unsynced is not None or names == len(MANY)
    assert rig.views.unsynced.value is None
    assert len(set(served)) > 3, served


@pytest.mark.parametrize("sources", [(), ("files",), ("files", "mesos")])
def test_the_store_is_settled_once_all_sources_have_told(sources):
    """What this node said before its restart is void then; with no source that is at once."""
    rig = Rig(*sources)
    rig.settle()
    assert rig.store.core.own.settled is (not sources)
    for source in sources:
        assert not rig.store.core.own.settled
        rig.sources[source].tell(of(*MANY[:2]))
        rig.turn()
        assert not rig.store.core.own.settled
        rig.settle()
    assert rig.store.core.own.settled
    assert len(rig.store.core.own.entries) == 1 + (2 if sources else 0)


@pytest.mark.parametrize("backlog", range(1, 7))
@pytest.mark.parametrize("own", range(1, 10))
@pytest.mark.parametrize("first", ["hear", "tell"])
def test_names_are_not_denied_while_another_nodes_keys_are_folded(backlog, own, first):
    """Whichever of both ends first: a resolver would keep the denial of a name that comes with the next turn."""
    rig = Rig("mesos")
    rig.settle()
    others = {each.id.key: encode_task(each, {}) for each in (task(f"b{n}") for n in range(backlog))}
    steps = [lambda: rig.store.hear("host-b", others), lambda: rig.sources["mesos"].tell(of(*MANY[:own]))]
    for step in steps if first == "hear" else reversed(steps):
        step()
    for _ in range(1000):
        if rig.views.unsynced.value is None:
            assert {each.id.key for each in MANY[:own]} <= rig.views.snapshot.value.tasks.keys()
        if not rig.reactor.due:
            break
        rig.turn()
    assert rig.views.unsynced.value is None


@pytest.mark.parametrize("turns", range(8))
def test_stopping_in_the_midst_does_not_say_that_all_is_known(turns):
    """What was not folded is not absent; who asks in the last moment must not be told so."""
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(*MANY))
    for _ in range(turns):
        rig.turn()
    rig.views.stopService()
    rig.settle()
    assert rig.views.unsynced.value is not None or len(rig.views.snapshot.value.tasks) == len(MANY)


def test_that_something_is_missing_is_told_before_anything_is_gone():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(*MANY))
    rig.settle()
    rig.sources["mesos"].tell(of(unsynced=("the leading master is gone",)))
    assert rig.zone(TASKS).unsynced == "source mesos: the leading master is gone"
    assert len(rig.views.snapshot.value.tasks) == len(MANY)
    rig.settle()
    assert not rig.views.snapshot.value.tasks


def test_what_is_told_first_does_not_overtake_what_is_told_last():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(*MANY))
    rig.turn()
    last = attrs.evolve(MANY[-1], weight=5)
    rig.sources["mesos"].tell(of(last, changed=frozenset(each.id for each in MANY)))
    rig.settle()
    assert [each.value for each in rig.views.snapshot.value.tasks.values()] == [last]


NAMES = tuple(f"app{n}" for n in range(8))


def one_each(age, **more):
    return [task(f"{age}-{name}", name=name, **more) for name in NAMES]


def always_named(rig):
    """Go on until all is done; each name has an address after each turn."""
    while rig.reactor.due:
        rig.turn()
        assert {f"{name}.shop.agentip.{TASKS}" for name in NAMES} <= rig.zone(TASKS).records.keys()


@pytest.mark.parametrize("hinted", [True, False])
def test_a_name_whose_task_moves_is_never_without_an_address(hinted):
    rig = Rig("mesos", slice_size=1)
    old, new = one_each("old"), one_each("new", agent=THERE)
    rig.sources["mesos"].tell(of(*old))
    rig.settle()
    changed = frozenset(each.id for each in old + new) if hinted else None
    rig.sources["mesos"].tell(of(*new, changed=changed))
    always_named(rig)


def test_a_name_that_moves_between_the_tasks_of_another_node_keeps_an_address():
    rig = Rig(slice_size=1)
    rig.store.hear("host-b", {each.id.key: encode_task(each, {}) for each in one_each("old")})
    rig.settle()
    rig.store.hear("host-b", {each.id.key: encode_task(each, {}) for each in one_each("new")})
    always_named(rig)


def metric(rig, name):
    (family,) = [each for each in rig.views.collect() if each.name == f"dcosnet_views_{name}"]
    return family.samples[0].value


def test_what_the_store_has_no_room_for_is_written_once_there_is():
    """A task that does not change for weeks must not wait so long for its name."""
    rig = Rig("mesos")
    rig.store.room = 6  # the node itself, and five
    rig.sources["mesos"].tell(of(*MANY))
    rig.settle()
    assert len(rig.views.snapshot.value.tasks) == 5
    assert (metric(rig, "refused_writes_total"), metric(rig, "refused_keys")) == (4, 4)
    left = [each for each in MANY if each.id.key not in rig.views.snapshot.value.tasks]
    gone = [each for each in MANY if each not in left][:3]
    last = attrs.evolve(left[0], weight=5)
    stay = [each for each in MANY if each not in (*gone, left[0])]
    rig.sources["mesos"].tell(of(last, *stay, changed=frozenset(each.id for each in (*gone, last))))
    rig.settle()
    assert len(rig.views.snapshot.value.tasks) == 5
    assert metric(rig, "refused_keys") == 1
    rig.sources["mesos"].tell(of(last, *left[1:]))
    rig.settle()
    assert {each.value.id: each.value for each in rig.views.snapshot.value.tasks.values()} == {
        each.id: each for each in (last, *left[1:])
    }
    assert metric(rig, "refused_keys") == 0


def test_what_is_gone_while_it_waits_for_room_is_not_written():
    rig = Rig("mesos")
    rig.store.room = 6
    rig.sources["mesos"].tell(of(*MANY))
    rig.settle()
    rig.sources["mesos"].tell(of())
    rig.settle()
    assert not rig.views.snapshot.value.tasks
    assert metric(rig, "refused_keys") == 0


weights = st.dictionaries(st.integers(0, 4), st.integers(0, 3))
"""Of some tasks, by number."""

histories = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), weights),
        st.tuples(st.just("hear"), weights),
        st.tuples(st.just("room"), st.integers(1, 6)),
        st.tuples(st.just("turn"), st.integers(1, 4)),
    ),
    max_size=20,
)


@given(histories, st.integers(1, 3))
def test_what_is_served_of_a_task_is_what_the_store_holds(history, slice_size):
    """This node does not decode what it encoded itself: what waited for room meanwhile must not be taken for it."""
    rig = Rig("mesos", slice_size=slice_size)
    for what, value in history:
        if what == "turn":
            for _ in range(value):
                rig.turn()
        elif what == "room":
            rig.store.room = value
        else:
            tasks = [task(f"t{number}", weight=weight) for number, weight in value.items()]
            if what == "tell":
                rig.sources["mesos"].tell(of(*tasks))
            else:
                rig.store.hear("host-b", {each.id.key: encode_task(each, {}) for each in tasks})
    rig.settle()
    held = {key: entry.value for key, entry in rig.store.core.live.items() if key.startswith("task/")}
    assert rig.shown()["tasks"] == {key: decode_task(value)[0] for key, value in held.items()}


def test_two_nodes_that_tell_of_one_task_make_one_backend():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(task("web")))
    rig.settle()
    rig.store.hear("host-b", {task("web").id.key: encode_task(task("web", weight=2), {})})
    rig.settle()
    (vip,) = rig.views.vips.value.values()
    assert [(str(each.endpoint), each.weight) for each in vip.backends] == [("10.0.0.2:80", 2)]


def test_an_agents_node_takes_its_tasks_over_from_the_leading_masters():
    rig = Rig("mesos")
    far = task("far", agent=THERE)
    rig.sources["mesos"].tell(of(far, leader=Leader(MASTER, ())))
    rig.settle()
    assert far.id.key in rig.store.core.own.entries
    rig.membership.put(Member("host-b", (THERE,)))
    rig.settle()
    assert far.id.key in rig.store.core.own.entries, "nobody else tells of it yet"
    rig.store.hear("host-b", {far.id.key: encode_task(far, {})})
    rig.settle()
    assert far.id.key not in rig.store.core.own.entries
    assert far.id.key in rig.views.snapshot.value.tasks


def test_masters_have_their_names_with_the_first_news_of_the_leader():
    rig = Rig("mesos")
    rig.settle()
    assert set(rig.zone(ZOOKEEPER).records) == {ZOOKEEPER}
    rig.sources["mesos"].tell(Facts(leader=Leader(MASTER, (Endpoint(THERE, 5050), MASTER))))
    rig.settle()
    assert {"leader", "master"} <= {name.partition(".")[0] for name in rig.zone(TASKS).records}
    assert {f"zk-{n}.zk" for n in range(1, 6)} <= set(rig.zone(ZOOKEEPER).records)


def test_the_master_of_the_higher_epoch_leads_and_the_other_node_falls_silent():
    rig = Rig("mesos")
    far = task("far", agent=ip_address("10.0.0.9"))
    rig.sources["mesos"].tell(of(far, leader=Leader(MASTER, (MASTER,), epoch=1)))
    rig.settle()
    other = Leader(Endpoint(THERE, 5050), (), epoch=2)
    rig.store.hear("host-b", {"leader/host-b": encode_leader(other)})
    rig.settle()
    assert [str(each.data) for each in rig.zone(TASKS).records[f"leader.{TASKS}"]] == ["10.0.0.2"]
    assert not rig.views.snapshot.value.tasks
    rig.store.hear("host-b", {})
    rig.settle()
    assert far.id.key in rig.views.snapshot.value.tasks


def test_an_unreadable_leader_costs_only_itself():
    rig = Rig("mesos")
    rig.sources["mesos"].tell(of(task("web")))
    rig.store.hear("host-b", {"leader/host-b": b"nonsense", "agent/S0": b"", "other/key": b"?"})
    rig.settle()
    assert not rig.views.snapshot.value.leaders
    assert len(rig.views.snapshot.value.tasks) == 1


def test_a_name_is_not_denied_before_a_peer_has_told_what_it_knows():
    """A node that has just joined knows its own tasks only; an absent name may be another host's."""
    rig = Rig("files", unsynced="no peer has been heard yet")
    rig.sources["files"].tell(of(task("web")))
    rig.settle()
    assert f"web.shop.agentip.{TASKS}" in rig.zone(TASKS).records
    assert rig.zone(TASKS).unsynced == "no peer has been heard yet"
    assert rig.store.core.own.settled, "it has said all that it knows; whom it has heard is another matter"
    rig.store.hear("host-b", {each.id.key: encode_task(each, {}) for each in MANY})
    rig.membership.unsynced.publish(None)
    while rig.reactor.due:
        rig.turn()
        names = sum(name.count(".agentip.") for name in rig.zone(TASKS).records)
        assert rig.zone(TASKS).unsynced is not None or names == 1 + len(MANY)
    assert rig.views.unsynced.value is None


def test_a_source_of_our_own_is_waited_for_when_the_peers_are_heard():
    rig = Rig("files", unsynced="no peer has been heard yet")
    rig.membership.unsynced.publish(None)
    rig.settle()
    assert rig.views.unsynced.value == "source files has not been read yet"


def present(rig, name="host-a"):
    return rig.views.snapshot.value.nodes[f"node/{name}"].value


def test_a_node_says_anew_what_it_is_when_somebody_asks():
    """With the time and the number of the question, so that the asker sees that this is the answer."""
    rig = Rig()
    rig.settle()
    assert (present(rig).updated, present(rig).refresh) == (1000.0, 0)
    rig.wall = 1060.0
    rig.store.hear("host-b", {"refresh/host-b": encode_refresh(3)})
    rig.settle()
    assert (present(rig).updated, present(rig).refresh) == (1060.0, 3)


def test_a_question_that_was_answered_is_not_answered_again():
    """Nor is one with a number that is not greater: who asked with it has an answer already."""
    rig = Rig()
    rig.store.hear("host-b", {"refresh/host-b": encode_refresh(3)})
    rig.settle()
    rig.wall = 1060.0
    for asker, number in (("host-b", 3), ("host-c", 2), ("host-d", 3)):
        rig.store.hear(asker, {f"refresh/{asker}": encode_refresh(number)})
        rig.settle()
    assert (present(rig).updated, present(rig).refresh) == (1000.0, 3)


def test_many_questions_at_once_are_answered_by_one_write():
    """Bounded work, however many ask."""
    rig = Rig(slice_size=100)
    rig.settle()
    before = rig.store.core.own.version
    for number in range(1, 20):
        rig.store.hear(f"asker-{number}", {f"refresh/asker-{number}": encode_refresh(number)})
    rig.settle()
    assert present(rig).refresh == 19
    assert rig.store.core.own.version == before + 1


def test_a_question_has_a_greater_number_than_any_answer():
    """Also than those of nodes that answered others, whose questions are not heard here any more."""
    rig = Rig()
    other = Node("host-b", THERE, refresh=7)
    rig.store.hear("host-b", {"node/host-b": encode_node(other)})
    rig.settle()
    rig.wall = 1060.0
    assert rig.views.refresh() == 8
    rig.settle()
    assert (present(rig).updated, present(rig).refresh) == (1060.0, 8)
    assert present(rig, "host-b") == other
    assert rig.views.refresh() == 9


@pytest.mark.parametrize("value", [b"", b"nonsense", encode_refresh(2**53 + 1), encode_refresh(-1)])
def test_an_unreadable_question_is_no_question(value):
    rig = Rig()
    rig.store.hear("host-b", {"refresh/host-b": value})
    rig.settle()
    assert present(rig).refresh == 0


turns = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["a", "b"]), strategies.facts),
        st.integers(1, 4),
    ),
    max_size=8,
)


@given(turns, st.integers(1, 5))
def test_however_it_is_sliced_the_same_is_served(told, slice_size):
    """The model takes only the last facts of each source, and takes them whole."""
    rig, whole, last = Rig("a", "b", slice_size=slice_size), Rig("a", "b", slice_size=1000), {}
    for each in told:
        if isinstance(each, int):
            for _ in range(each):
                rig.turn()
        else:
            source, facts = each
            last[source] = facts
            rig.sources[source].tell(facts)
    rig.settle()
    for source, facts in last.items():
        whole.sources[source].tell(facts)
    whole.settle()
    assert rig.shown() == whole.shown()
