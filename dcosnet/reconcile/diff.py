"""
What of two mappings stays, comes and goes. Pure.

A round has two halves, so that what is told to others is true at every moment:
first all that is wanted comes beside what is to go (`beside`), then others are
told of what is wanted and there (`present`), and only then the rest goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def beside(desired: Mapping[K, V], actual: Mapping[K, V]) -> dict[K, V]:
    """All that is desired, and what is there without being desired."""
    return {**actual, **desired}


def present(desired: Mapping[K, V], actual: Mapping[K, V]) -> dict[K, V]:
    """What is there and desired, as it is there."""
    return {key: value for key, value in actual.items() if key in desired}


def changed_keys(before: Mapping[K, V], after: Mapping[K, V]) -> frozenset[K]:
    """The keys whose value is not the same in both."""
    # Identity first: mostly nothing changed, and comparing is dear.
    come = [key for key, new in after.items() if (old := before.get(key)) is not new and old != new]
    return frozenset(come).union(key for key in before if key not in after)


def part(whole: Mapping[K, V], keys: Iterable[K]) -> dict[K, V]:
    """What a mapping has of these keys."""
    return {key: whole[key] for key in keys if key in whole}


def patched(whole: Mapping[K, V], keys: Iterable[K], by: Mapping[K, V]) -> dict[K, V]:
    """The mapping with these keys as the other one has them, or has them not."""
    new = dict(whole)
    for key in keys:
        if key in by:
            new[key] = by[key]
        else:
            new.pop(key, None)
    return new
