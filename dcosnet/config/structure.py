"""
Merged tables become settings types, field by field, so that all errors come at once.

msgspec stops at the first thing wrong; people want to correct a file once. So
structs and containers are walked here and only single values are left to it.
"""

from __future__ import annotations

import reprlib
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from dcosnet.config.fields import READERS
from dcosnet.config.merge import Leaf, Merged, Origin, Table, plant
from dcosnet.config.quote import join
from dcosnet.errors import ConfigError, ConfigErrors

_LISTS: Mapping[Any, type] = {tuple: tuple, list: list, frozenset: frozenset, set: set, Sequence: tuple}
_TABLES: Collection[Any] = (dict, Mapping)


class _Bad:
    """Stands for a value that was wrong and has been reported."""


_BAD: Final = _Bad()


def structure(merged: Merged, types: Mapping[str, type], always: Collection[str] = ()) -> dict[str, msgspec.Struct]:
    """
    Read each table of `merged` into its type; tables named in `always` also when they are absent.

    `types` maps table names to frozen Struct types. A field's name in TOML is
    its encoded name. A `__post_init__` that raises ValueError reports settings
    that do not go together. Raises ConfigErrors with all that is wrong.
    """
    reader = _Reader()
    for name in merged.tables.keys() - types.keys():
        reader.complain(name, f"unknown table; {_nearest(name, types)}", merged.tables[name].origin)
    structured: dict[str, msgspec.Struct] = {}
    # Looking up a type may import the part's module: only those that are wanted.
    for name in types:
        node = merged.tables.get(name)
        if node is None and name in always:
            node = Table({}, Origin("", Path()))
        if node is not None:
            value = reader.read(node, types[name], join("", name))
            if isinstance(value, msgspec.Struct):
                structured[name] = value
    if reader.problems:
        raise ConfigErrors(sorted(reader.problems, key=lambda problem: (problem.origin, problem.path)))
    return structured


