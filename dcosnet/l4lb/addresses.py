"""
Which address each named VIP has, within one range.

Pure: the result depends on the names, their stamps and the reserved addresses
alone, not on the order in which they came. Names take their address in the
order of (stamp, name); so on a collision the older keeps its own and a new name
never moves one that lives. An address that a VIP uses explicitly is reserved:
no name gets it.

How changes are taken without assigning everything anew. An address is found by
going on from a hashed first choice to the first one that is not taken. Call a
name displaced when it did not get its first choice; its path is every address
from the first choice to the one before its own, and each of them was taken by an
older name or is reserved. Hence

- an address that is free lies on nobody's path: taking it, or reserving it,
  moves nobody, whatever the age of the name that takes it;
- the youngest name comes last in any order, so it takes what is free;
- giving up an address matters only to displaced names whose path it is on.

Whatever is not covered by these three is assigned anew as a whole. That is rare:
10 000 names in 11/8 make about three displaced ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.model.addressing import AddressRange
from dcosnet.model.net import Address
from dcosnet.model.stamp import Stamp


@attrs.frozen
class VipName:
    """The label name and framework of a VIP; all its ports and protocols share one address."""

    name: str
    framework: str


@attrs.frozen
class Claim:
    """What a name brings: the text that is hashed (`viplabels.hash_text`) and when it was first used."""

    text: str
    since: Stamp


class Addresses:
    """The addresses of all names in one range, kept up to date."""

    def __init__(self, addresses: AddressRange) -> None:
        self._range = addresses
        self._claims: dict[VipName, Claim] = {}
        self._reserved: frozenset[Address] = frozenset()
        self._asked: frozenset[Address] = frozenset()
        """What was reserved the last time, inside and outside of the range."""
        self._given: dict[VipName, Address] = {}
        self._taken: set[Address] = set()
        self._displaced: dict[VipName, tuple[int, int] | None] = {}
        """Where the path of each begins and how long it is; None where it found no address."""
        self._youngest: tuple[Stamp, str, str] | None = None
        self.recomputed = 0
        """How often all had to be assigned anew."""

    @property
    def range(self) -> AddressRange:
        """Where the addresses come from."""
        return self._range

    @property
    def given(self) -> Mapping[VipName, Address]:
        """Each name's address; a live view. A name that found none is absent."""
        return self._given

    @property
    def exhausted(self) -> frozenset[VipName]:
        """The names for which no address was left."""
        return frozenset(name for name in self._displaced if name not in self._given)

    def update(self, claims: Mapping[VipName, Claim | None], reserved: frozenset[Address]) -> set[VipName]:
        """
        Take claims that are new or changed, None for those that end, and ALL reserved addresses.

        The same set of these as the last time costs nothing.

        Gives the names whose address changed, came or went.
        """
        before: dict[VipName, Address | None] = {}
        ended = {name for name, claim in claims.items() if name in self._claims and self._claims[name] != claim}
        fresh = {name: claim for name, claim in claims.items() if claim is not None and self._claims.get(name) != claim}
        released: frozenset[Address] = frozenset()
        seized: frozenset[Address] = frozenset()
        if reserved is not self._asked:
            self._asked = reserved
            wanted = frozenset(address for address in reserved if address in self._range)
            released, seized = self._reserved - wanted, wanted - self._reserved
            self._reserved = wanted
        freed = {self._given[name] for name in ended if name in self._given} | released

        for name in ended:
            before[name] = self._given.get(name)
            self._forget(name)
        self._taken -= released
        disturbed = not self._taken.isdisjoint(seized)
        disturbed = disturbed or self._crosses(freed)
        if not disturbed:
            self._taken |= seized
            for name, claim in sorted(fresh.items(), key=lambda item: _order(*item)):
                before.setdefault(name, None)
                if not self._place(name, claim):
                    disturbed = True
                    break
        if disturbed:
            self._claims.update(fresh)
            everything = dict(self._given)
            self._assign_all()
            names = before.keys() | everything.keys() | self._given.keys()
            before = {name: before.get(name, everything.get(name)) for name in names}
        return {name for name, address in before.items() if self._given.get(name) != address}

    def _forget(self, name: VipName) -> None:
        del self._claims[name]
        self._displaced.pop(name, None)
        address = self._given.pop(name, None)
        if address is not None:
            self._taken.discard(address)

    def _crosses(self, freed: set[Address]) -> bool:
        """Whether a displaced name would have stopped at one of these addresses."""
        size = self._range.size
        for address in map(int, freed):
            for path in self._displaced.values():
                if path is None or (address - path[0]) % size < path[1]:
                    return True
        return False

    def _place(self, name: VipName, claim: Claim) -> bool:
        """Give a name its address; False when that takes more than adding it."""
        order = _order(name, claim)
        address = self._range.start(claim.text)
        youngest = self._youngest is None or order > self._youngest
        displaced = address in self._taken
        if displaced and not youngest:
            return False
        if youngest:
            self._youngest = order
        self._claims[name] = claim
        found = self._range.free(claim.text, self._taken)
        if displaced:
            first = int(address)
            self._displaced[name] = None if found is None else (first, (int(found) - first) % self._range.size)
        if found is not None:
            self._given[name] = found
            self._taken.add(found)
        return True

    def _assign_all(self) -> None:
        self.recomputed += 1
        claims, self._claims = self._claims, {}
        self._given.clear()
        self._displaced.clear()
        self._youngest = None
        self._taken = set(self._reserved)
        for name, claim in sorted(claims.items(), key=lambda item: _order(*item)):
            placed = self._place(name, claim)
            assert placed, name


def _order(name: VipName, claim: Claim) -> tuple[Stamp, str, str]:
    return claim.since, name.name, name.framework
