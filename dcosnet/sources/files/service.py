"""
The source `files` in the reactor: look, fold, check, tell.

A look reads and parses in a thread; what it found is folded here, on the
reactor's turn. One look runs at a time; whatever happens meanwhile asks for one
more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IMetrics, ITaskSource
from dcosnet.io.drive import Drive
from dcosnet.io.files import FolderRead, Signature, off_reactor, read_folder
from dcosnet.io.watch import Event, FolderWatch, Inotify
from dcosnet.model.facts import Facts, Problem, SourceStatus
from dcosnet.model.metric import Metric, Sample
from dcosnet.model.node import Node
from dcosnet.model.task import TaskId
from dcosnet.sources.files.checks import Checks, HealthChanged, Outcome, Probe
from dcosnet.sources.files.folder import Folder, Look, Unchanged, Unreadable
from dcosnet.sources.files.probe import probe
from dcosnet.sources.files.services import Content, is_service_file, parse
from dcosnet.sources.services import Reader

log = Logger()

Found = tuple[FolderRead, Look]
"""What the thread gives back: the files as read, and what they say."""

SOURCE = "files"
_FILE_LIMIT = 1 << 20
_COUNT_LIMIT = 1024


@implementer(ITaskSource, IMetrics)
class FilesSource(TwistedService):
    """
    Tells the services of a folder, each with the health that its check found.

    `off` runs what blocks, `inotify` opens a descriptor or raises OSError.
    """

    name = SOURCE

    def __init__(
        self,
        reactor: Any,
        path: Path,
        node: Node,
        jitter: Callable[[], float],
        *,
        off: Callable[[Any, Callable[[], Found]], Deferred[Found]] = off_reactor,
        inotify: Callable[[Any, Callable[[Event], None]], Inotify] = Inotify,
    ) -> None:
        self._reactor = reactor
        self._off = off
        self._path = path
        self._node = node
        self._reader = Reader(SOURCE, node.name, node.address, checks=True)
        self._folder = Folder(str(path), SOURCE, node.name)
        self._checks = Checks(jitter)
        self._drive: Drive[Outcome, Probe, HealthChanged] = Drive(
            self._checks, reactor, send=self._probe, tell=self._health_changed, name="files.checks"
        )
        self._watch = FolderWatch(reactor, path, self.look, important=_important, inotify=inotify)
        self._sink: Callable[[Facts], None] | None = None
        self._facts = Facts()
        self._signatures: dict[str, Signature | None] = {}
        self._looking: Deferred[None] | None = None
        self._look_again = False
        self._probing: dict[int, Deferred[Outcome]] = {}
        self._changed_at: float | None = None
        self._logged: tuple[Problem, ...] = ()

    # ITaskSource

    def watch(self, sink: Callable[[Facts], None]) -> None:
        self._sink = sink

    def status(self) -> SourceStatus:
        return SourceStatus(
            synced=self._folder.synced,
            detail=f"{self._path} ({self._watch.mode})",
            tasks=len(self._facts.tasks),
            changed_at=self._changed_at,
            problems=self._folder.problems,
        )

    # IMetrics

    def collect(self) -> Iterator[Metric]:
        yield Metric(
            "dcosnet_files_services",
            "Services that stand in the folder's files.",
            "gauge",
            (Sample(len(self._facts.tasks)),),
        )
        yield Metric(
            "dcosnet_files_problems",
            "What is wrong in the folder's files now.",
            "gauge",
            (Sample(len(self._folder.problems)),),
        )
        results = [Sample(count, {"result": str(result)}) for result, count in self._checks.results.items()]
        yield Metric("dcosnet_files_checks_total", "Active checks made, by what became of them.", "counter", results)
        yield Metric(
            "dcosnet_files_check_failures_total",
            "Times that the scheduling of checks failed and went on.",
            "counter",
            (Sample(self._drive.failures),),
        )
        yield Metric(
            "dcosnet_files_watch_overflows_total",
            "Times that the kernel lost events and the folder was read anew.",
            "counter",
            (Sample(self._watch.overflows),),
        )

    # IService

    def startService(self) -> None:
        super().startService()
        self._watch.start()
        self._drive.start()
        self.look()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._watch.stop()
        self._drive.stop()
        for probing in list(self._probing.values()):
            probing.cancel()
        # What a look finds from now on is dropped; its thread is waited for.
        return self._looking

    def unready(self) -> str | None:
        """None once the folder was read, else why not."""
        if self._folder.synced:
            return None
        problems = self._folder.problems
        return f"{problems[0].reference}: {problems[0].reason}" if problems else f"{self._path} is not read yet"

    def describe(self) -> dict[str, Any]:
        """For `/v1/status`."""
        return {"path": str(self._path), "watched by": self._watch.mode}

    def look(self) -> None:
        """Read the folder as it is; while a look runs, once more after it."""
        if self._looking is not None:
            self._look_again = True
            return
        run = partial(_read, self._path, dict(self._signatures), self._watch.busy, self._reader)
        self._looking = looking = self._off(self._reactor, run).addCallback(self._take)
        looking.addErrback(self._failed).addBoth(self._looked)

    def _take(self, found: Found) -> None:
        if not self.running:
            return
        folder, look = found
        if look.failure is None:
            self._signatures = {name: self._signatures.get(name) for name in folder.same} | {
                name: read.signature for name, read in folder.read.items()
            }
        changed = self._folder.take(look)
        self._log_problems()
        if changed:
            standing = self._folder.standing
            checks = {task: one.service.check for task, one in standing.items() if one.service.check is not None}
            self._drive.do(partial(self._checks.want, checks))
            self._tell()

    def _failed(self, failure: Failure) -> None:
        log.failure("Looking at {path} failed", failure, path=self._path)

    def _looked(self, _result: None) -> None:
        self._looking = None
        if self._look_again:
            self._look_again = False
            if self.running:
                self.look()

    def _log_problems(self) -> None:
        problems = self._folder.problems
        for problem in problems:
            if problem not in self._logged:
                log.error("{reference}: {reason}", reference=problem.reference, reason=problem.reason)
        if self._logged and not problems:
            log.info("All of {path} is well again", path=self._path)
        self._logged = problems

    def _tell(self) -> None:
        """Give the sink the whole facts, if they are others than before."""
        now = self._reactor.seconds()
        tasks = {
            task: one.service.task(SOURCE, self._node.name, one.file, self._checks.health(task), now)
            for task, one in self._folder.standing.items()
        }
        if self._changed_at is not None and tasks == self._facts.tasks:
            return
        self._facts = Facts(tasks)
        self._changed_at = now
        if self._sink is not None:
            self._sink(self._facts)

    def _probe(self, made: Probe) -> None:
        self._probing[made.number] = probing = probe(self._reactor, made)
        probing.addCallback(self._probed, made)

    def _probed(self, outcome: Outcome, made: Probe) -> None:
        self._probing.pop(made.number, None)
        self._drive.feed(outcome)

    def _health_changed(self, event: HealthChanged) -> None:
        log.info("{task} became {health}: {detail}", task=_name(event.task), health=event.health, detail=event.detail)
        self._tell()


def _name(task: TaskId) -> str:
    return f"{task.framework}/{task.task}"


def _important(name: str) -> bool:
    """Names whose change is what somebody waits for: service files, and the link of a mounted ConfigMap."""
    return is_service_file(name) or name == "..data"


def _read(path: Path, known: dict[str, Signature | None], busy: frozenset[str], reader: Reader) -> Found:
    """Look at the folder; runs in a thread and touches nothing of the source."""
    folder = read_folder(path, is_service_file, known, busy=busy, size_limit=_FILE_LIMIT, count_limit=_COUNT_LIMIT)
    files: dict[str, Content | Unreadable | Unchanged] = {name: Unchanged() for name in folder.same}
    for name, read in folder.read.items():
        files[name] = Unreadable(read.failure) if read.failure is not None else parse(name, read.data, reader)
    return folder, Look(files, folder.failure, folder.omitted)
