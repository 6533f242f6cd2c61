"""A network namespace of a test's own: its addresses, routes, ports and packet filter are nobody else's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

_USER = [] if os.geteuid() == 0 else ["--map-root-user"]


class Namespace:
    """
    It lives as long as the process that was started in it; `there` says whether the kernel gave it.

    Without root it is in a user namespace of its own, or in that of `beside`: only
    there may network devices be moved between the two.
    """

    def __init__(self, unshare: str, nsenter: str, beside: Namespace | None = None) -> None:
        self._nsenter = nsenter
        self._spawned: list[subprocess.Popen[bytes]] = []
        before, user = ([], _USER) if beside is None else (beside.prefix(), [])
        self._holder = subprocess.Popen(
            [*before, unshare, *user, "--net", "sh", "-c", "echo; exec sleep 600"], stdout=-1
        )
        assert self._holder.stdout is not None
        self.there = self._holder.stdout.readline() == b"\n"

    @property
    def pid(self) -> int:
        """The process that holds it, by which `ip` knows it."""
        return self._holder.pid

    def prefix(self) -> list[str]:
        """What runs a program in here."""
        user = ["--user", "--preserve-credentials"] if _USER else []
        return [self._nsenter, "--target", str(self.pid), *user, "--net"]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix(), *shlex.split(command)], capture_output=True, text=True, timeout=30, check=False
        )

    def python(self, text: str) -> str:
        """What a program of Python prints in here."""
        argv = [*self.prefix(), sys.executable, "-c", text]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    def spawn(self, *arguments: str) -> None:
        """Start Python in here; it ends with the namespace."""
        argv = [*self.prefix(), sys.executable, *arguments]
        self._spawned.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def close(self) -> None:
        for process in self._spawned:
            process.kill()
            process.wait()
        self._holder.kill()
        self._holder.communicate()
