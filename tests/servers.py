"""Real servers that tests put behind names and VIPs: nginx and Knot."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import attrs
from daemon import PATIENCE, free_port

HERE = "127.0.0.1"


@attrs.frozen
class Web:
    """A web server of one process, which answers with its name."""

    name: str
    port: int
    process: subprocess.Popen[bytes]


def start_nginx(program: str, folder: Path, name: str) -> Web:
    """Start one that listens when this returns; of one process, so that a kill leaves nobody who holds the socket."""
    folder.mkdir()
    port = free_port()
    paths = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {paths} keepalive_requests 1000000;\n"
        f'server {{ listen {HERE}:{port} backlog=511; location / {{ return 200 "{name}\\n"; }} }} }}\n'
    )
    process = subprocess.Popen(
        [program, "-c", str(folder / "nginx.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if not probe.connect_ex((HERE, port)):
                return Web(name, port, process)
    process.kill()
    process.wait()
    raise AssertionError((folder / "error.log").read_text())


def write_knot(folder: Path, port: int, zone: str) -> str:
    """The path of a configuration of Knot with a zone `example` of these records beside SOA and NS."""
    (folder / "example.zone").write_text(f"@ 60 SOA ns root 1 60 60 600 60\n@ 60 NS ns\n{zone}")
    path = folder / "knot.conf"
    path.write_text(
        f"server:\n  listen: {HERE}@{port}\n  rundir: {folder}\ndatabase:\n  storage: {folder}\n"
        f"zone:\n  - domain: example\n    storage: {folder}\n    file: example.zone\n    zonefile-sync: -1\n"
        "    journal-content: none\n"
    )
    return str(path)
