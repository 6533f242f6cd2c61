"""
Laws of the store, with several owners.

The histories are made by stores that write; the store under test hears of them.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcosnet.kv.store import LimitError, Store
from dcosnet.model.delta import NOTHING, Delta, Known
from dcosnet.model.entry import Entry, Lifetime
from dcosnet.model.stamp import Stamp

WHOLE = 1 << 40
"""A limit that cuts nothing."""

LEASE, DURABLE = Lifetime.LEASE, Lifetime.DURABLE
OWNERS = ("a", "b", "c")
FAR = 1 << 60

keys = st.sampled_from(["k1", "k2", "k3"])
writes = st.tuples(
    st.sampled_from(OWNERS),
    st.dictionaries(keys, st.none() | st.sampled_from([b"", b"1", b"2"]), min_size=1),
    st.sampled_from(Lifetime),
    st.integers(0, 5),
)
restarts = st.tuples(st.sampled_from(OWNERS), st.none(), st.none(), st.just(0))
settles = st.tuples(st.sampled_from(OWNERS), st.none(), st.none(), st.just(1))


@st.composite
def histories(draw):
    """Deltas of several owners as they made them, each in order; some begin a new generation."""
    stores = {owner: Store(owner) for owner in OWNERS}
    for store in stores.values():
        store.begin(1, 0, {})
    deltas = []
    for counter, (owner, changes, lifetime, at) in enumerate(draw(st.lists(writes | restarts | settles, max_size=20))):
        store = stores[owner]
        known = Known(store.own.generation, store.own.version)
        if changes is not None:
            store.write(changes, lifetime, Stamp(at, counter, owner))
        elif at:
            store.settle()
        else:
            store.begin(store.own.generation + 1, store.own.version, store.own.durable())
        delta = store.missing(owner, known, WHOLE)
        if delta is not None:
            deltas.append(delta)
    # What is shown of a former generation is no function of what is known.
    for owner, store in stores.items():
        if not store.own.settled:
            known = Known(store.own.generation, store.own.version)
            store.settle()
            deltas.append(store.missing(owner, known, WHOLE))
    return deltas


def take(store, delta):
    news = store.take(delta, FAR)
    return frozenset() if news is None else news.changed


def follow(deltas):
    """A store that has heard all of it: what comes too early is offered again."""
    store = Store("z")
    for _ in range(len(deltas) + 1):
        for delta in deltas:
            store.take(delta, FAR)
    return store


def model(store):
    """The live view by definition: from the namespaces, with no index."""
    found = {}
    for namespace in store._namespaces.values():
        for key, entry in {**namespace.former, **namespace.entries}.items():
            assert entry.lifetime is DURABLE or not namespace.dead
            if key not in found or (entry.written, entry.owner) > (found[key].written, found[key].owner):
                found[key] = entry
    return found


@given(deltas=histories(), seed=st.integers())
def test_the_order_of_hearing_makes_no_difference(deltas, seed):
    """Any order, with repetitions, leads to the same content: merging commutes and associates."""
    shuffled = [*deltas, *deltas]
    random.Random(seed).shuffle(shuffled)
    one, other = follow(deltas), follow(shuffled)
    assert one.known == other.known
    assert one.live == other.live
    assert one.counts == other.counts


@given(deltas=histories())
def test_taking_the_same_again_changes_nothing(deltas):
    """Merging is idempotent, also for what is long outdated: nothing comes back."""
    store = follow(deltas)
    before = dict(store.live)
    assert [store.take(delta, FAR) for delta in deltas] == [None] * len(deltas)
    assert store.live == before


@given(deltas=histories(), judged=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(OWNERS), st.booleans())))
def test_the_live_view_equals_its_definition(deltas, judged):
    """After every step; and the keys told as changed are exactly those whose live entry differs."""
    store = Store("z")
    for position, delta in enumerate([*deltas, None]):
        for at, owner, dead in judged:
            if at == position:
                before = dict(store.live)
                _check_told(before, store, store.judge(owner, dead))
        if delta is not None:
            before = dict(store.live)
            _check_told(before, store, take(store, delta))
            before = dict(store.live)
            if store.passing(delta.owner):
                _check_told(before, store, store.expire(delta.owner))
                assert not store.passing(delta.owner)


def _check_told(before, store, changed):
    after = store.live
    assert after == model(store)
    assert changed == {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    for lifetime in Lifetime:
        assert store.counts[lifetime] == sum(entry.lifetime is lifetime for entry in after.values())
    for namespace in store._namespaces.values():
        assert namespace.size == sum(len(key) + len(one.value) for key, one in namespace.entries.items())


@given(steps=st.lists(writes, max_size=10), last=writes)
def test_restoring_leads_back(steps, last):
    """After a step is taken back the content is that of before, in a later version."""
    store = Store("a")
    for counter, (_, changes, lifetime, at) in enumerate(steps):
        store.write(changes, lifetime, Stamp(at, counter, "a"))
    before, version = dict(store.live), store.own.version
    step = store.write(last[1], last[2], Stamp(9, 0, "a"))
    if step is None:
        return
    assert store.restore(step.before) is not None
    assert store.own.version == version + 2
    assert {key: (one.value, one.lifetime, one.created, one.written) for key, one in before.items()} == {
        key: (one.value, one.lifetime, one.created, one.written) for key, one in store.live.items()
    }


def test_a_gap_is_not_taken():
    """What was missed might have deleted a key that the delta does not speak of."""
    entry = Entry("k", "b", b"1", LEASE, 2, Stamp(1, 0, "b"), Stamp(1, 0, "b"))
    store = Store("a")
    assert store.take(Delta("b", 0, 1, 2, {"k": entry}), FAR) is None
    assert store.take(Delta("b", 1, 1, 2, {"k": entry}), FAR) is None
    assert store.live == {}


def test_a_lease_of_a_dead_owner_gives_way_to_an_older_entry():
    """And does not come back with its owner before he has told it again."""
    store, other = Store("a"), Store("b")
    other.begin(1, 0, {})
    store.write({"k": b"mine"}, LEASE, Stamp(1, 0, "a"))
    other.write({"k": b"theirs"}, LEASE, Stamp(2, 0, "b"))
    take(store, other.missing("b", NOTHING, WHOLE))
    assert store.live["k"].value == b"theirs"
    assert store.judge("b", True) == {"k"}
    assert store.live["k"].value == b"mine"
    assert store.judge("b", False) == frozenset()
    assert store.known["b"] == (1, 0)
    assert take(store, other.missing("b", store.known["b"], WHOLE)) == {"k"}
    assert store.live["k"].value == b"theirs"
    assert store.known["b"] == (1, 1)


def test_a_durable_entry_outlives_its_owner():
    """Only leases say that somebody is there."""
    store, other = Store("a"), Store("b")
    other.begin(1, 0, {})
    other.write({"k": b"1"}, DURABLE, Stamp(1, 0, "b"))
    take(store, other.missing("b", NOTHING, WHOLE))
    assert store.judge("b", True) == frozenset()
    assert "k" in store.live


def test_an_older_write_changes_nothing_live():
    """Nobody is told of an entry that he would not see."""
    store, other = Store("a"), Store("b")
    other.begin(1, 0, {})
    store.write({"k": b"new"}, LEASE, Stamp(2, 0, "a"))
    other.write({"k": b"old"}, LEASE, Stamp(1, 0, "b"))
    assert take(store, other.missing("b", NOTHING, WHOLE)) == frozenset()
    assert store.live["k"].value == b"new"


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [("k" * 513, b"", "key"), ("\ud800", b"", "key"), ("k", bytes((1 << 20) + 1), "value")],
)
def test_a_limit_is_named(key, value, limit):
    """For the counter, and for people."""
    with pytest.raises(LimitError) as caught:
        Store("a").write({key: value}, LEASE, Stamp(1, 0, "a"))
    assert caught.value.limit == limit
