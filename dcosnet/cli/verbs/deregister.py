"""`dcosnet deregister`: end a registration before its lease does."""

from __future__ import annotations

import click

from dcosnet.cli.output import print_json, printable
from dcosnet.cli.registration import registration_path
from dcosnet.cli.session import Session, pass_session


@click.command("deregister", short_help="End a registration.")
@click.argument("name")
@click.option("--group", required=True, help="The group that it was registered in.")
@click.option("--instance", default="", help="Which of several services of one name.")
@pass_session
def command(session: Session, name: str, group: str, instance: str) -> None:
    """End the registration of a service; exit code 1 when there is none."""
    reply = session.local_daemon().request("DELETE", registration_path(name, group, instance))
    if session.json:
        print_json(reply)
    else:
        click.echo(printable(f"{name} in {group} is deregistered"))
