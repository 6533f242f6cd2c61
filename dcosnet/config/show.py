"""
The configuration in effect, as TOML that says where each value comes from.

What it prints reads back as the same configuration, except for secrets, which
are hidden, and for values that are not set, which are comments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from dcosnet.config.fields import Duration, Secret, Size
from dcosnet.config.merge import Merged
from dcosnet.config.quote import join, quoted


def show(merged: Merged, structured: Mapping[str, msgspec.Struct]) -> str:
    """The text; tables and keys stand in the order of their settings types."""
    blocks: list[str] = []
    for name, settings in structured.items():
        blocks.extend(_table(merged, (name,), _items(settings)))
    return "\n\n".join(blocks) + "\n"


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        return [(field.encode_name, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
    return list(value.items())


def _is_table(value: object) -> bool:
    return isinstance(value, msgspec.Struct | Mapping)


def _table(merged: Merged, path: tuple[str, ...], items: Sequence[tuple[str, Any]]) -> Iterator[str]:
    title = ""
    for key in path:
        title = join(title, key)
    lines = [f"[{title}]"]
    for key, value in items:
        if not _is_table(value):
            node = merged.root.find((*path, key))
            origin = "default" if node is None else node.origin.place
            lines.append(_line(join("", key), value, _comment(origin)))
    yield "\n".join(lines)
    for key, value in items:
        if _is_table(value):
            yield from _table(merged, (*path, key), _items(value))


def _line(key: str, value: object, origin: str) -> str:
    return f"# {key} is not set" if value is None else f"{key} = {_toml(value)}  # {origin}"


def _comment(text: str) -> str:
    """Text that stays within its line: the name of a file may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _toml(value: object) -> str:  # noqa: PLR0911 - one for each type of value
    if isinstance(value, Secret):
        return '"<secret>"'
    if isinstance(value, Enum):
        return _toml(value.value)
    if isinstance(value, Duration | Size):
        return quoted(value.text)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if _is_table(value):
        inner = (f"{join('', key)} = {_toml(item)}" for key, item in _items(value) if item is not None)
        return f"{{ {', '.join(inner)} }}"
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_toml, value))}]"
    return quoted(str(value))  # text, addresses, ranges and paths are written as they read
