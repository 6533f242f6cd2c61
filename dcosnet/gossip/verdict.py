"""
Who is unreachable, folded from who accuses whom.

An edge is what the rings want between two members; it is down when either end
accuses the other. Judged is from where this node stands: who can be walked to
from here and from its own peers by edges that are up is heard here, and only
who is heard counts as an observer. Observers are a member's neighbours on the
rings; once it is unreachable they stay the same until it speaks, since new
neighbours have no opinion yet, and no way leads to it but by them. A member is
unreachable

1. when three fifths of the observers that are heard accuse it, or
2. when three fifths of its edges to observers that are not so judged are down,
   whoever accuses: a node that can be heard but hears nobody is as gone, or
3. when none of its observers is heard and no edge leads to it, unless its own
   word that it lost them has come here: then it is on this side of the split.

The first rule goes before the second, so that a survivor is not condemned for
accusing the many who died around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from math import ceil

from dcosnet.gossip.rings import Rings

QUORUM = 0.6

_NONE: frozenset[str] = frozenset()


class Court:
    """
    The verdicts of one moment, as this node draws them.

    `accusers` gives for each accused member who accuses what it now is, `juries`
    the observers of those that are unreachable already, `peers` those that this
    node has links with.
    """

    def __init__(
        self,
        name: str,
        ring: Rings,
        accusers: Mapping[str, AbstractSet[str]],
        juries: Mapping[str, frozenset[str]],
        peers: Iterable[str],
    ) -> None:
        self._name = name
        self._ring = ring
        self._accusers = accusers
        self._juries = juries
        # Both ways, so that a walk asks once for each member.
        self._apart: dict[str, set[str]] = {}
        for accused, by in accusers.items():
            self._apart.setdefault(accused, set()).update(by)
            for accuser in by:
                self._apart.setdefault(accuser, set()).add(accused)
        self._heard = self._walk([name, *(peer for peer in peers if peer in ring)])

    def verdicts(self) -> Mapping[str, float]:
        """Who is unreachable, and how far its observers agree: 0 for just enough of them, 1 for all."""
        found: dict[str, float] = {}
        suspects = {name for name in self._apart if name in self._ring} - {self._name}
        lost = {name for name in self._ring if name not in self._heard}
        for name in suspects | lost:
            observers = self._observers(name) & self._heard
            agreed = agreement(len(observers & self._accusers.get(name, _NONE)), len(observers))
            if agreed is None and not observers and name in lost and not self._is_orphan(name):
                agreed = 1.0
            if agreed is not None:
                found[name] = agreed
        condemned = frozenset(found)
        for name in suspects - condemned:
            observers = (self._observers(name) & self._heard) - condemned
            agreed = agreement(len(observers & self._apart[name]), len(observers))
            if agreed is not None:
                found[name] = agreed
        return found

    def _observers(self, name: str) -> frozenset[str]:
        """Whose word counts on a member."""
        jury = self._juries.get(name)
        return self._ring.neighbours(name) if jury is None else jury

    def _walk(self, frontier: list[str]) -> frozenset[str]:
        heard, odd = set(frontier), self._juries.keys() | self._apart.keys()
        while frontier:
            here = frontier.pop()
            fresh = self._observers(here) - heard
            if here in odd or not odd.isdisjoint(fresh):
                # Who has a jury is linked with it alone; what left the ring is no member any more.
                fresh = frozenset(
                    other
                    for other in fresh - self._apart.get(here, _NONE)
                    if other in self._ring and here in self._observers(other)
                )
            heard |= fresh
            frontier.extend(fresh)
        return frozenset(heard)

    def _is_orphan(self, name: str) -> bool:
        observers = self._observers(name)
        lost = sum(name in self._accusers.get(other, _NONE) for other in observers)
        accused = not self._heard.isdisjoint(self._accusers.get(name, _NONE))
        return agreement(lost, len(observers)) is not None and not accused


def agreement(accusers: int, observers: int) -> float | None:
    """None where too few agree; else from 0, just enough, to 1, all."""
    needed = max(1, ceil(QUORUM * observers))
    if accusers < needed:
        return None
    return 1.0 if observers == needed else (accusers - needed) / (observers - needed)
