"""`dcosnet status`: the node and its parts."""

from __future__ import annotations

import click

from dcosnet.cli.failure import Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.fields import Duration


@click.command("status", short_help="Show the node and its parts.")
@click.pass_context
@pass_session
def command(session: Session, context: click.Context) -> None:
    """Show whether the node is ready, and what each of its parts says; exit code 1 unless all is well."""
    status = session.daemon().get("/v1/status")
    problems = [(name, each) for name, part in status["parts"].items() for each in part["facts"].get("problems", ())]
    if session.json:
        print_json(status)
    else:
        uptime = Duration(int(status["uptime_seconds"])).text
        ready = "ready" if status["ready"] else "NOT READY"
        click.echo(printable(f"{status['node']}: {ready}, dcosnet {status['version']}, up {uptime}"))
        parts = status["parts"].items()
        print_table(
            ["PART", "READY", "LISTENS", "REASON"],
            [[name, part["ready"], part["facts"].get("listen"), part["reason"]] for name, part in parts],
        )
        for name, facts in ((name, part["facts"]) for name, part in parts):
            if "plane" in facts:
                able = ", ".join(facts["able"])
                click.echo(printable(f"{name}: plane {facts['plane']}, {facts['reason']}; able: {able}"))
        for name, problem in problems:
            click.echo(printable(f"{name}: {problem['subject']}: {problem['reason']}"))
    if problems or not status["ready"]:
        context.exit(Exit.FAILED)
