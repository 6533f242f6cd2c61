"""The check that every test of ours runs under catches what it says it catches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"

LEAKS = """
from twisted.internet import protocol

def test_timer():
    from twisted.internet import reactor
    reactor.callLater(60, print)

def test_listener():
    from twisted.internet import reactor
    reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")

def test_nothing():
    from twisted.internet import reactor
    reactor.callLater(0, lambda: None)

def test_program(require_program):
    require_program("no-such-program")
"""


def run_pytest(folder: Path, **environment: str) -> str:
    (folder / "test_leaking.py").write_text(LEAKS)
    shutil.copy(CONFTEST, folder)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rsf", "-q", str(folder)]
    kept = {name: value for name, value in os.environ.items() if name != "DCOSNET_TEST_REQUIRE"}
    done = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def test_leftover_timers_and_listeners_fail_their_test(tmp_path: Path) -> None:
    """Two tests leak and are errors; a call of the next turn is no leak; an absent program is a skip."""
    output = run_pytest(tmp_path)
    assert "ERROR at teardown of test_timer" in output
    assert "ERROR at teardown of test_listener" in output
    assert "3 passed, 1 skipped, 2 errors" in output
    assert "the program no-such-program is not installed" in output


def test_a_full_run_fails_for_an_absent_program(tmp_path: Path) -> None:
    """The pipeline installs all programs, so a skip there would hide a hole."""
    output = run_pytest(tmp_path, DCOSNET_TEST_REQUIRE="all")
    assert "1 failed, 3 passed, 2 errors" in output
