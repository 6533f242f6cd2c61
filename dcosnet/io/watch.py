"""
Watching a folder: "look again" whenever something in it may have changed.

It tells that, not what: who is called reads the folder as it is, so a lost
event costs nothing but time. Nothing here opens a file.

Why not `twisted.internet.inotify`: an overflow of the kernel's queue arrives
there for a watch that nobody has and is dropped without a word, and a watched
folder that is deleted takes all other watches with it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger()

# linux/inotify.h
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000

_ENTRIES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_FOLDER_MASK = _ENTRIES | IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
_ABOVE_MASK = _ENTRIES | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
_REPLACED = IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED

_HEADER = struct.Struct("=iIII")
_READ = 1 << 16

SETTLE = 0.1
"""Seconds given to what looks like a removal: editors rename the old file away before they write the new one."""
RESCAN = 30.0
"""Seconds between looks that nothing asked for: network file systems and links to elsewhere send no events."""
POLL = 1.0
"""Seconds between looks where inotify is not available."""


@attrs.frozen
class Event:
    """One event of inotify(7): the watch it came through, what happened, and to which name in there."""

    watch: int
    mask: int
    name: str = ""


def decode(data: bytes) -> Iterator[Event]:
    """The events in what one read(2) gave; the kernel gives whole ones."""
    at = 0
    while at + _HEADER.size <= len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        yield Event(watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length


@implementer(IReadDescriptor)
class Inotify:
    """An inotify instance as a reader of the reactor. Raises OSError where the kernel gives none."""

    def __init__(self, reactor: Any, receive: Callable[[Event], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._reactor = reactor
        self._receive = receive
        self._descriptor = self._call(self._libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        reactor.addReader(self)

    def watch(self, path: Path, mask: int) -> int:
        """Watch a folder. Raises OSError; the same folder again gives the same number."""
        return self._call(self._libc.inotify_add_watch, self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))

    def unwatch(self, watch: int) -> None:
        """End a watch; one that ended by itself is no error."""
        self._libc.inotify_rm_watch(self._descriptor, watch)

    def close(self) -> None:
        """Leave the reactor. Idempotent."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        for event in decode(data):
            if self._descriptor >= 0:
                self._receive(event)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted gives it
        self.close()

    def logPrefix(self) -> str:
        return "inotify"

    def _call(self, function: Callable[..., int], *arguments: Any) -> int:
        result = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def signatures(path: Path) -> Mapping[str, tuple[int, ...]]:
    """What stat(2) says of the folder's files, as links lead to them; empty for a folder that cannot be read."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        for name in os.listdir(path):  # noqa: PTH208 - names are all we want
            try:
                status = (path / name).stat()
            except OSError:
                continue
            found[name] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        return {}
    return found


class FolderWatch:
    """
    Calls `look` on a later turn whenever the folder's content may have changed.

    Also when the folder itself comes, goes or is replaced, when events were
    lost, and every `RESCAN` seconds. Never called at start: the first look is
    the caller's own. `important` says of which names a finished write is told
    on the next turn; all else waits for `SETTLE`.

    `busy` are the files that somebody writes in place at this moment: they are
    worth reading once they are closed.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        look: Callable[[], None],
        *,
        important: Callable[[str], bool] = lambda _name: True,
        inotify: Callable[[Any, Callable[[Event], None]], Inotify] = Inotify,
    ) -> None:
        self._reactor = reactor
        self._time: IReactorTime = reactor
        self._path = path
        self._look = look
        self._important = important
        self._open = inotify
        self._inotify: Inotify | None = None
        self._folder = -1
        self._above: tuple[int, str] = (-1, "")
        self._writing: dict[str, float] = {}
        self._signatures: Mapping[str, tuple[int, ...]] = {}
        self._call: IDelayedCall | None = None
        self._rescan: IDelayedCall | None = None
        self.mode = "off"
        self.overflows = 0

    @property
    def busy(self) -> frozenset[str]:
        """The names of files that are being written in place."""
        return frozenset(self._writing)

    def start(self) -> None:
        """Begin to watch; from now on no change stays unseen."""
        try:
            self._inotify = self._open(self._reactor, self._event)
            self._arm()
            self.mode = "inotify"
        except OSError as error:
            self._fall_back(error)
        self._schedule_rescan()

    def stop(self) -> None:
        """Leave nothing in the reactor. Idempotent."""
        for call in (self._call, self._rescan):
            if call is not None:
                call.cancel()
        self._call = self._rescan = None
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self.mode = "off"

    def _fall_back(self, error: OSError) -> None:
        log.warn(  # noqa: G010 - Twisted's name
            "inotify is not available ({reason}), so {path} is looked at by time", reason=error, path=self._path
        )
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._writing.clear()
        self._signatures = signatures(self._path)
        self.mode = "poll"

    def _arm(self) -> None:
        """Watch the folder, if it is there, and the nearest folder above, in which it may come or be replaced."""
        assert self._inotify is not None
        self._folder = self._try(self._path, _FOLDER_MASK)
        # A name in a lower folder than the one awaited says nothing; the
        # watch moves down step by step as folders come into being.
        child = self._path
        for above in self._path.parents:
            watch = self._try(above, _ABOVE_MASK)
            if watch != -1:
                if self._above[0] not in {watch, -1}:
                    self._inotify.unwatch(self._above[0])
                self._above = (watch, child.name)
                break
            child = above
        if self._folder == -1:
            # It may have come between the two, unseen by either.
            self._folder = self._try(self._path, _FOLDER_MASK)

    def _try(self, path: Path, mask: int) -> int:
        """The number of the watch, or -1 where the folder is not there or not ours to read."""
        assert self._inotify is not None
        try:
            return self._inotify.watch(path, mask)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return -1

    def _event(self, event: Event) -> None:
        if event.mask & IN_Q_OVERFLOW:
            self.overflows += 1
            log.warn("The kernel lost events of {path}, so it is read anew", path=self._path)  # noqa: G010 - Twisted's name
            self._replaced()
        elif event.watch == self._folder:
            self._in_folder(event)
        elif event.watch == self._above[0] and (event.mask & _REPLACED or event.name == self._above[1]):
            self._replaced()

    def _in_folder(self, event: Event) -> None:
        if event.mask & _REPLACED:
            self._replaced()
        elif event.mask & IN_MODIFY:
            self._writing[event.name] = self._time.seconds()
        else:
            if not event.mask & IN_ATTRIB:
                self._writing.pop(event.name, None)
            finished = event.mask & (IN_CLOSE_WRITE | IN_MOVED_TO)
            self._soon(0.0 if finished and self._important(event.name) else SETTLE)

    def _replaced(self) -> None:
        self._writing.clear()
        self._rearm()
        self._soon(SETTLE)

    def _rearm(self) -> None:
        """Watch what is there now. An old watch that leads elsewhere is ended first."""
        if self._inotify is None:
            return
        old = self._folder
        try:
            self._arm()
        except OSError as error:
            self._fall_back(error)
            return
        if old not in {self._folder, -1}:
            self._inotify.unwatch(old)

    def _soon(self, delay: float) -> None:
        if self._call is None:
            self._call = self._time.callLater(delay, self._tell)
        elif self._call.getTime() > self._time.seconds() + delay:
            self._call.reset(delay)

    def _tell(self) -> None:
        self._call = None
        self._look()

    def _schedule_rescan(self) -> None:
        self._rescan = self._time.callLater(POLL if self._inotify is None else RESCAN, self._rescan_now)

    def _rescan_now(self) -> None:
        if self._inotify is None:
            # A file that changed since the last look may be half-written.
            found = signatures(self._path)
            now = self._time.seconds()
            self._writing = {name: now for name, one in found.items() if self._signatures.get(name) != one}
            self._signatures = found
        else:
            # Who began to write and neither went on nor closed is not waited for.
            begun = self._time.seconds() - RESCAN
            self._writing = {name: at for name, at in self._writing.items() if at > begun}
            self._rearm()
        self._schedule_rescan()
        self._soon(0.0)
