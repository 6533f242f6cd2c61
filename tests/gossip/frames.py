"""Messages of all types, for properties and for fuzzing."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(0, 9) | st.integers(0, (1 << 63) - 1),
    str: st.sampled_from(["host-a", "host-b"]) | st.text(max_size=8),
    bytes: st.binary(max_size=8),
}


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that stands in messages."""
    origin = getattr(kind, "__origin__", kind)  # a number is an int with bounds
    if origin in _LEAVES:
        return _LEAVES[origin]
    if origin is not tuple:
        return st.builds(kind, **{field.name: of_type(field.type) for field in msgspec.structs.fields(kind)})
    first, *rest = kind.__args__
    if rest == [Ellipsis]:
        return st.lists(of_type(first), max_size=3).map(tuple)
    return st.tuples(*map(of_type, (first, *rest)))
