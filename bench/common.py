"""
What the benchmarks share: the CPU time of a process tree, a question to a DNS server, and a table of ratios.

CPU per unit of work is compared, and not work per second, because it hardly
changes when the machine is busy with something else.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")

# Debian keeps servers where the search path of a user does not look.
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def processes(pid: int) -> Iterator[int]:
    """A process and all that it has started, and they."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue  # the thread ended meanwhile
        for child in found:
            yield from processes(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process tree so far; what has ended is not in it."""
    ticks = 0
    for process in processes(pid):
        try:
            text = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()  # the name before may hold anything
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def pin(pid: int, cpu: int) -> None:
    """Let a process tree, with all its threads, run on one CPU only."""
    for process in processes(pid):
        for thread in Path(f"/proc/{process}/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), {cpu})
            except OSError:
                continue


def start(command: Sequence[str], cpu: int, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program on one CPU; what it says goes nowhere unless the options say otherwise."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["taskset", "-c", str(cpu), *command], **(quiet | options))


def need(*programs: str) -> None:
    """End with the names of programs that are not installed, if there are any."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")


def query(name: str) -> bytes:
    """A DNS question for the IPv4 addresses of a name, with an id of chance."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", random.randrange(65536), 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def table(title: str, unit: str, samples: Mapping[str, Sequence[float]], reference: str | None = None) -> None:
    """Print medians, ranges, and ratios to the reference; the least comes first."""
    medians = {name: statistics.median(figures) for name, figures in samples.items()}
    base = medians.get(reference) if reference else None
    rounds = max(map(len, samples.values()))
    print(f"\n{title}: {unit}, median of {rounds}")
    for name in sorted(medians, key=medians.__getitem__):
        spread = f"{min(samples[name]):.2f} to {max(samples[name]):.2f}"
        ratio = f"{medians[name] / base:6.2f} of {reference}" if base else ""
        print(f"  {name:<16}{medians[name]:10.2f}   {spread:<18}{ratio}")