class _Reader:
    """Walks a tree beside its type; notes what is wrong and goes on."""

    def __init__(self) -> None:
        self.problems: list[ConfigError] = []

    def complain(self, path: str, reason: str, origin: Origin) -> _Bad:
        self.problems.append(ConfigError(path, reason, origin.place))
        return _BAD

    def read(self, node: Leaf | Table, kind: Any, path: str) -> Any:  # noqa: PLR0911 - one for each kind of type
        """The value of a node as `kind`, or _BAD."""
        if kind in READERS:
            return self._field(node, kind, path)
        outer, arguments = typing.get_origin(kind), typing.get_args(kind)
        if outer is Annotated:
            return self._annotated(node, kind, path)
        if outer in (typing.Union, types.UnionType):
            return self._union(node, arguments, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._struct(node, kind, path)
        if outer in _TABLES:
            return self._mapping(node, arguments[0], arguments[1], path)
        if outer in _LISTS and not (outer is tuple and arguments[1:] != (...,)):
            return self._list(node, _LISTS[outer], arguments[0], path)
        return self._scalar(node, kind, path)

    def _field(self, node: Leaf | Table, kind: Any, path: str) -> Any:
        if isinstance(node, Table):
            return self.complain(path, "is a table; one value is wanted", node.origin)
        value = node.value
        # All our types are written as text, and what was typed may look like a number: a file named 5.
        if node.text is not None and not isinstance(value, str):
            value = node.text
        try:
            return READERS[kind](value, node.origin.base)
        except ValueError as error:
            return self.complain(path, str(error), node.origin)

    def _struct(self, node: Leaf | Table, kind: type[msgspec.Struct], path: str) -> Any:
        if not isinstance(node, Table):
            return self.complain(path, f"is {_short(node.value)}; a table is wanted", node.origin)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key in node.items.keys() - fields.keys():
            self.complain(join(path, key), f"unknown key; {_nearest(key, fields)}", node.items[key].origin)
        values: dict[str, Any] = {}
        for key, field in fields.items():
            if key in node.items:
                values[field.name] = self.read(node.items[key], field.type, join(path, key))
            elif field.required:
                values[field.name] = self.complain(join(path, key), "is missing", node.origin)
        if any(value is _BAD for value in values.values()):
            return _BAD
        try:
            return kind(**values)
        except ConfigError as error:
            return self.complain(join(path, error.path) if error.path else path, error.reason, node.origin)
        except ValueError as error:
            return self.complain(path, str(error), node.origin)

    def _mapping(self, node: Leaf | Table, of_key: Any, of_value: Any, path: str) -> Any:
        if not isinstance(node, Table):
            return self.complain(path, f"is {_short(node.value)}; a table is wanted", node.origin)
        read = {
            self.read(Leaf(key, item.origin), of_key, join(path, key)): self.read(item, of_value, join(path, key))
            for key, item in node.items.items()
        }
        return _BAD if _BAD in read or any(value is _BAD for value in read.values()) else read

    def _list(self, node: Leaf | Table, make: type, of_item: Any, path: str) -> Any:
        if isinstance(node, Table) or not isinstance(node.value, list):
            found = "a table" if isinstance(node, Table) else _short(node.value)
            return self.complain(path, f"is {found}; a list is wanted", node.origin)
        items = [
            self.read(plant(item, node.origin), of_item, f"{path}[{index}]") for index, item in enumerate(node.value)
        ]
        return _BAD if any(item is _BAD for item in items) else make(items)

    def _union(self, node: Leaf | Table, kinds: Iterable[Any], path: str) -> Any:
        # TOML has no null: None is what a setting is when nobody gives it.
        wanted = [kind for kind in kinds if kind is not types.NoneType]
        first: _Reader | None = None
        for kind in wanted:
            trial = _Reader()
            value = trial.read(node, kind, path)
            if value is not _BAD:
                return value
            first = first or trial
        # The first type of a union is the one that it is usually written in.
        assert first is not None, path
        self.problems.extend(first.problems)
        return _BAD

    def _annotated(self, node: Leaf | Table, kind: Any, path: str) -> Any:
        inner, *notes = typing.get_args(kind)
        value = self.read(node, inner, path)
        plain = _plain(value)
        bounds: Any = type(plain)
        for note in notes:
            bounds = Annotated[bounds, note]
        try:
            # What is inside was read already; only the bounds are asked for here.
            if value is not _BAD:
                msgspec.convert(plain, bounds)
        except msgspec.ValidationError as error:
            return self.complain(path, _sentence(error, node.value if isinstance(node, Leaf) else plain), node.origin)
        return value

    def _scalar(self, node: Leaf | Table, kind: Any, path: str) -> Any:
        if isinstance(node, Table):
            return self.complain(path, "is a table; one value is wanted", node.origin)
        value = node.value
        if kind is str and node.text is not None and not isinstance(value, str):
            value = node.text
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            return self.complain(path, _choices(value, kind) or _sentence(error, value), node.origin)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names) or 'none'}"


def _choices(value: object, kind: Any) -> str | None:
    """What is wrong with a value out of a closed set; None for other types."""
    if typing.get_origin(kind) is Literal:
        known = [str(choice) for choice in typing.get_args(kind)]
    elif isinstance(kind, type) and issubclass(kind, Enum):
        known = [str(choice.value) for choice in kind]
    else:
        return None
    near = get_close_matches(str(value), known, 1)
    return f"is {_short(value)}; it must be one of {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")


def _sentence(error: msgspec.ValidationError, value: object) -> str:
    wanted = str(error).partition(" - at ")[0].replace("`", "")
    return f"is {_short(value)}; {wanted[:1].lower()}{wanted[1:]}"


def _plain(value: object) -> object:
    """A value read, as the type of msgspec's own that bounds are given for."""
    if isinstance(value, int | float | str | dict):
        base: Any = next(base for base in (int, float, str, dict) if isinstance(value, base))
        return base(value)
    return list(value) if isinstance(value, Collection) else value


def _short(value: object) -> str:
    return reprlib.repr(value)
