"""
Where the masters are, and which one leads: a list, a file with a list, ZooKeeper.

Whoever asks gets what was known last: a file that broke or an ensemble that is
gone takes nothing away. kazoo works in threads of its own; all that it finds
comes to the reactor's turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import attrs
import msgspec
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.io.files import off_reactor
from dcosnet.model.facts import Problem
from dcosnet.sources.mesos.access import base_url
from dcosnet.sources.mesos.masterinfo import PORT, Elected, Master, ZooKeeper, elected, is_candidate

log = Logger()

LOOK = 30.0
"""Seconds between readings of a list, and between looks at an ensemble that refused one."""
SESSION = 10.0
"""Seconds of a ZooKeeper session."""

_LIST_LIMIT = 1 << 20
# kazoo's own error has no text.
_NO_AUTH = "may be read by others only; give their user and password, zk://user:password@..., in mesos.zk"
# Between tries to reach an ensemble; kazoo adds its own jitter.
_FIRST_TRY, _LAST_TRY = 0.5, 15.0


@attrs.frozen
class Known:
    """Masters as base URLs, in order; `epoch` counts elections, 0 where nobody does."""

    masters: tuple[str, ...] = ()
    leader: str | None = None
    epoch: int = 0


class Watch(Protocol):
    """
    One way to learn of masters. `known` is None until it was heard once.

    `problems` is what is wrong now. `heard_at` is when it was last in order, in
    the reactor's seconds; None while it is.
    """

    known: Known | None
    problems: tuple[Problem, ...]
    heard_at: float | None

    def start(self, changed: Callable[[], None]) -> None:
        """Begin; `changed` is called whenever any of the fields is another."""

    def stop(self) -> Deferred[None]:
        """End, and call nothing any more."""


class Masters:
    """All masters that the settings lead to."""

    def __init__(self, plain: Sequence[str], watches: Sequence[Watch]) -> None:
        self._plain = tuple(plain)
        self._watches = tuple(watches)

    @property
    def known(self) -> Known | None:
        """All together, the leader of the one that tells it; None until all were heard."""
        found = [watch.known for watch in self._watches]
        heard = [known for known in found if known is not None]
        if len(heard) < len(found):
            return None
        every = [*self._plain, *(master for known in heard for master in known.masters)]
        led = max(heard, key=lambda known: (known.leader is not None, known.epoch), default=Known())
        return Known(tuple(dict.fromkeys(every)), led.leader, led.epoch)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any of the ways."""
        return tuple(problem for watch in self._watches for problem in watch.problems)

    @property
    def elects(self) -> bool:
        """Whether there is a way that tells who leads."""
        return any(isinstance(watch, ZooKeeperWatch) for watch in self._watches)

    def stale(self, now: float) -> float:
        """Seconds since the ways to learn of masters were all in order."""
        return max((now - watch.heard_at for watch in self._watches if watch.heard_at is not None), default=0.0)

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to watch."""
        for watch in self._watches:
            watch.start(changed)

    def stop(self) -> Deferred[None]:
        """Watch no more."""
        stopped = defer.DeferredList([watch.stop() for watch in self._watches])
        return stopped.addCallback(lambda _: None)


class MasterList:
    """A file with a JSON list: addresses, "host:port" or whole URLs. Read every half minute."""

    def __init__(
        self,
        reactor: Any,
        path: Path,
        scheme: str,
        *,
        off: Callable[[Any, Callable[[], bytes]], Deferred[bytes]] = off_reactor,
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._scheme = scheme
        self._off = off
        self._changed: Callable[[], None] | None = None
        self._call: IDelayedCall | None = None
        self._reading: Deferred[None] = defer.succeed(None)
        self.known: Known | None = None
        self.problems: tuple[Problem, ...] = ()
        self.heard_at: float | None = None

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.heard_at = self._reactor.seconds()
        self._look()

    def stop(self) -> Deferred[None]:
        self._changed = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        return self._reading

    def _look(self) -> None:
        self._call = None
        reading = self._off(self._reactor, lambda: _read(self._path))
        taken: Deferred[None] = reading.addCallbacks(self._take, lambda failure: self._refuse(failure.value))
        self._reading = taken.addErrback(self._mistaken).addCallback(self._look_later)

    def _take(self, data: bytes) -> None:
        try:
            masters = read_list(data, self._scheme)
        except ValueError as error:
            self._refuse(error)
            return
        self._report(Known(masters), ())

    def _mistaken(self, failure: Failure) -> None:
        log.failure("Taking {path} failed; it is read again", failure, path=self._path)
        reason = f"a mistake of ours, which the log tells: {failure.value!r}"
        self.problems = (Problem(str(self._path), reason),)

    def _look_later(self, _: None) -> None:
        if self._changed is not None:
            self._call = self._reactor.callLater(LOOK, self._look)

    def _refuse(self, error: BaseException) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self._report(self.known, (Problem(str(self._path), f"{reason}; what it said before stays"),))

    def _report(self, known: Known | None, problems: tuple[Problem, ...]) -> None:
        if self._changed is None:
            return
        before, self.known, self.problems = (self.known, self.problems), known, problems
        if not problems:
            self.heard_at = None
        elif self.heard_at is None:
            self.heard_at = self._reactor.seconds()
        if before != (known, problems):
            _log_problems(str(self._path), problems)
            self._changed()


def read_list(data: bytes, scheme: str) -> tuple[str, ...]:
    """The base URLs that a JSON list of masters means. Raises ValueError."""
    try:
        found = msgspec.json.decode(data, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is not a JSON list of texts: {error}") from error
    if not found:
        raise ValueError("names no master")
    return tuple(_url(each, scheme) for each in found)


def _url(text: str, scheme: str) -> str:
    if "://" in text:
        return base_url(text)
    bare_v6 = text.count(":") > 1 and not text.startswith("[")
    host = f"[{text}]" if bare_v6 else text
    has_port = host.rpartition(":")[2].isdigit() and not host.endswith("]")
    return base_url(f"{scheme}://{host}" if has_port else f"{scheme}://{host}:{PORT}")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LIST_LIMIT + 1)
    if len(data) > _LIST_LIMIT:
        raise ValueError(f"is larger than {_LIST_LIMIT >> 20} MiB")
    return data


class ZooKeeperWatch:
    """
    The masters that stand for election below a path of ZooKeeper.

    `connect` makes a client that has not started, as `kazoo_client` does.
    """

    def __init__(
        self, reactor: Any, zookeeper: ZooKeeper, scheme: str, *, connect: Callable[[ZooKeeper], Any] | None = None
    ) -> None:
        self._reactor = reactor
        self._zookeeper = zookeeper
        self._scheme = scheme
        self._connect = connect or kazoo_client
        self._changed: Callable[[], None] | None = None
        self._client: Any = None
        self._looking = Lock()
        self._connected = False
        self._call: IDelayedCall | None = None
        self._name = f"zk://{zookeeper.hosts}{zookeeper.path}"
        self.known: Known | None = None
        self.problems: tuple[Problem, ...] = (Problem(self._name, "is not reached yet"),)
        self.heard_at: float | None = None
        self.losses = 0

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.heard_at = self._reactor.seconds()
        self._client = self._connect(self._zookeeper)
        self._client.add_listener(self._state)
        self._client.start_async()

    def stop(self) -> Deferred[None]:
        if self._changed is None:
            return defer.succeed(None)
        self._changed = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        # Waits for kazoo's threads.
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._client_end)

    def _client_end(self) -> None:
        self._client.stop()
        self._client.close()

    # In kazoo's threads. A listener and a watch must not wait.

    def _state(self, state: str) -> None:
        connected = state == "CONNECTED"
        self._reactor.callFromThread(self._heard, connected)
        if connected:
            self._client.handler.spawn(self._look)

    def _touched(self, event: Any) -> None:
        if event.path:  # others tell of the session, as `_state` does
            self._client.handler.spawn(self._look)

    def _look(self) -> None:
        from kazoo.exceptions import KazooException, NoAuthError, NoNodeError

        # One at a time, so that no older look overtakes a newer one.
        with self._looking:
            try:
                nodes = self._nodes(NoNodeError)
            except NoAuthError:
                self._reactor.callFromThread(self._failed, _NO_AUTH)
            except (KazooException, OSError, self._client.handler.timeout_exception) as error:
                self._reactor.callFromThread(self._failed, str(error) or type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a mistake of ours costs one look; it shows
                # Its watches may not be set: without another look nobody would hear of a leader any more.
                log.failure("Looking at {name} failed; it is looked at again", name=self._name)
                self._reactor.callFromThread(self._failed, f"a mistake of ours, which the log tells: {error!r}")
            else:
                self._reactor.callFromThread(self._take, nodes)

    def _nodes(self, gone: type[Exception]) -> Mapping[str, bytes]:
        """The candidates and what they left, watched from now on."""
        path, nodes = self._zookeeper.path, {}
        if self._client.exists(path, watch=self._touched) is None:
            return {}
        for name in self._client.get_children(path, watch=self._touched):
            if is_candidate(name):
                try:
                    nodes[name], _ = self._client.get(f"{path}/{name}")
                except gone:
                    continue  # it was there a moment ago; the watch tells
        return nodes

    # In the reactor.

    def _heard(self, connected: bool) -> None:
        if self._changed is None:
            return
        was, self._connected = self._connected, connected
        if connected:
            return  # well again once it was looked at
        if was:
            self.losses += 1
        self._report(self.known, (Problem(self._name, "ZooKeeper cannot be reached; what it said before stays"),))

    def _failed(self, reason: str) -> None:
        if self._changed is None or not self._connected:
            return  # `_state` tells of the connection, and looks again
        self._report(self.known, (Problem(self._name, f"{reason}; what it said before stays"),))
        if self._call is None:
            self._call = self._reactor.callLater(LOOK, self._again)

    def _again(self) -> None:
        self._call = None
        self._client.handler.spawn(self._look)

    def _take(self, nodes: Mapping[str, bytes]) -> None:
        if self._changed is None:
            return
        found = elected(nodes)
        problems = tuple(Problem(f"{self._name}/{each.reference}", each.reason) for each in found.problems)
        if not found.masters:
            # An election is under way, or nobody can be read: those known before may be back.
            problems = (*problems, Problem(self._name, "no master stands for election"))
        self._report(self._known(found), problems)

    def _known(self, found: Elected) -> Known:
        before = self.known or Known()
        masters = tuple(_master_url(master, self._scheme) for master in found.masters) or before.masters
        leader = _master_url(found.leader, self._scheme) if found.leader is not None else None
        return Known(masters, leader, max(found.epoch, before.epoch))

    def _report(self, known: Known | None, problems: tuple[Problem, ...]) -> None:
        assert self._changed is not None
        before, self.known, self.problems = (self.known, self.problems), known, problems
        if not problems:
            self.heard_at = None
        elif self.heard_at is None:
            self.heard_at = self._reactor.seconds()
        if before != (known, problems):
            _log_problems(self._name, problems)
            self._changed()


def _master_url(master: Master, scheme: str) -> str:
    host = f"[{master.host}]" if ":" in master.host else master.host
    return f"{scheme}://{host}:{master.port}"


def _log_problems(name: str, problems: Iterable[Problem]) -> None:
    for problem in problems:
        log.warn(  # noqa: G010 - it is Twisted's
            "{reference}: {reason}", reference=problem.reference, reason=problem.reason
        )
    if not problems:
        log.info("{name} tells of the masters", name=name)


def kazoo_client(zookeeper: ZooKeeper) -> Any:
    """A client that tries for ever. Raises ImportError where kazoo is not installed."""
    from kazoo.client import KazooClient
    from kazoo.retry import KazooRetry

    # kazoo tells each try; one that counts is told by us.
    quiet = logging.getLogger("dcosnet.kazoo")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return KazooClient(
        hosts=zookeeper.hosts,
        timeout=SESSION,
        auth_data=[("digest", zookeeper.credentials)] if zookeeper.credentials is not None else None,
        connection_retry=KazooRetry(max_tries=-1, delay=_FIRST_TRY, max_delay=_LAST_TRY),
        logger=quiet,
    )
