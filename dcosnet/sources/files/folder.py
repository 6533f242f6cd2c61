"""
What the folder has told so far: last good contents, and which services stand.

Pure: a `Look` goes in, services and problems come out. A file that broke keeps
its last good content; a folder that cannot be read keeps everything. Reading
files is `io/files`'s business, watching them `io/watch`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dcosnet.model.facts import Problem
from dcosnet.model.task import TaskId
from dcosnet.sources.files.services import Content
from dcosnet.sources.services import Service


@attrs.frozen
class Unchanged:
    """The file is there and was not read again: it did not change, or is just being written."""


@attrs.frozen
class Unreadable:
    """The file is there and could not be read: why, and what to do."""

    reason: str


@attrs.frozen
class Look:
    """
    One look at the folder: every file that is there, by name.

    `failure` says why the folder could not be read; then `files` means nothing.
    `omitted` are files beyond the limit.
    """

    files: Mapping[str, Content | Unreadable | Unchanged] = attrs.field(factory=dict)
    failure: str | None = None
    omitted: tuple[str, ...] = ()


@attrs.frozen
class Standing:
    """A service that stands, and the file that tells of it."""

    service: Service
    file: str


class Folder:
    """All looks so far, folded. `synced` once the folder was read for the first time."""

    def __init__(self, path: str, source: str, node: str) -> None:
        self._path = path
        self._source = source
        self._node = node
        self._good: dict[str, tuple[Service, ...]] = {}
        self._broken: dict[str, tuple[Problem, ...]] = {}
        self._failure: Problem | None = None
        self._omitted: tuple[Problem, ...] = ()
        self._refused: tuple[Problem, ...] = ()
        self.synced = False
        self.standing: Mapping[TaskId, Standing] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that could not be used, by file; what concerns the whole folder first."""
        failure = (self._failure,) if self._failure is not None else ()
        broken = (problem for _, problems in sorted(self._broken.items()) for problem in problems)
        return (*failure, *self._omitted, *broken, *self._refused)

    def take(self, look: Look) -> bool:
        """Fold in a look. Whether the services that stand changed, or the folder became synced."""
        if look.failure is not None:
            self._failure = Problem(self._path, look.failure)
            return False
        self._failure = None
        self._omitted = tuple(Problem(name, "is beyond the limit of files; join some") for name in look.omitted)
        for gone in [name for name in self._good if name not in look.files]:
            del self._good[gone]
        for gone in [name for name in self._broken if name not in look.files]:
            del self._broken[gone]
        for name, found in look.files.items():
            self._file(name, found)
        before, self.standing = self.standing, self._stand()
        became, self.synced = not self.synced, True
        return became or before != self.standing

    def _file(self, name: str, found: Content | Unreadable | Unchanged) -> None:
        match found:
            case Content(services, ()):
                self._good[name] = services
                self._broken.pop(name, None)
            case Content(_, flaws):
                self._broken[name] = tuple(Problem(name, f"{flaw}{self._kept(name)}") for flaw in flaws)
            case Unreadable(reason):
                self._broken[name] = (Problem(name, f"{reason}{self._kept(name)}"),)
            case Unchanged():
                pass

    def _kept(self, name: str) -> str:
        return " (its last good content stays)" if name in self._good else " (nothing of this file is used)"

    def _stand(self) -> dict[TaskId, Standing]:
        """
        Which services stand where several have one identity.

        The file that had it before keeps it, else the first by name; within a
        file the first.
        """
        standing: dict[TaskId, Standing] = {}
        refused: list[Problem] = []
        for name, services in sorted(self._good.items()):
            for service in services:
                self._place(Standing(service, name), standing, refused)
        self._refused = tuple(refused)
        return standing

    def _place(self, candidate: Standing, standing: dict[TaskId, Standing], refused: list[Problem]) -> None:
        identity = candidate.service.id(self._source, self._node)
        present = standing.get(identity)
        if present is None:
            standing[identity] = candidate
            return
        held = self.standing.get(identity)
        if held is not None and held.file == candidate.file != present.file:
            standing[identity], candidate, present = candidate, present, candidate
        service = candidate.service
        place = f"{service.name}.{service.group}"
        refused.append(Problem(candidate.file, f"{place} is in {present.file} already; give each an `instance`"))
