"""
The composition root: finds the plugins, orders them, builds the tree of services.

Whatever does not fit is fatal here, in one line that names what was found;
nothing is skipped in silence.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import MultiService
from twisted.plugin import getPlugins
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

import dcosnet.plugins
from dcosnet import __version__
from dcosnet.config.merge import Merged
from dcosnet.config.node import NodeSettings
from dcosnet.config.structure import structure
from dcosnet.errors import AssemblyError, ConfigError, ConfigErrors
from dcosnet.interfaces import IContribution, IServicePlugin, IToolbox, Part
from dcosnet.io.host import this_node
from dcosnet.io.turns import Turns
from dcosnet.model.cell import Later
from dcosnet.model.node import Node

T = TypeVar("T")

ALWAYS = ("drain", "gossip", "kv", "views")
"""Parts that run without a table of their own."""


def find_plugins() -> Mapping[str, IServicePlugin]:
    """
    Every plugin on the path, by name.

    A module that fails to import is logged by Twisted and missing here; its
    table is then unknown, which `configure` reports with the names found.
    """
    found: dict[str, IServicePlugin] = {}
    for plugin in getPlugins(IServicePlugin, dcosnet.plugins):
        if plugin.name in found:
            raise AssemblyError(f"two plugins are called {plugin.name!r}: {found[plugin.name]!r} and {plugin!r}")
        if plugin.name == "node":
            raise AssemblyError(f"{plugin!r} is called 'node', which is a table of dcosnet itself")
        found[plugin.name] = plugin
    return found


class _Types(Mapping[str, type]):
    """Settings types by table; a part's module is imported only when its table is looked up."""

    def __init__(self, plugins: Mapping[str, IServicePlugin]) -> None:
        self._plugins = plugins

    def __getitem__(self, name: str) -> type:
        if name == "node":
            return NodeSettings
        plugin = self._plugins[name]
        try:
            settings: type = plugin.config
        except ImportError as error:
            raise AssemblyError(f"the plugin {name!r} could not be imported: {error}") from error
        return settings

    def __iter__(self) -> Iterator[str]:
        yield "node"
        yield from self._plugins

    def __len__(self) -> int:
        return len(self._plugins) + 1


def configure(merged: Merged) -> Mapping[str, Any]:
    """
    The settings of each table, and of the parts that need none.

    Raises ConfigErrors with all problems, or AssemblyError.
    """
    return structure(merged, _Types(find_plugins()), always=("node", *ALWAYS))


def order(plugins: Iterable[IServicePlugin]) -> Sequence[IServicePlugin]:
    """
    The plugins such that each comes after what it needs.

    Those that are free to go first do so in the order given. Raises
    AssemblyError for an unmet need, a double offer or a cycle.
    """
    waiting = list(plugins)
    offers: dict[InterfaceClass, IServicePlugin] = {}
    for plugin in waiting:
        for interface in plugin.offers:
            if interface in offers:
                names = f"{offers[interface].name!r} and {plugin.name!r}"
                raise AssemblyError(f"both {names} offer {interface.__name__}; disable one of them")
            offers[interface] = plugin
    for plugin in waiting:
        for interface in plugin.needs:
            if not interface.isOrExtends(IContribution) and interface not in offers:
                names = ", ".join(sorted(each.name for each in waiting))
                raise AssemblyError(
                    f"{plugin.name!r} needs {interface.__name__}, which none of the enabled parts offers ({names})"
                )
    placed: list[IServicePlugin] = []
    while waiting:
        free = [plugin for plugin in waiting if not any(_before(other, plugin) for other in waiting)]
        if not free:
            names = ", ".join(plugin.name for plugin in waiting)
            raise AssemblyError(f"these parts need each other in a circle: {names}")
        placed.append(free[0])
        waiting.remove(free[0])
    return placed


def _before(first: IServicePlugin, second: IServicePlugin) -> bool:
    """Whether `second` needs something that `first` provides."""
    return first is not second and bool(second.needs & (first.offers | first.contributes))


