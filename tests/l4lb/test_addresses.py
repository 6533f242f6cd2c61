"""Named VIP addresses: the same on every node, and never moved without need."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from dcosnet.l4lb.addresses import Addresses, Claim, VipName
from dcosnet.model.addressing import AddressRange, parse_range
from dcosnet.model.stamp import Stamp

# So small that names collide, wrap round and run out.
SMALL = AddressRange(IPv4Address("127.11.0.250"), IPv4Address("127.11.1.1"))

names = st.builds(VipName, st.sampled_from([f"n{i}" for i in range(12)]), st.just("f"))
reserved = st.frozensets(st.integers(0, 7).map(lambda i: SMALL.first + i), max_size=3)


@st.composite
def claims(draw: st.DrawFn) -> tuple[VipName, Claim | None]:
    name = draw(names)
    # Ages are few, so that names tie, and old ones come late.
    since = draw(st.none() | st.integers(0, 5))
    return name, None if since is None else Claim(f"{name.name}.f", Stamp(since, 0, "node"))


def full(known: dict[VipName, Claim], held: frozenset[IPv4Address]) -> dict[VipName, IPv4Address]:
    """The rule, word for word: in the order of age and name, the first address that nobody has."""
    out: dict[VipName, IPv4Address] = {}
    for name, claim in sorted(known.items(), key=lambda item: (item[1].since, item[0].name)):
        found = SMALL.free(claim.text, {*out.values(), *held})
        if found is not None:
            out[name] = found
    return out


@given(st.lists(st.tuples(st.lists(claims(), max_size=4), reserved), max_size=12))
@settings(max_examples=300)
def test_taking_changes_one_by_one_equals_assigning_all_at_once(changes) -> None:
    """Whatever the order in which a node hears of names, it ends with the same addresses."""
    table = Addresses(SMALL)
    known: dict[VipName, Claim] = {}
    for batch, held in changes:
        update = dict(batch)
        before = dict(table.given)
        moved = table.update(update, held)
        known = {name: claim for name, claim in {**known, **update}.items() if claim is not None}
        expected = full(known, held)
        assert dict(table.given) == expected
        assert table.exhausted == known.keys() - expected.keys()
        assert moved == {n for n in before.keys() | expected.keys() if before.get(n) != expected.get(n)}


@given(st.lists(claims(), max_size=8), reserved, names)
def test_a_new_name_moves_no_living_one(batch, held, newcomer) -> None:
    table = Addresses(SMALL)
    table.update(dict(batch), held)
    before = {name: address for name, address in table.given.items() if name != newcomer}
    table.update({newcomer: None}, held)
    before = dict(table.given)
    table.update({newcomer: Claim(f"{newcomer.name}.f", Stamp(99, 0, "node"))}, held)
    assert before.items() <= table.given.items()


def test_names_without_collisions_are_never_assigned_anew() -> None:
    """A table of thousands of VIPs pays for what changed alone."""
    wide = AddressRange(IPv4Address("11.0.0.0"), IPv4Address("11.255.255.254"))
    table = Addresses(wide)
    many = {VipName(f"n{i}", "f"): Claim(f"n{i}.f", Stamp(i % 7, i, "node")) for i in range(500)}
    table.update(many, frozenset())
    for name in many:
        table.update({name: None}, frozenset())
    assert table.recomputed == 0
    assert not table.given


def test_a_range_of_ipv6_is_wider_than_len_can_tell() -> None:
    """A name that had to step aside, and one that it stepped aside for and that ends."""
    wide = parse_range("fd01:c::-fd01:c::ffff:ffff:ffff:ffff")
    table = Addresses(wide)
    one, two = VipName("one", "f"), VipName("two", "f")
    first = wide.start("one.f")
    table.update({one: Claim("one.f", Stamp(1, 0, "n")), two: Claim("one.f", Stamp(2, 0, "n"))}, frozenset())
    assert table.given == {one: first, two: first + 1}
    assert table.update({one: None}, frozenset()) == {one, two}
    assert table.given == {two: first}
    assert wide.size == 1 << 64
