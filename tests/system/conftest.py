"""Real programs around a real daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import Daemon

pytestmark = pytest.mark.system


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[[str], Daemon]]:
    """A real process; killed at the end of the test if it still runs."""
    daemons = []

    def make(config: str) -> Daemon:
        daemons.append(Daemon(tmp_path, config))
        return daemons[-1]

    yield make
    for daemon in daemons:
        if daemon.process is not None:
            daemon.kill()


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a program; terminated by its own pid at the end of the test."""
    running = []

    def start(*argv: str) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.terminate()
        process.wait(20)
