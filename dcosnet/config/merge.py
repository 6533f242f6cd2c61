"""
Several places of configuration become one tree whose every value knows its origin.

In this order, and the later wins: the main file; every `*.toml` file in the
directory `conf.d` beside it, by name; the environment; `--set`. Tables merge
deeply, everything else, lists too, is replaced. What the values mean is
`structure`'s business.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from dcosnet.errors import ConfigError, ConfigErrors

DEFAULT_MAIN = Path("/etc/dcosnet/dcosnet.toml")

# DCOSNET_DNS__CACHE_SIZE is [dns] cache_size; a name without a double
# underscore (DCOSNET_API) is no configuration.
_ENVIRONMENT = re.compile(r"DCOSNET_([A-Za-z0-9]\w*?)__(\w+)")
# Settings nest four deep at most; the bound keeps recursion over any tree safe.
_DEPTH = 32


@attrs.frozen
class Origin:
    """Where a value came from, for people, and the directory that its relative paths mean."""

    place: str
    base: Path


@attrs.frozen
class Leaf:
    """
    A value that is no table; a list may hold tables, as plain dicts.

    `text` is what was typed in the environment or after `--set`, where quotes
    are optional: a setting that wants text takes it instead of the value.
    """

    value: Any
    origin: Origin
    text: str | None = None


@attrs.frozen
class Table:
    """A table, with the origin that named it last."""

    items: Mapping[str, Leaf | Table]
    origin: Origin

    def find(self, path: Sequence[str]) -> Leaf | Table | None:
        """What stands at a path below this table, or None."""
        node: Leaf | Table | None = self
        for key in path:
            node = node.items.get(key) if isinstance(node, Table) else None
        return node


@attrs.frozen
class Merged:
    """All that was configured, before anything is known of its meaning."""

    root: Table

    @property
    def tables(self) -> Mapping[str, Leaf | Table]:
        """What stands at the top, by name; anything but a table there is a mistake that `structure` reports."""
        return self.root.items

    def only(self, *names: str) -> Merged:
        """The same without the other tables, for who reads a few settings and needs no part's types."""
        items = {name: node for name, node in self.root.items.items() if name in names}
        return Merged(Table(items, self.root.origin))


def read(main: Path | None, environ: Mapping[str, str], sets: Sequence[str]) -> Merged:
    """
    Read and merge all places. Without a main file there is no `conf.d` either.

    Raises ConfigErrors with all that could not be read.
    """
    problems: list[ConfigError] = []
    here = Path.cwd()
    root = Table({}, Origin("the defaults", here))
    for layer in (*_files(main, problems), *_environment(environ, here, problems), *_sets(sets, here, problems)):
        root = merge(root, layer)
    if problems:
        raise ConfigErrors(problems)
    return Merged(root)


def merge(first: Table, second: Table) -> Table:
    """The tables as one; where both have a value, the second's."""
    items = dict(first.items)
    for key, node in second.items.items():
        before = items.get(key)
        items[key] = merge(before, node) if isinstance(before, Table) and isinstance(node, Table) else node
    return Table(items, second.origin)


def plant(value: object, origin: Origin, text: str | None = None) -> Leaf | Table:
    """A plain value as a tree whose every node has this origin."""
    if isinstance(value, dict):
        return Table({key: plant(item, origin) for key, item in value.items()}, origin)
    return Leaf(value, origin, text)


def _files(main: Path | None, problems: list[ConfigError]) -> Iterator[Table]:
    if main is None:
        return
    # One file a bad drop-in must not hide the others' mistakes: all are read.
    for path in (main, *sorted((main.parent / "conf.d").glob("*.toml"))):
        try:
            document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # some editors put a mark first
            yield _table(document, Origin(str(path), path.parent.absolute()))
        except OSError as error:
            problems.append(ConfigError("", f"cannot be read: {error.strerror}", str(path)))
        except UnicodeDecodeError as error:
            problems.append(ConfigError("", f"is not UTF-8 at byte {error.start}", str(path)))
        except (ValueError, OverflowError, RecursionError) as error:
            problems.append(ConfigError("", f"is not valid TOML: {_sentence(error)}", str(path)))


def _environment(environ: Mapping[str, str], here: Path, problems: list[ConfigError]) -> Iterator[Table]:
    for name in sorted(environ):
        match = _ENVIRONMENT.fullmatch(name)
        if match is None:
            continue
        origin = Origin(f"environment {name}", here)
        path = [key.lower() for key in (match[1], *match[2].split("__"))]
        if all(path) and len(path) < _DEPTH:
            yield _branch(path, environ[name], origin)
        else:
            problems.append(
                ConfigError("", "write DCOSNET_TABLE__KEY, with two underscores between them", origin.place)
            )


def _sets(sets: Sequence[str], here: Path, problems: list[ConfigError]) -> Iterator[Table]:
    for assignment in sets:
        origin = Origin(f"--set {assignment}", here)
        key, equals, text = assignment.partition("=")
        path = _path(key) if equals else []
        if path:
            yield _branch(path, text, Origin(f"--set {key.strip()}", here))
        else:
            problems.append(ConfigError("", "write --set TABLE.KEY=VALUE", origin.place))


def _table(document: Mapping[str, object], origin: Origin) -> Table:
    """A document as a tree. Raises ValueError when it nests without end."""
    level: list[object] = [document]
    for _ in range(_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
    if level:
        raise ValueError(f"tables and lists nest more than {_DEPTH} deep")
    return Table({key: plant(value, origin) for key, value in document.items()}, origin)


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _branch(path: Sequence[str], text: str, origin: Origin) -> Table:
    value = _value(text)
    node = plant(value, origin, text)
    for key in reversed(path):
        node = Table({key: node}, origin)
    assert isinstance(node, Table), path
    return node


def _value(text: str) -> object:
    """What the text is as a TOML value; if it is none, the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
        _table(document, Origin("", Path()))
    except (ValueError, OverflowError, RecursionError):
        return text
    # A line break in the text could begin another assignment.
    return document["value"] if len(document) == 1 else text


def _path(key: str) -> list[str]:
    """The parts of a TOML key (`dns.zones."a.b"`); empty when it is none."""
    try:
        node: object = tomllib.loads(f"{key} = 0")
    except (ValueError, OverflowError, RecursionError):
        return []
    path: list[str] = []
    while isinstance(node, dict):
        if len(node) != 1 or len(path) == _DEPTH - 1:
            return []
        ((name, node),) = node.items()
        path.append(name)
    return path if node == 0 else []


def _sentence(error: Exception) -> str:
    return "it nests too deeply" if isinstance(error, RecursionError) else str(error)
