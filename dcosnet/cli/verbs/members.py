"""`dcosnet members`: who belongs to the cluster, and who cannot be reached."""

from __future__ import annotations

from typing import Any

import click

from dcosnet.cli.failure import Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.fields import Duration


@click.command("members", short_help="Show the nodes of the cluster and how they fare.")
@click.pass_context
@pass_session
def command(session: Session, context: click.Context) -> None:
    """
    Show the members as this node sees them: since when, how far away, and who cannot reach them.

    Exit code 1 when one is unreachable, dead or degraded, or something else
    should be looked at; it follows the table. Who has left is no problem.
    """
    told = session.daemon().get("/v1/members")
    members = told["members"]
    if session.json:
        print_json(told)
    else:
        print_table(
            ["NAME", "STATE", "SINCE", "RTT", "ADDRESS", "ACCUSED BY"],
            [
                [
                    member["name"],
                    _state(member),
                    _ago(member["age_seconds"]),
                    _round_trip(member["rtt_seconds"]),
                    member["addresses"],
                    [f"{one['accuser']}({one['reason']}, {_ago(one['age_seconds'])})" for one in member["accused_by"]],
                ]
                for member in members
            ],
        )
        for line in _problems(told):
            click.echo(printable(line), err=True)
    if told["unsynced"] or told["refusals"] or any(not _well(member) for member in members):
        context.exit(Exit.FAILED)


def _well(member: dict[str, Any]) -> bool:
    return member["state"] in ("alive", "left") and not member["degraded"] and member["problem"] is None


def _state(member: dict[str, Any]) -> str:
    return "degraded" if member["degraded"] and member["state"] == "alive" else str(member["state"])


def _ago(seconds: float | None) -> str | None:
    return None if seconds is None else Duration(int(seconds)).text


def _round_trip(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.1f}ms"


def _problems(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['node']}: {told['unsynced']}"] if told["unsynced"] else []
    lines += [f"{member['name']}: {member['problem']}" for member in told["members"] if member["problem"] is not None]
    for one in told["refusals"]:
        refused = f"refused {told['node']}" if one["by"] == "peer" else "was refused"
        lines.append(f"{one['peer']} {refused} {_ago(one['age_seconds'])} ago (times: {one['count']}): {one['text']}")
    return lines
