"""`dcosnet check-config`: whether a daemon would take the configuration."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dcosnet.cli.output import print_json, printable
from dcosnet.cli.session import Session, pass_session


@click.command("check-config", short_help="Check the configuration.")
@click.option("--set", "sets", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a setting.")
@pass_session
def command(session: Session, sets: Sequence[str]) -> None:
    """Check the configuration; all that is wrong is told at once."""
    # Finding the plugins imports Twisted, which the other verbs do without.
    from twisted.internet import reactor

    from dcosnet.assemble import build, configure

    settings = configure(session.merged(sets))
    build(settings, reactor)
    if session.json:
        print_json({"valid": True, "tables": list(settings)})
        return
    where = str(session.main) if session.main is not None else "without a file, the configuration"
    click.echo(printable(f"{where} is valid; parts: {', '.join(name for name in settings if name != 'node')}"))
