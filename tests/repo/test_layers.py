"""
The layering rule of ARCHITECTURE.rst.

A file's layer follows from its name. It may import what is at or below its
layer, of its own package and of the packages that all share; imports under
TYPE_CHECKING are free, since they do not happen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL, INTERFACES, CORE, SHELL, PLUGIN, TOP = range(1, 7)

SHELLS = frozenset({
    "service", "server", "chain", "upstream", "peers", "tls", "tcp", "udp", "checks", "userspace", "nftables",
    "dataplane", "runtime", "process", "agent", "leader", "metrics", "journal", "resolvconf", "api", "cni", "docker",
})  # fmt: skip
# Names that mean a core elsewhere.
SHELLS_BY_PATH = frozenset(
    {
        "kv.copier",
        "kv.copies",
        "kv.log",
        "l4lb.connection",
        "l4lb.ends",
        "l4lb.idle",
        "gossip.addressbook",
        "gossip.membership",
        "l4lb.homes",
        "l4lb.sockets",
        "sources.files.probe",
        "sources.mesos.access",
        "sources.mesos.lookup",
        "sources.mesos.pause",
        "sources.mesos.polled",
        "sources.mesos.stream",
        "views.drains",
    }
)
CORES_BY_PATH = frozenset({"sources.files.checks"})  # and the reverse
SHARED = frozenset({"model", "errors", "interfaces", "config", "reconcile", "io"})
# What an outside package may be imported by; what is not here is a shell's business, or nobody's.
OUTSIDE = {"attrs": MODEL, "zope.interface": INTERFACES, "msgspec": CORE, "automat": CORE}
OUTSIDE |= {"twisted.names.dns": CORE, "twisted.names.error": CORE}
ONLY = {"pyroute2": "io.netlink", "kazoo": "leader", "hypothesis": "testing", "click": "cli", "rich": "cli"}
# The standard library's ways to the clock, the disk, the network, chance and other threads.
EFFECTS = frozenset({
    "asyncio", "concurrent", "ctypes", "fcntl", "glob", "io", "logging", "mmap", "multiprocessing", "os", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading",
    "time", "urllib.request", "uuid",
})  # fmt: skip
VALUES = frozenset({"random.Random"})  # a core is given one
READS = frozenset({"open", "read_text", "read_bytes", "write_text", "write_bytes", "now"})
LOADERS = frozenset({"config.merge"})  # reads the configuration, once, before there is a reactor


def layer(module: str) -> int:
    """The layer of a module of ours, by its dotted name below dcosnet."""
    top, _, _ = module.partition(".")
    name = module.rpartition(".")[2]
    if top in {"tap", "assemble", "cli", "sim", "testing"}:
        return TOP
    if top in {"", "model", "errors"}:
        return MODEL
    if top in {"interfaces", "plugins"}:
        return INTERFACES
    if name == "plugin" or module == "ops.demo":
        return PLUGIN
    if module in CORES_BY_PATH:
        return CORE
    return SHELL if name in SHELLS or module in SHELLS_BY_PATH or top in {"ops", "io"} else CORE


def subsystem(module: str) -> str:
    """The package that a module belongs to; each source is a subsystem of its own."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "sources" and len(parts) > 2 else 1])


def imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Each import with its line, as dotted names; those for types only are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: imports name their module in full"
            yield from ((child.lineno, f"{child.module}.{alias.name}") for alias in child.names)
        else:
            yield from imports(child)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def ours(name: str) -> str:
    """The module below dcosnet that `dcosnet.a.b.Name` means."""
    while name != "dcosnet" and not ((ROOT / name.replace(".", "/")).is_dir() or module_file(name).is_file()):
        name = name.rpartition(".")[0]
    return name.removeprefix("dcosnet").removeprefix(".")


def module_file(name: str) -> Path:
    return ROOT / (name.replace(".", "/") + ".py")


