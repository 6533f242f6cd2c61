"""`dcosnet run`: the daemon in the foreground."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from dcosnet.cli.session import Session, pass_session

# The program of this interpreter, wherever scripts were installed; -c puts the current directory on the path, -P not.
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


@click.command("run", short_help="Run the daemon in the foreground.")
@click.option("--set", "sets", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a setting.")
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
@pass_session
def command(session: Session, sets: Sequence[str], *, check: bool) -> None:
    """Run the daemon in the foreground, as `twistd -n dcosnet` does."""
    arguments = ["-n", "--pidfile=", "dcosnet"]
    if session.config is not None:
        arguments += ["-c", str(session.config)]
    for assignment in sets:
        arguments += ["--set", assignment]
    if check:
        arguments.append("--check")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-c", _TWISTD, *arguments])  # noqa: S606 - no shell is wanted
