"""
How a verb fails: an exit code and three lines, never a traceback.

The codes are an interface: scripts decide by them.
"""

from __future__ import annotations

from enum import IntEnum

import click

from dcosnet.cli.output import printable


class Exit(IntEnum):
    """What the exit code of the command says."""

    OK = 0
    FAILED = 1
    INVALID = 2
    UNREACHABLE = 3
    FORBIDDEN = 4
    TIMED_OUT = 5


class CommandError(Exception):
    """What failed, why, and what to do about it; one line each."""

    def __init__(self, code: Exit, what: str, why: str, remedy: str) -> None:
        super().__init__(code, what, why, remedy)
        self.code = code
        self.lines = (what, f"  why: {why}", f"  try: {remedy}")

    def show(self) -> None:
        """Print the lines on the error output."""
        for line in self.lines:
            click.echo(printable(line), err=True)
