"""Network namespaces of a test's own: their addresses, routes, ports and packet filters are nobody else's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable

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


class Lan:
    """
    A switch, and hosts on it with one interface each; what reaches a host is for its packet filter to say.

    `program` gives the path of one by its name.
    """

    def __init__(self, program: Callable[[str], str], hosts: int) -> None:
        self._ip, self._nft = program("ip"), program("nft")
        programs = program("unshare"), program("nsenter")
        self.switch = Namespace(*programs)
        self.hosts = [Namespace(*programs, beside=self.switch) for _ in range(hosts)] if self.switch.there else []
        self.there = all(one.there for one in (self.switch, *self.hosts)) and self._cable()

    def address(self, number: int) -> str:
        return f"10.99.0.{number + 1}"

    def _cable(self) -> bool:
        done = [
            self.switch.run(f"{self._ip} {command}")
            for command in ("link add switch type bridge", "link set switch up")
        ]
        for number, host in enumerate(self.hosts):
            done += [
                self.switch.run(f"{self._ip} link add port{number} type veth peer name eth0 netns {host.pid}"),
                self.switch.run(f"{self._ip} link set port{number} master switch up"),
                host.run(f"{self._ip} address add {self.address(number)}/24 dev eth0"),
                host.run(f"{self._ip} link set eth0 up"),
                host.run(f"{self._ip} link set lo up"),
                self.drop(number),
            ]
        return not any(one.returncode for one in done)

    def drop(self, number: int, *matches: str) -> subprocess.CompletedProcess[str]:
        """From now on this host loses, of all that comes to it over the network, the packets that match."""
        rules = "".join(f"; add rule inet lan arrives iif eth0 {match} counter drop" for match in matches)
        chain = "add table inet lan; add chain inet lan arrives { type filter hook input priority 0 ; }"
        return self.hosts[number].run(f"{self._nft} '{chain}; flush chain inet lan arrives{rules}'")

    def dropped(self, number: int) -> int:
        """How many packets it has lost since it was last told to."""
        return int(re.findall(r"packets (\d+)", self.hosts[number].run(f"{self._nft} list table inet lan").stdout)[0])

    def plug(self, number: int, state: str) -> None:
        """The cable of a host, "up" or "down"."""
        assert self.switch.run(f"{self._ip} link set port{number} {state}").returncode == 0

    def calm(self) -> None:
        for number in range(len(self.hosts)):
            assert self.drop(number).returncode == 0
            self.plug(number, "up")

    def close(self) -> None:
        for one in (*self.hosts, self.switch):
            one.close()
