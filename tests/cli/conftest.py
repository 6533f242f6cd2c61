"""A daemon that is none: fixed replies over HTTP, in a thread, on a port or a UNIX socket."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from dcosnet.cli.command import dcosnet


@attrs.define
class FakeDaemon:
    """
    Replies by "METHOD path"; each request is put into `requests` as (method, path with query, document).

    A list of replies is given one by one, the last one again and again.
    """

    url: str
    replies: dict[str, tuple[int, Any] | list[tuple[int, Any]]] = attrs.field(factory=dict)
    requests: queue.Queue[tuple[str, str, Any]] = attrs.field(factory=queue.Queue)

    def asked(self) -> tuple[str, str, Any]:
        """The next request, in the order they came."""
        return self.requests.get(timeout=30)


def _handler(replies: Callable[[], FakeDaemon]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            daemon = replies()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            daemon.requests.put((self.command, self.path, json.loads(body) if body else None))
            path = self.path.partition("?")[0]
            reply = daemon.replies.get(f"{self.command} {path}", (404, {"error": "no such thing"}))
            if isinstance(reply, list):
                reply = reply.pop(0) if len(reply) > 1 else reply[0]
            status, document = reply
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None: ...

    return Handler


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("unix", 0)  # the handler wants to know the client


def _serve(server: socketserver.BaseServer, daemon: FakeDaemon) -> Iterator[FakeDaemon]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield daemon
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """A daemon on a TCP port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: fake))
    fake = FakeDaemon(f"http://127.0.0.1:{server.server_port}")
    yield from _serve(server, fake)


@pytest.fixture
def local_daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon on a UNIX socket."""
    server = _UnixServer(str(tmp_path / "api.sock"), _handler(lambda: fake))
    fake = FakeDaemon(f"unix:{tmp_path / 'api.sock'}")
    yield from _serve(server, fake)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process, without what the environment says of daemons and settings."""
    import os

    for name in list(os.environ):
        if name.startswith("DCOSNET_"):
            monkeypatch.delenv(name)
    return lambda *arguments: CliRunner().invoke(dcosnet, [str(one) for one in arguments])
