"""`dcosnet sources`: where the node's tasks come from."""

from __future__ import annotations

import click

from dcosnet.cli.failure import Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session


@click.command("sources", short_help="Show where tasks come from.")
@click.pass_context
@pass_session
def command(session: Session, context: click.Context) -> None:
    """Show the sources of tasks and what they could not use; exit code 1 when one is not synced or has problems."""
    sources = session.daemon().get("/v1/sources")
    if session.json:
        print_json(sources)
    else:
        rows = [[one["name"], one["synced"], one["tasks"], len(one["problems"]), one["detail"]] for one in sources]
        print_table(["SOURCE", "SYNCED", "TASKS", "PROBLEMS", "DETAIL"], rows)
        for source in sources:
            for problem in source["problems"]:
                click.echo(printable(f"{source['name']}: {problem['reference']}: {problem['reason']}"), err=True)
    if any(source["problems"] or not source["synced"] for source in sources):
        context.exit(Exit.FAILED)
