"""
What of two mappings stays, comes and goes. Pure.

A round has two halves, so that what is told to others is true at every moment:
first all that is wanted comes beside what is to go (`beside`), then others are
told of what is wanted and there (`present`), and only then the rest goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def beside(desired: Mapping[K, V], actual: Mapping[K, V]) -> dict[K, V]:
    """All that is desired, and what is there without being desired."""
    return {**actual, **desired}


def present(desired: Mapping[K, V], actual: Mapping[K, V]) -> dict[K, V]:
    """What is there and desired, as it is there."""
    return {key: value for key, value in actual.items() if key in desired}


def changed_keys(before: Mapping[K, V], after: Mapping[K, V]) -> frozenset[str]:
    """The keys, as text, whose value is not the same in both."""
    return frozenset(str(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))
