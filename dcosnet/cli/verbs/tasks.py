"""`dcosnet tasks`: the tasks that the node knows of."""

from __future__ import annotations

from typing import Any

import click

from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session


@click.command("tasks", short_help="Show the tasks.")
@pass_session
def command(session: Session) -> None:
    """Show the tasks, where they run, how they fare and who told of them; `drain` takes an ID."""
    tasks = session.daemon().get("/v1/tasks")
    if session.json:
        print_json(tasks)
        return
    print_table(
        ["NAME", "FRAMEWORK", "AGENT", "ADDRESSES", "PORTS", "STATE", "HEALTH", "WEIGHT", "SOURCE", "ID"],
        [
            [
                task["name"],
                task["framework"],
                task["agent"],
                task["addresses"],
                [_port(port) for port in task["ports"]],
                task["state"],
                task["health"],
                task["weight"],
                task["provenance"]["source"],
                task["id"]["task"],
            ]
            for task in tasks
        ],
    )
    for task in tasks:
        for problem in task["problems"]:
            click.echo(printable(f"{task['name']} of {task['framework']}: {problem['reason']}"), err=True)


def _port(port: dict[str, Any]) -> str:
    return f"{port['port'] or port['host_port']}/{port['protocol']}"