def broken(module: str, text: str) -> list[str]:
    """The rules that a module's text breaks, each with its line."""
    mine, found = layer(module), []
    tree = ast.parse(text)
    for line, name in imports(tree) if mine < TOP else ():
        if within(name, "dcosnet"):
            other = ours(name)
            if layer(other) > mine:
                found.append(f"{line}: layer {mine} imports {other}, which is of layer {layer(other)}")
            if other.partition(".")[0] not in SHARED | {""} and not within(module, subsystem(other)):
                found.append(f"{line}: {subsystem(module)} imports {other} of another subsystem")
        elif not any(within(name, standard) for standard in sys.stdlib_module_names):
            lowest = min((level for prefix, level in OUTSIDE.items() if within(name, prefix)), default=SHELL)
            if mine < lowest and not (within(module, "plugins") and within(name, "twisted.plugin")):
                found.append(f"{line}: layer {mine} imports {name}")
        elif mine < SHELL and name not in VALUES and any(within(name, effect) for effect in EFFECTS):
            found.append(f"{line}: layer {mine} imports {name}, which has effects")
    for line, name in imports(tree):
        for prefix, place in ONLY.items():
            if within(name, prefix) and place not in {module, module.partition(".")[0], module.rpartition(".")[2]}:
                found.append(f"{line}: only {place} imports {prefix}")
    for node in ast.walk(tree) if mine < SHELL else ():
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"{node.lineno}: layer {mine} waits; what waits is a shell")
        called = (
            getattr(node.func, "attr", None) or getattr(node.func, "id", None) if isinstance(node, ast.Call) else None
        )
        if called in READS and module not in LOADERS:
            found.append(f"{node.lineno}: layer {mine} calls {called}")
    return found


MODULES = {
    ".".join(file.relative_to(ROOT / "dcosnet").with_suffix("").parts).removesuffix("__init__").rstrip("."): file
    for file in sorted((ROOT / "dcosnet").rglob("*.py"))
}


@pytest.mark.parametrize("module", MODULES)
def test_every_file_keeps_to_its_layer(module: str) -> None:
    """ARCHITECTURE.rst says which layer a file name is of, and why."""
    found = broken(module, MODULES[module].read_text())
    assert not found, "\n".join(f"{MODULES[module].relative_to(ROOT)}:{rule}" for rule in found)


@pytest.mark.parametrize(
    ("module", "text", "rule"),
    [
        ("dns.zone", "from twisted.internet import reactor", "layer 3 imports twisted.internet.reactor"),
        ("dns.zone", "import time", "layer 3 imports time, which has effects"),
        ("dns.zone", "def f():\n  import os", "layer 3 imports os"),
        ("dns.zone", "from random import choice", "layer 3 imports random.choice"),
        ("dns.zone", "from dcosnet.io.turns import Turns", "layer 3 imports io.turns, which is of layer 4"),
        ("dns.zone", "async def f(): ...", "layer 3 waits"),
        ("dns.zone", "def f(path): return path.read_text()", "layer 3 calls read_text"),
        ("dns.server", "from dcosnet.l4lb import addresses", "dns imports l4lb.addresses of another subsystem"),
        ("dns.plugin", "from dcosnet.kv.store import Store", "dns imports kv.store of another subsystem"),
        (
            "sources.files.service",
            "import dcosnet.sources.register.plugin",
            "sources.files imports sources.register.plugin of another",
        ),
        ("dns.server", "import pyroute2", "only io.netlink imports pyroute2"),
        ("model.net", "import msgspec", "layer 1 imports msgspec"),
        ("model.net", "from dcosnet.interfaces import Part", "layer 1 imports interfaces, which is of layer 2"),
        ("interfaces", "from twisted.internet.defer import Deferred", "layer 2 imports twisted.internet.defer"),
        ("plugins.builtin", "from dcosnet.dns.plugin import make_part", "which is of layer 5"),
    ],
)
def test_the_rule_is_seen_when_it_is_broken(module: str, text: str, rule: str) -> None:
    """A rule that nothing can break guards nothing."""
    assert [found for found in broken(module, text) if rule in found]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "dns.zone",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from twisted.internet.defer import Deferred",
        ),
        ("dns.zone", "from dcosnet.model.zone import Zone\nfrom random import Random\nfrom twisted.names import dns"),
        ("dns.server", "import time\nfrom twisted.internet import reactor\nfrom dcosnet.io.turns import Turns"),
        ("dns.plugin", "from dcosnet.config.fields import Duration\nfrom dcosnet import __version__"),
        ("sources.files.service", "from dcosnet.sources import services"),
        ("plugins.builtin", "from twisted.plugin import IPlugin"),
        ("assemble", "from dcosnet.dns.plugin import make_part\nimport time"),
    ],
)
def test_what_is_allowed_is_not_complained_of(module: str, text: str) -> None:
    """Types are free, what is below may be used, and the top may use all."""
    assert broken(module, text) == []
