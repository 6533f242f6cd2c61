"""
Stream listeners from endpoint strings, bound before twistd goes on.

A port in use or a missing permission is one line at start, with its remedy.
UNIX sockets are ours from the first moment in the mode that was asked for: the
file of a dead daemon is replaced, that of a living one is an error.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, ENOENT
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from dcosnet.errors import ConfigError, DcosnetError
from dcosnet.io.quiet import quietly

_PORT_MAX = 65535  # 0 is any that is free
_PATH_MAX = 107  # bytes of sun_path without its final zero, unix(7)

_REMEDIES = {
    EADDRINUSE: "stop what listens there, or change",
    EADDRNOTAVAIL: "this host does not have that address; change",
    EACCES: "start with the privilege for it, or change",
    ENOENT: "make that directory or file, or change",
}

_SHAPES = "tcp:PORT:interface=ADDRESS or unix:PATH:mode=660"


class ListenError(DcosnetError):
    """An address that could not be bound: which, why, and what to do."""

    def __init__(self, address: str, reason: str, remedy: str) -> None:
        super().__init__(address, reason, remedy)
        self.address = address
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.reason}; {self.remedy}"


@attrs.frozen
class Socket:
    """
    Where to listen: an endpoint string, or a UNIX socket's path and mode.

    `setting` is the dotted key it came from, for errors.
    """

    text: str
    setting: str
    path: Path | None = None
    mode: int = 0o600


def parse_socket(text: str, setting: str, base: Path, default_mode: int) -> Socket:
    """
    Read "unix:PATH:mode=660" or any other server endpoint string of Twisted.

    A relative PATH is taken against `base`. Raises ConfigError. Of endpoints
    that are neither TCP nor UNIX, what is wrong shows when they are bound.
    """
    kind, *fields = (field.replace("\\:", ":") for field in re.split(r"(?<!\\):", text))
    if kind in ("tcp", "tcp6"):
        _check_tcp(text, fields, setting)
    if kind != "unix":
        return Socket(text, setting)
    path, mode = "", default_mode
    for position, field in enumerate(fields):
        key, equals, value = field.partition("=")
        if equals and key == "mode" and re.fullmatch(r"0?[0-7]{3}", value):
            mode = int(value, 8)
        elif equals and key == "address":
            path = value
        elif position == 0 and field and not field.startswith("mode="):
            path = field
        else:
            raise ConfigError(setting, f"{field!r} in {text!r} is not understood; write unix:PATH:mode=660")
    if not path:
        raise ConfigError(setting, f"{text!r} has no path; write unix:PATH:mode=660")
    full = Path(os.path.normpath(base / path))
    if len(os.fsencode(full)) > _PATH_MAX:
        raise ConfigError(setting, f"{full} is longer than the {_PATH_MAX} bytes that a UNIX socket's path may have")
    return Socket(f"unix:{full}", setting, full, mode)


def _check_tcp(text: str, fields: Sequence[str], setting: str) -> None:
    """A port that no socket has is refused here: binding it is an OverflowError, or another port."""
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    port = named.get("port", fields[0] if fields and "=" not in fields[0] else "")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _PORT_MAX:
        raise ConfigError(setting, f"{port!r} in {text!r} is no port, 0 to {_PORT_MAX}; write {_SHAPES}")


class ListeningService(Service):
    """
    Listens with one factory on several sockets from privileged start to stop.

    Either all are bound, or none and ListenError is raised.
    """

    log = Logger()

    def __init__(self, reactor: Any, sockets: Sequence[Socket], factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._factory = factory
        self._ports: list[IListeningPort] = []

    @property
    def addresses(self) -> list[str]:
        """Where it listens now: "127.0.0.1:62080", "[::1]:62080", "unix:/run/dcosnet/api.sock"."""
        return [_address(port) for port in self._ports]

    def privilegedStartService(self) -> None:
        """Bind, while the privilege for it is there."""
        try:
            for each in self._sockets:
                self._ports.append(_bind(self._reactor, each, self._factory))
        except ListenError:
            for port in self._ports:
                port.stopListening()
            self._ports = []
            raise
        for address in self.addresses:
            self.log.info("listening on {address}", address=address)

    def startService(self) -> None:
        """Bind what privileged start did not, as when a service is added to a running process."""
        if not self._ports:
            self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """Stop listening; the files of UNIX sockets are gone when this fires."""
        super().stopService()
        ports, self._ports = self._ports, []
        return DeferredList([_stopped(port) for port in ports])


def _stopped(port: IListeningPort) -> Deferred[None]:
    done: Deferred[None] = Deferred.fromCoroutine(_stop(port))
    return done.addErrback(lambda failure: ListeningService.log.failure("could not stop listening", failure))


async def _stop(port: IListeningPort) -> None:
    stopped = port.stopListening()
    if stopped is not None:
        await stopped


def _address(port: IListeningPort) -> str:
    host = port.getHost()
    if isinstance(host, UNIXAddress):
        return f"unix:{os.fsdecode(host.name or b'')}"
    name, number = getattr(host, "host", ""), getattr(host, "port", 0)
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"


def _bind(reactor: Any, where: Socket, factory: IProtocolFactory) -> IListeningPort:
    try:
        if where.path is not None:
            return _bind_unix(reactor, where, where.path, factory)
        results: list[IListeningPort | Failure] = []
        quietly(serverFromString(reactor, where.text).listen, factory).addBoth(results.append)
        # Endpoints of streams that we own bind at once; one that does not
        # would be ready after the privilege is gone.
        if not results:
            raise ListenError(where.text, "it binds later, not at start", f"change {where.setting}")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        assert not isinstance(results[0], Failure)
        return results[0]
    except CannotListenError as error:
        raise _explained(where, error.socketError) from None
    except OSError as error:
        raise _explained(where, error) from None
    except (ValueError, TypeError, KeyError) as error:
        # What Twisted raises for an endpoint string that it cannot read.
        reason = str(error) or type(error).__name__
        raise ListenError(repr(where.text), reason, f"write {_SHAPES} in {where.setting}") from None


def _bind_unix(reactor: Any, where: Socket, path: Path, factory: IProtocolFactory) -> IListeningPort:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    _clear(path, where)
    with _umask(0o777 & ~where.mode):  # no moment in which others may connect
        port: IListeningPort = quietly(reactor.listenUNIX, str(path), factory, mode=where.mode)
    return port


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def _clear(path: Path, where: Socket) -> None:
    """Remove the socket file of a daemon that is no more. Raises ListenError if it lives."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(where.text, "a file that is not a socket is there", f"move it, or change {where.setting}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one with a full backlog lives, too
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise ListenError(where.text, "another process listens there", f"stop it, or change {where.setting}")


def _explained(where: Socket, error: OSError) -> ListenError:
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "change")
    return ListenError(where.text, reason, f"{remedy} {where.setting}")