@implementer(IToolbox)
class Toolbox:
    """What parts are made from; `lend` gives each plugin a view of what it declared."""

    def __init__(self, reactor: Any, rng: random.Random, node: Node, state_dir: Path, later: Later) -> None:
        self.reactor = reactor
        self.rng = rng
        self.node = node
        self.state_dir = state_dir
        self.later = later
        self.parts: dict[str, Part] = {}
        self._offers: dict[InterfaceClass, object] = {}
        self._contributions: dict[InterfaceClass, list[object]] = {}
        self._needs: frozenset[InterfaceClass] | None = None

    def lend(self, needs: frozenset[InterfaceClass]) -> Toolbox:
        """The same toolbox, giving only what is needed."""
        view = Toolbox.__new__(Toolbox)
        view.__dict__.update(self.__dict__, _needs=needs)
        return view

    def add(self, plugin: IServicePlugin, part: Part) -> None:
        """Take what a part gives to others. Raises AssemblyError where it is not what was declared."""
        if set(part.offers) != set(plugin.offers):
            raise AssemblyError(f"{plugin.name!r} offers {_names(part.offers)} but declares {_names(plugin.offers)}")
        for interface, provider in (*part.offers.items(), *part.contributes):
            try:
                verifyObject(interface, provider)
            except Invalid as error:
                raise AssemblyError(f"{plugin.name!r}: {' '.join(str(error).split())}") from error
        for interface, provider in part.contributes:
            if interface not in plugin.contributes:
                raise AssemblyError(f"{plugin.name!r} contributes {interface.__name__} without declaring it")
            self._contributions.setdefault(interface, []).append(provider)
        self._offers.update(part.offers)
        self.parts[plugin.name] = part

    def __getitem__(self, interface: type[T]) -> T:
        self._check(interface)
        provider: T = self._offers[interface]  # type: ignore[index,assignment]  # interfaces are instances to mypy
        return provider

    def all(self, interface: type[T]) -> Sequence[T]:
        """All contributions of an interface, in the order of assembly."""
        self._check(interface)
        return tuple(self._contributions.get(interface, ()))  # type: ignore[call-overload]  # as above

    def _check(self, interface: object) -> None:
        if self._needs is not None and interface not in self._needs:
            raise KeyError(f"{interface} is not among the declared needs")

    def readiness(self) -> Mapping[str, str | None]:
        """Each part's name with None, or the reason why it is not ready."""
        return {name: part.ready() for name, part in self.parts.items()}

    def describe(self) -> Mapping[str, Mapping[str, Any]]:
        """Each part's name with what it says of itself."""
        return {name: part.describe() for name, part in self.parts.items()}


def _names(interfaces: Iterable[InterfaceClass]) -> str:
    return ", ".join(sorted(interface.__name__ for interface in interfaces)) or "nothing"


def assemble(
    settings: Mapping[str, Any],
    reactor: Any,
    *,
    find: Callable[[], Mapping[str, IServicePlugin]] = find_plugins,
    rng: random.Random | None = None,
    now: Callable[[], float] = time.time,
) -> tuple[MultiService, Toolbox]:
    """
    As `build`, and makes the state directory, the only thing outside the process.

    Raises AssemblyError, ConfigError or ConfigErrors.
    """
    tree, toolbox = build(settings, reactor, find=find, rng=rng, now=now)
    state_dir = toolbox.state_dir
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "node.state_dir",
            f"{state_dir} cannot be made ({error.strerror}); name a directory that this user may write",
        ) from error
    return tree, toolbox


def build(
    settings: Mapping[str, Any],
    reactor: Any,
    *,
    find: Callable[[], Mapping[str, IServicePlugin]] = find_plugins,
    rng: random.Random | None = None,
    now: Callable[[], float] = time.time,
) -> tuple[MultiService, Toolbox]:
    """
    The tree of services for these settings (from `configure`), and the toolbox.

    Services start in the order of needs and stop in reverse. Changes nothing
    outside the process. Raises AssemblyError, or ConfigErrors with what all
    parts say of their settings; a part that needs one that could not be made is
    not asked.
    """
    node: NodeSettings = settings["node"]
    found = find()
    enabled = [found[name] for name in settings if name != "node"]
    toolbox = Toolbox(
        reactor,
        rng or random.Random(),
        this_node(node, version=__version__, started_at=now()),
        Path(node.state_dir),
        Turns(reactor).later,
    )
    tree = MultiService()
    problems: list[ConfigError] = []
    absent: set[InterfaceClass] = set()
    for plugin in order(enabled):
        if absent & plugin.needs:
            absent |= plugin.offers
            continue
        try:
            part = plugin.make_part(settings[plugin.name], toolbox.lend(plugin.needs))
        except (ConfigError, ConfigErrors) as error:
            problems += error.problems if isinstance(error, ConfigErrors) else [error]
            absent |= plugin.offers
            continue
        toolbox.add(plugin, part)
        part.service.setName(plugin.name)
        part.service.setServiceParent(tree)
    if problems:
        raise ConfigErrors(problems)
    return tree, toolbox
