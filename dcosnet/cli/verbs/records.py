"""`dcosnet records`: what the node's own zones hold."""

from __future__ import annotations

from urllib.parse import quote

import click

from dcosnet.cli.output import print_json, print_table
from dcosnet.cli.session import Session, pass_session


@click.command("records", short_help="Show what the node's zones hold.")
@click.argument("glob", required=False)
@pass_session
def command(session: Session, glob: str | None) -> None:
    """Show the addresses and services in the node's zones, or those whose names match GLOB ("web.*")."""
    records = session.daemon().get("/v1/records" if glob is None else f"/v1/records?name={quote(glob, safe='')}")
    if session.json:
        print_json(records)
        return
    print_table(["NAME", "TYPE", "DATA"], [[one["name"], one["rtype"], one["host"]] for one in records])
