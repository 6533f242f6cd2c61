"""`dcosnet show-config`: the settings in effect, and where each comes from."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

import click

from dcosnet.cli.output import print_json
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.show import show


@click.command("show-config", short_help="Show the settings in effect.")
@click.option("--set", "sets", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a setting.")
@pass_session
def command(session: Session, sets: Sequence[str]) -> None:
    """Show the settings in effect, each with its origin; secrets are hidden."""
    from dcosnet.assemble import configure

    merged = session.merged(sets)
    text = show(merged, configure(merged))
    if session.json:
        print_json(tomllib.loads(text))
    else:
        click.echo(text, nl=False)
