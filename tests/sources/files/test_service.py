"""The source `files` with the real reactor, the kernel's events and real checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from dcosnet.model.facts import Facts
from dcosnet.model.node import Node
from dcosnet.model.task import Health, Task
from dcosnet.sources.files.service import FilesSource


class Told:
    """The facts told last, and a wait for those that fit."""

    def __init__(self, path: Path) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.facts: list[Facts] = []
        self.waiting: tuple[Callable[[list[Task]], bool], Deferred[None]] | None = None
        self.source = FilesSource(reactor, path, Node("n", ip_address("127.0.0.1")), lambda: 0.5)
        self.source.watch(self.take)
        self.source.startService()

    def take(self, facts: Facts) -> None:
        self.facts.append(facts)
        if self.waiting is not None and self.waiting[0](list(facts.tasks.values())):
            (_, waiting), self.waiting = self.waiting, None
            waiting.callback(None)

    async def until(self, fits: Callable[[list[Task]], bool]) -> None:
        if not (self.facts and fits(list(self.facts[-1].tasks.values()))):
            self.waiting = (fits, Deferred())
            await self.waiting[1].addTimeout(10, self.reactor)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    pytest_twisted.blockon(maybeDeferred(told.source.stopService))


def text(name: str, more: str = "") -> str:
    return f'[[service]]\nname = "{name}"\ngroup = "g"\n{more}'


@pytest_twisted.ensureDeferred
async def test_files_come_change_break_and_go(told: Told, tmp_path: Path) -> None:
    """The life of a file, written in place and by rename."""
    (tmp_path / "a.toml").write_text(text("web"))
    await told.until(lambda tasks: [task.name for task in tasks] == ["web"])
    (tmp_path / "new").write_text(text("db"))
    (tmp_path / "new").rename(tmp_path / "a.toml")
    await told.until(lambda tasks: [task.name for task in tasks] == ["db"])
    (tmp_path / "a.toml").write_text("[[broken")
    (tmp_path / "b.toml").write_text(text("other"))
    await told.until(lambda tasks: sorted(task.name for task in tasks) == ["db", "other"])
    (tmp_path / "a.toml").unlink()
    await told.until(lambda tasks: [task.name for task in tasks] == ["other"])
    assert told.source.status().problems == ()


@pytest_twisted.ensureDeferred
async def test_a_check_decides_on_health(told: Told, tmp_path: Path) -> None:
    """Unhealthy until something answers, and again when nothing does."""
    listening: Any = told.reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    port = listening.getHost().port
    check = f'ports = [{{ port = {port} }}]\ncheck = {{ tcp = true, interval = "100ms" }}\n'
    (tmp_path / "a.toml").write_text(text("web", check))
    await told.until(lambda tasks: [task.health for task in tasks] == [Health.HEALTHY])
    states = [task.health for facts in told.facts for task in facts.tasks.values()]
    assert states == [Health.UNHEALTHY, Health.HEALTHY]
    await listening.stopListening()
    await told.until(lambda tasks: [task.health for task in tasks] == [Health.UNHEALTHY])
