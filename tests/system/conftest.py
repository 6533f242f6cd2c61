"""Real programs around a real daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import Daemon
from servers import Web, start_nginx

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


@pytest.fixture
def nginx(require_program: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[[str], Web]]:
    """Start a web server that answers with the name it is given."""
    program = require_program("nginx")
    running: list[Web] = []

    def start(name: str) -> Web:
        running.append(start_nginx(program, tmp_path / name, name))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait(20)
