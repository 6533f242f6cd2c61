"""Descriptors import cheaply and without a reactor: twistd chooses that one later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

from dcosnet.interfaces import IServicePlugin
from dcosnet.plugins import builtin

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTORS = [value for value in vars(builtin).values() if isinstance(value, builtin.Builtin)]

IMPORT = """
import runpy, sys
for name in sys.argv[1:]:
    runpy.run_path(name)
heavy = {"twisted.internet.reactor", "klein", "treq", "prometheus_client", "OpenSSL", "msgspec"}
ours = {name for name in sys.modules if name.startswith("dcosnet.")}
print(*sorted(heavy & set(sys.modules)), *sorted(name for name in ours if name.endswith(".plugin")))
"""


@pytest.mark.parametrize("module", ["dcosnet/plugins/builtin.py", "twisted/plugins/dcosnet_plugin.py"])
def test_a_descriptor_imports_no_reactor_and_no_part(module: str) -> None:
    """Asked in a process of its own, which has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(ROOT / module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == []


def test_no_settings_import_a_reactor() -> None:
    """`twistd dcosnet --check` reads them all before there is one."""
    lines = [f"import {each.module}" for each in DESCRIPTORS]
    lines += ["import dcosnet.tap, sys", "print('twisted.internet.reactor' in sys.modules)"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("descriptor", DESCRIPTORS, ids=lambda each: each.name)
def test_a_descriptor_is_what_it_says(descriptor: builtin.Builtin) -> None:
    """With settings that can be read, under a name that is its own."""
    assert verifyObject(IServicePlugin, descriptor)
    assert verifyObject(IPlugin, descriptor)
    assert getattr(builtin, descriptor.name) is descriptor
    assert descriptor.config.__struct_config__.frozen
