"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A path of somebody's home or workplace; written so that this line is none.
PLACES = re.compile(r"(?<![\w.$}])/(?:root|home|Users|builds|workspace|work)/[\w.]")


def tracked(*patterns: str) -> list[Path]:
    git = shutil.which("git")
    command = [git or "false", "ls-files", "-z", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git, or not a clone, so nobody can say which files are ours")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def places(text: str) -> list[str]:
    return [f"{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if PLACES.search(line)]


def swallowed(text: str) -> list[int]:
    """Lines where every error is caught and nothing is done about it."""
    handlers = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ExceptHandler))
    return [
        node.lineno
        for node in handlers
        if (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
    ]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """What works only where it was written works nowhere else."""
    found = {
        str(path.relative_to(ROOT)): lines
        for path in tracked()
        if (lines := places(path.read_text(errors="replace"))) and path != Path(__file__).resolve()
    }
    assert found == {}


def test_no_error_is_swallowed() -> None:
    """What is caught is counted, logged, or named narrowly."""
    found = {str(path.relative_to(ROOT)): lines for path in tracked("*.py") if (lines := swallowed(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize("text", ["see /home/ann/x", "/Users/ann/dcosnet", '"/builds/team/dcosnet"'])
def test_a_place_is_seen(text: str) -> None:
    """The first rule can be broken."""
    assert places(text)


@pytest.mark.parametrize("text", ["/etc/dcosnet", "the network/home/flow", "https://example.org/home/x"])
def test_other_paths_are_free(text: str) -> None:
    """System paths, and words with a slash."""
    assert places(text) == []


@pytest.mark.parametrize("handler", ["except Exception:", "except:", "except BaseException as e:"])
def test_a_swallowed_error_is_seen(handler: str) -> None:
    """The second rule can be broken; a narrow one may pass."""
    assert swallowed(f"try:\n  f()\n{handler}\n  pass")
    assert not swallowed("try:\n  f()\nexcept OSError:\n  pass")
