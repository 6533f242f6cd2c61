"""
Several stores that tell each other: deltas late, twice, never, and of owners that restart or die.

The model is the history of each owner: what it said at each version. All else
that a store says of an owner follows from how much it knows of it.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dcosnet.kv.store import Store
from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

WHOLE = 1 << 40
"""A limit that cuts nothing."""

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
NODES = ("a", "b", "c")
FAR = 1 << 60

nodes = st.sampled_from(NODES)
owners = st.sampled_from("aab")
keys = st.sampled_from(["k1", "k2", "k3"])
values = st.none() | st.sampled_from([b"", b"1", b"2"])


def durable(entries):
    return {key: entry for key, entry in entries.items() if entry.lifetime is DURABLE}


class Replicas(RuleBasedStateMachine):
    """Three nodes; nothing is sent but by a rule."""

    tombstones = 1
    """Remembered at least; few, so that they are forgotten."""

    @initialize()
    def begin(self):
        self.ticks = 0
        self.stores, self.reached, self.history = {}, {}, {name: {} for name in NODES}
        self.air = []
        for name in NODES:
            self.start(name, 1, 0, {})

    def start(self, name, generation, version, entries):
        self.stores[name] = Store(name, tombstones=self.tombstones)
        self.stores[name].begin(generation, version, entries)
        self.reached[name] = {}
        self.note(name)

    def note(self, name):
        own = self.stores[name].own
        self.history[name][own.generation, own.version] = dict(own.entries)

    def stamp(self, name):
        self.ticks += 1
        return Stamp(self.ticks, 0, name)

    @rule(name=owners, changes=st.dictionaries(keys, values, min_size=1), lifetime=st.sampled_from(Lifetime))
    def write(self, name, changes, lifetime):
        self.stores[name].write(changes, lifetime, self.stamp(name))
        self.note(name)

    @rule(name=nodes)
    def settle(self, name):
        self.stores[name].settle()
        self.note(name)

    @rule(name=nodes)
    def restart(self, name):
        """Its own durable keys are on its disk, and those of others as they were known."""
        old = self.stores[name]
        self.start(name, old.own.generation + 1, old.own.version, old.own.durable())
        for owner, one in old._namespaces.items():
            if owner != name and one.generation:
                self.stores[name].take(
                    Delta(owner, one.generation, 0, one.version, one.durable(), one.settled, bare=True), FAR
                )

    @rule(source=nodes, to=nodes, aged=st.booleans(), arrives=st.booleans())
    def tell(self, source, to, aged, arrives):
        """All that the source knows better; what it believes the other to know may be nothing."""
        for owner in self.stores[source].known:
            known = NOTHING if aged else self.stores[to].known.get(owner, NOTHING)
            delta = self.stores[source].missing(owner, known, WHOLE)
            if delta is not None:
                self.air.append(delta)
                if arrives:
                    self.stores[to].take(delta, FAR)

    @precondition(lambda self: self.air)
    @rule(data=st.data(), to=nodes)
    def hear(self, data, to):
        """Any delta that was ever under way, again or for the first time."""
        self.stores[to].take(data.draw(st.sampled_from(self.air)), FAR)

    @rule(name=nodes, owner=owners, dead=st.booleans())
    def judge(self, name, owner, dead):
        self.stores[name].judge(owner, dead)

    @rule(name=nodes, owner=nodes)
    def expire(self, name, owner):
        self.stores[name].expire(owner)

    @rule(gone=st.none() | nodes)
    def come_to_rest(self, gone):
        """Once all agree who is there, and all that they know has gone round, they know and say the same."""
        living = [name for name in NODES if name != gone]
        for name in living:
            self.settle(name)
            for owner in NODES:
                self.stores[name].judge(owner, owner == gone)
        for _ in range(4):
            for target in living:
                for source in living:
                    for owner, known in self.stores[source].known.items():
                        if known != (mine := self.stores[target].known.get(owner, NOTHING)):
                            delta = self.stores[source].missing(owner, mine, WHOLE)
                            if delta is not None:
                                self.stores[target].take(delta, FAR)
        first, *others = (self.stores[name] for name in living)
        for other in others:
            assert other.known == first.known
            for owner in living:
                assert other._namespaces[owner].entries == first._namespaces[owner].entries
                assert not other._namespaces[owner].former
            # What is shown of one that went before it had told all depends on who was there.
            if gone is None:
                assert other.live == first.live

    @invariant()
    def what_is_said_is_what_the_owner_said(self):
        """At that version: nothing else, nothing of before that it deleted, and leases but where they are missing."""
        for name, store in getattr(self, "stores", {}).items():
            for owner, one in store._namespaces.items():
                said = self.history[owner].get((one.generation, one.version), {})
                assert durable(one.entries) == durable(said)
                assert not one.dead or one.bare or not one.generation
                assert not one.dead or one.entries == durable(one.entries)
                if one.bare:
                    assert one.entries.items() <= said.items()
                else:
                    assert one.entries == said
                assert not one.former.keys() & one.entries.keys()
                assert not one.settled or not one.former
                assert one.size == sum(len(key) + len(entry.value) for key, entry in one.entries.items())
                versions = [entry.version for entry in one.entries.values()]
                assert versions == sorted(versions)
                assert len(one.tombstones) <= max(self.tombstones, len(one.entries))
                reached = (one.generation, one.version)
                assert reached >= self.reached[name].get(owner, (0, 0))
                self.reached[name][owner] = reached
                assert store.known.get(owner, NOTHING) == (one.known if one.generation else NOTHING)

    @invariant()
    def deltas_lead_where_they_say(self):
        """From any version that was ever known of the owner, a delta leads to what is known here."""
        for owner in NODES if hasattr(self, "stores") else ():
            for generation, version in [*self.history[owner]][-6:]:
                one = self.stores["a"]._namespaces.get(owner)
                delta = None if one is None else one.missing(Known(generation, version), WHOLE)
                if delta is None:
                    continue
                entries = {} if delta.since == 0 else dict(self.history[owner][generation, version])
                for key, entry in delta.changes.items():
                    entries.pop(key, None)
                    if entry is not None:
                        entries[key] = entry
                assert durable(entries) == durable(one.entries)
                assert delta.bare or entries == one.entries


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def entry(key, version, value=b"1", lifetime=LEASE):
    return Entry(key, "b", value, lifetime, version, Stamp(version, 0, "b"), Stamp(version, 0, "b"))


def pair():
    """A store "a", and one of "b" that has begun."""
    one, other = Store("a"), Store("b")
    other.begin(1, 0, {})
    return one, other


def tell(source, target, owner="b"):
    delta = source.missing(owner, target.known.get(owner, NOTHING), WHOLE)
    return delta is not None and target.take(delta, FAR) is not None


def say(store, changes, lifetime=LEASE, at=1):
    store.write(changes, lifetime, Stamp(at, 0, store.own.owner))


def renew(store):
    """The same node after a restart."""
    fresh = Store(store.own.owner)
    fresh.begin(store.own.generation + 1, store.own.version, store.own.durable())
    return fresh


def test_a_delta_costs_as_much_as_it_yields():
    """What changed last is what it looks at, in a namespace of any size."""
    _, other = pair()
    for index in range(2000):
        say(other, {f"k{index}": b"1"})
    say(other, {"k7": b"2"})
    say(other, {"k8": None})
    looked = []

    class Counted(dict):
        def values(self):
            return Looked(super().values())

    class Looked:
        def __init__(self, values):
            self._values = values

        def __reversed__(self):
            for one in reversed(self._values):
                looked.append(one.key)
                yield one

    other.own.entries = Counted(other.own.entries)
    delta = other.missing("b", Known(1, 2000), WHOLE)
    assert set(delta.changes) == {"k7", "k8"}
    assert looked == ["k7", "k1999"]


def test_who_missed_more_deletions_than_are_remembered_is_told_all():
    """Tombstones have a bound; a peer below the floor gets the namespace as a whole."""
    one, other = pair()
    for index in range(1500):
        say(other, {f"k{index}": b"1"})
    assert tell(other, one)
    for index in range(1400):
        say(other, {f"k{index}": None})
    assert len(other.own.tombstones) == 1024
    assert other.missing("b", Known(1, other.own.floor), WHOLE).since == other.own.floor
    assert other.missing("b", Known(1, other.own.floor - 1), WHOLE).since == 0
    assert other.missing("b", one.known["b"], WHOLE).since == 0
    assert tell(other, one)
    assert set(one.live) == {f"k{index}" for index in range(1400, 1500)}


def test_leases_stay_over_a_restart_until_their_owner_has_told_all():
    """A quick restart makes no hole; what it does not tell again is gone once it has told all."""
    one, other = pair()
    say(other, {"stays": b"1", "goes": b"1", "deleted": b"1"})
    tell(other, one)
    other = renew(other)
    say(other, {"deleted": b"2"}, at=2)
    say(other, {"deleted": None}, at=3)
    tell(other, one)
    assert set(one.live) == {"stays", "goes"}
    say(other, {"stays": b"2"}, at=4)
    tell(other, one)
    assert {key: found.value for key, found in one.live.items()} == {"stays": b"2", "goes": b"1"}
    other.settle()
    tell(other, one)
    assert set(one.live) == {"stays"}


def test_former_leases_end_and_former_durable_entries_do_not():
    """An owner that never tells all is believed for ten seconds; what it wrote durably, until it says otherwise."""
    one, other = pair()
    say(other, {"lease": b"1"})
    say(other, {"durable": b"1"}, DURABLE)
    tell(other, one)
    lost = Store("b")
    lost.begin(2, 0, {})
    tell(lost, one)
    assert set(one.live) == {"lease", "durable"}
    assert one.passing("b")
    assert one.expire("b") == {"lease"}
    assert set(one.live) == {"durable"}
    assert not one.passing("b")
    lost.settle()
    tell(lost, one)
    assert one.live == {}


def test_a_dead_owner_takes_its_former_leases_along():
    """They are leases as well."""
    one, other = pair()
    say(other, {"k": b"1"})
    tell(other, one)
    tell(renew(other), one)
    assert set(one.live) == {"k"}
    assert one.judge("b", True) == {"k"}
    assert not one.passing("b")


def test_what_is_heard_of_a_dead_owner_has_no_leases():
    """Also where it is heard for the first time, and from who does not know of the death."""
    one, other = pair()
    one.judge("b", True)
    say(other, {"lease": b"1"})
    say(other, {"durable": b"1"}, DURABLE)
    assert tell(other, one)
    assert set(one.live) == {"durable"}
    assert one.known["b"] == (1, 2)
    assert not tell(other, one)
    one.judge("b", False)
    assert one.known["b"] == (1, 0)
    assert tell(other, one)
    assert set(one.live) == {"lease", "durable"}


def test_a_bare_delta_makes_no_hole_where_leases_are_known():
    """Who has not heard of a death, or knows better, keeps what he knows."""
    one, other = pair()
    third = Store("c")
    say(other, {"lease": b"1"})
    tell(other, one)
    say(other, {"durable": b"1"}, DURABLE)
    third.judge("b", True)
    tell(other, third)
    bare = third.missing("b", one.known["b"], WHOLE)
    assert bare.bare
    assert one.take(bare, FAR) is None
    assert set(one.live) == {"lease"}
    one.judge("b", True)
    assert one.take(bare, FAR) is not None
    assert set(one.live) == {"durable"}


def test_a_key_that_was_durable_and_died_as_a_lease_is_gone_everywhere():
    """Whoever missed that it became a lease does not keep it as a durable one."""
    one, other = pair()
    third = Store("c")
    say(other, {"k": b"1"}, DURABLE)
    tell(other, one)
    tell(other, third)
    say(other, {"k": b"2"}, LEASE, at=2)
    tell(other, third)
    one.judge("b", True)
    third.judge("b", True)
    assert tell(third, one)
    assert one.live == third.live == {}


def test_a_bare_namespace_passes_on_that_a_durable_key_became_a_lease():
    """It may not tell the lease, and must not leave the durable entry in place."""
    one, other = pair()
    third = Store("c")
    say(other, {"k": b"1"}, DURABLE)
    for store in (one, third):
        tell(other, store)
        store.judge("b", True)
        store.judge("b", False)
    say(other, {"k": b"2"}, LEASE, at=2)
    assert third.take(other.missing("b", Known(1, 1), WHOLE), FAR) is not None
    passed = third.missing("b", Known(1, 1), WHOLE)
    assert passed.changes == {"k": None}
    assert one.take(passed, FAR) is not None
    assert one.live == {}


def test_a_bare_namespace_of_the_living_goes_on_and_stays_bare():
    """News that join on are shown at once; what was missed comes with the whole."""
    one, other = pair()
    say(other, {"old": b"1"})
    tell(other, one)
    one.judge("b", True)
    one.judge("b", False)
    say(other, {"new": b"1"}, at=2)
    assert one.take(other.missing("b", Known(1, 1), WHOLE), FAR) is not None
    assert set(one.live) == {"new"}
    assert one.known["b"] == (1, 0)
    assert one.missing("b", NOTHING, WHOLE).changes == {}
    assert tell(other, one)
    assert set(one.live) == {"new", "old"}


def test_what_is_forgotten_has_no_durable_entries():
    """And is not known any more."""
    heard = []
    one, other = Store("a", heard.append), pair()[1]
    say(other, {"k": b"1"}, DURABLE)
    say(other, {"lease": b"1"})
    tell(other, one)
    assert not one.forget("b")
    say(other, {"k": None})
    tell(other, one)
    heard.clear()
    assert one.forget("b")
    assert (one.live, dict(one.known), heard) == ({}, {}, ["b"])
    assert one.forget("b")
    assert not one.forget("a")


def test_followers_hear_of_each_version_once():
    """At once, and of nothing that does not change what is known."""
    heard = []
    one, other = Store("a", heard.append), pair()[1]
    one.begin(1, 0, {})
    say(one, {"k": b"1"})
    say(one, {"k": b"1"})
    assert heard == ["a", "a"]
    say(other, {"k": b"1"})
    tell(other, one)
    tell(other, one)
    assert heard == ["a", "a", "b"]
    one.judge("b", True)
    one.judge("b", False)
    one.judge("a", True)
    assert heard == ["a", "a", "b", "b"]


def test_a_start_in_many_generations_piles_up_nothing():
    """What was never named again does not grow beyond the limits of a namespace."""
    one = Store("a")
    for generation in range(1, 5):
        entries = {f"{generation}/{index}": entry(f"{generation}/{index}", 1) for index in range(30_000)}
        one.take(Delta("b", generation, 0, 1, entries), FAR)
        assert len(one._namespaces["b"].former) <= 65_536
    assert len(one.live) == 60_000


@given(
    steps=st.lists(st.tuples(st.dictionaries(st.sampled_from("pqrs"), st.none() | st.just(b"x" * 9)), st.booleans())),
    seen=st.integers(0, 20),
    limit=st.sampled_from([1, 12, 30, WHOLE]),
    settled=st.booleans(),
)
def test_what_comes_in_parts_comes_to_the_same(steps, seen, limit, settled):
    """A namespace of many megabytes is pulled in parts, from wherever the other end is; only the last one settles."""
    one, parts, whole = Store("b"), Store("a"), Store("a")
    one.begin(7, 0, {})
    for at, (changes, durable_keys) in enumerate(steps):
        one.write(changes, Lifetime.DURABLE if durable_keys else LEASE, Stamp(at, 0, "b"))
        if at == seen:
            for other in (parts, whole):
                tell(one, other)
    if settled:
        one.settle()
    told = tell(one, whole)
    seen_settled = []
    while (delta := one.missing("b", parts.known.get("b", NOTHING), limit)) is not None:
        assert parts.take(delta, FAR) is not None
        seen_settled.append(delta.settled)
    assert bool(seen_settled) is told
    assert not any(seen_settled[:-1])
    assert parts.known == whole.known
    assert parts.live == whole.live
    assert parts._namespaces["b"].entries == whole._namespaces["b"].entries
