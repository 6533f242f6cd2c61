"""A real `twistd dcosnet` process for tests: started, asked over its UNIX socket, stopped by its own pid."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 20.0
"""Seconds until what does not come is a failure."""

PAUSE = 0.02
"""Seconds between two questions, as a person would ask again."""


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


HOST = """
[node]
name = "host-a"
address = "127.0.0.1"
state_dir = "state"
[files]
path = "services.d"
[ops]
listen = ["unix:api.sock:mode=600"]
[l4lb]
plane = "userspace"
"""
"""A host with services from files, and VIPs; settings of `[l4lb]` and more tables may follow."""


def named_vips() -> str:
    """The setting of `[l4lb]` that gives names addresses of `vip_net`."""
    return f'named_vips = ["{vip_net()}.1-{vip_net()}.250"]\n'


def free_port() -> int:
    """A port that nobody has now, neither of TCP nor of UDP, for programs that cannot be given port 0."""
    while True:
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", 0))
            port = int(stream.getsockname()[1])
            with suppress(OSError):
                datagrams.bind(("127.0.0.1", port))
                return port


def vip_net() -> str:
    """The first three parts of a network of 127/8 that this process alone uses for VIPs."""
    return f"127.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"


class Daemon:
    """One process with its configuration in `folder`; its state is in `folder`/state."""

    patience = PATIENCE
    pause = PAUSE

    def __init__(self, folder: Path, config: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.services = folder / "services.d"
        self.services.mkdir(exist_ok=True)
        self.config = folder / "dcosnet.toml"
        self.config.write_text(config)
        self.socket = folder / "state" / "api.sock"
        self.environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.passed: tuple[int, ...] = ()
        """Descriptors that the process is started with."""

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environment,
                pass_fds=self.passed,
            )

    @property
    def argv(self) -> list[str]:
        twistd = Path(sys.executable).with_name("twistd")
        return [str(twistd), "-n", "--pidfile=", "dcosnet", "-c", str(self.config)]

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it to its end, for a configuration that must not start."""
        return subprocess.run(
            self.argv, capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=60, check=False
        )

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self.process = None
        return code

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process = None

    def write(self, name: str, text: str) -> None:
        """Put a services file in place, atomically as an editor does."""
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.services / name)

    def get(self, path: str) -> tuple[int, Any]:
        """One question over the UNIX socket; JSON decoded where it is JSON."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """As `get`, with another method."""
        connection = _Unix(self.socket)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        kind = response.getheader("content-type") or ""
        return response.status, json.loads(body) if kind.startswith("application/json") else body.decode()

    def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Ask until the reply holds."""
        reply: Any = None

        def ask() -> bool:
            nonlocal reply
            try:
                status, reply = self.get(path)
            except OSError as error:
                reply = error
                return False
            return status == 200 and holds(reply)

        self.wait(ask, lambda: f"{path} gave at last: {reply}")
        return reply

    def wait(self, holds: Callable[[], bool], why: Callable[[], str] = str) -> None:
        """Look again and again until it holds; fail with the log when it never does or the process ends."""
        deadline = time.monotonic() + self.patience
        while not holds():
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                log = (self.folder / "log").read_text()[-4000:]
                raise AssertionError(f"{'the daemon ended' if ended else 'never'}: {why()}\n{log}")
            time.sleep(self.pause)

    def ready(self) -> dict[str, Any]:
        """Wait until every part is ready; the status then."""
        status: dict[str, Any] = self.until("/v1/status", lambda reply: bool(reply["ready"]))
        return status

    @property
    def dns(self) -> tuple[str, str]:
        """Address and port that its DNS server listens on."""
        address, _, port = self.ready()["parts"]["dns"]["facts"]["listen"][0].rpartition(":")
        return address, port
