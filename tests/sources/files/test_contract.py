"""The source `files` as a task source, in a folder that is looked at by time."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from dcosnet.io.watch import POLL
from dcosnet.model.node import Node
from dcosnet.sources.files.service import FilesSource
from dcosnet.testing.contracts.source import TaskSourceContract


def no_inotify(_reactor: Any, _receive: Callable[..., None]) -> NoReturn:
    raise OSError(24, "too many open files")


class FilesRig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        node = Node("n", ip_address("127.0.0.1"))
        off = lambda _reactor, run: maybeDeferred(run)
        self.source = FilesSource(self.clock, path, node, lambda: 0.5, off=off, inotify=no_inotify)

    def start(self) -> None:
        self.source.startService()

    def appear(self, name: str) -> None:
        (self.path / f"{name}.toml").write_text(f'[[service]]\nname = "{name}"\ngroup = "g"\n')
        self.pass_time()

    touch = appear

    def vanish(self, name: str) -> None:
        (self.path / f"{name}.toml").unlink()
        self.pass_time()

    def pass_time(self) -> None:
        """A file that changed is read when it has stood still from one look to the next."""
        for _ in range(3):
            self.clock.advance(POLL)
            self.clock.advance(0)


class TestFilesSource(TaskSourceContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> FilesRig:
        return FilesRig(tmp_path)


def test_a_missing_folder_is_silence(tmp_path: Path) -> None:
    """Not one fact, and the reason for people; it is read when it comes into being."""
    rig, told = FilesRig(tmp_path / "services.d"), []
    rig.source.watch(told.append)
    rig.start()
    rig.pass_time()
    assert told == []
    assert "is not there" in str(rig.source.unready())
    rig.path.mkdir()
    rig.appear("web")
    assert rig.source.unready() is None
    assert [task.name for task in told[-1].tasks.values()] == ["web"]


def test_what_is_wrong_is_counted_and_shown(tmp_path: Path) -> None:
    """In the status, and as a metric."""
    rig = FilesRig(tmp_path)
    (tmp_path / "a.toml").write_text("[[service]")
    rig.start()
    (problem,) = rig.source.status().problems
    assert problem.reference == "a.toml"
    assert {metric.name: metric.samples[0].value for metric in rig.source.collect()}["dcosnet_files_problems"] == 1
