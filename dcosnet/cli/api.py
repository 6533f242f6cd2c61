"""
The daemon's HTTP interface, asked with the standard library.

One short request and one whole reply; every way to fail is a CommandError with
its exit code.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from dcosnet.cli.addresses import ApiAddress, TcpAddress, UnixAddress
from dcosnet.cli.failure import CommandError, Exit

# A reply of the largest cluster that we know of is 60 MB; beyond this it is not the daemon that answers.
_REPLY_MAX = 256 << 20


class TransientError(CommandError):
    """Nobody answered, or a daemon that is busy: another try of the same may help."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        # The host of the request: what a daemon that checks it takes for local.
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Asks the first of some addresses that can be connected to; `timeout` in seconds for each wait."""

    def __init__(self, addresses: Sequence[ApiAddress], timeout: float = 10.0) -> None:
        assert addresses
        self._addresses = addresses
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """The document at a path."""
        return self.request("GET", path)

    def request(self, method: str, path: str, document: Any = None) -> Any:
        """Send a document, give the reply's."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        failures: list[tuple[ApiAddress, OSError]] = []
        for address in self._addresses:
            connection = _connection(address, self._timeout)
            try:
                connection.connect()
            except OSError as error:
                failures.append((address, error))
                connection.close()
                continue
            try:
                connection.request(method, path, body, headers)
                reply = connection.getresponse()
                return _document(address, reply.status, reply.read(_REPLY_MAX))
            except TimeoutError:
                raise _slow(address) from None
            except (OSError, http.client.HTTPException) as error:
                why = f"it closed the connection in the middle of an answer ({type(error).__name__})"
                remedy = "look at its log; it may be restarting"
                raise TransientError(
                    Exit.UNREACHABLE, f"the daemon at {address} does not answer", why, remedy
                ) from None
            finally:
                connection.close()
        raise _unreachable(failures)


def _connection(address: ApiAddress, timeout: float) -> http.client.HTTPConnection:
    if isinstance(address, UnixAddress):
        return _UnixConnection(str(address.path), timeout)
    assert isinstance(address, TcpAddress)
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout)


def _document(address: ApiAddress, status: int, body: bytes) -> Any:
    """The reply's document, or the error that it tells."""
    try:
        document = json.loads(body) if body else None
    except ValueError:
        document = body[:200].decode(errors="replace")
        if status < 400:
            why = f"its answer is no JSON: {document[:60]!r}"
            raise CommandError(
                Exit.FAILED, f"{address} is not a dcosnet daemon", why, "give the daemon's address with --api"
            ) from None
    if status < 400:
        return document
    told = document if isinstance(document, dict) else {}
    raise (TransientError if status == http.HTTPStatus.SERVICE_UNAVAILABLE else CommandError)(
        Exit.FORBIDDEN if status in (401, 403) else Exit.FAILED,
        str(told.get("error", f"the daemon at {address} refused")),
        str(told.get("reason", f"it answered with HTTP status {status}")),
        str(told.get("remedy", "look at its log")),
    )


def _slow(address: ApiAddress) -> CommandError:
    return TransientError(
        Exit.TIMED_OUT,
        f"the daemon at {address} does not answer in time",
        "it is connected, and silent",
        "look at its log and its load; dcosnet_* metrics of the reactor tell of stalls",
    )


def _unreachable(failures: Iterable[tuple[ApiAddress, OSError]]) -> CommandError:
    told = "; ".join(f"{address}: {error.strerror or error}" for address, error in failures)
    errors = [error for _, error in failures]
    if any(isinstance(error, PermissionError) for error in errors):
        return CommandError(
            Exit.FORBIDDEN, "the daemon's socket may not be used", told, "run as root or as a member of its group"
        )
    if all(isinstance(error, TimeoutError) for error in errors):
        return TransientError(Exit.TIMED_OUT, "the daemon could not be connected to in time", told, "check --api")
    return TransientError(
        Exit.UNREACHABLE,
        "the daemon is not reachable",
        told,
        "start it (`dcosnet run`, or its service), or name it with --api or its configuration with -c",
    )
