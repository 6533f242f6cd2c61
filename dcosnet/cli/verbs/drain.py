"""`dcosnet drain`: take something out of service, and see how far it has come."""

from __future__ import annotations

import getpass
import time
from typing import Any
from urllib.parse import quote

import click

from dcosnet.cli.api import Api
from dcosnet.cli.failure import CommandError, Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.fields import Duration, parse_duration

_INTERVAL = 1.0  # as often as nodes tell
_UNSEEN = 10  # times that a new drain may not be listed yet: a daemon with much to read takes seconds


@click.command("drain", short_help="Take a backend, host, service or task out of service; list what drains.")
@click.argument("what", required=False)
@click.option("--note", default="", help="Why; shown to everybody who asks.")
@click.option("--wait", is_flag=True, help="Follow it until no flow is left anywhere.")
@click.option("--timeout", default=None, metavar="DURATION", help="How long to wait; without it for ever.")
@click.option("--end", is_flag=True, help="Put it back into service.")
@click.pass_context
@pass_session
def command(
    session: Session, context: click.Context, what: str | None, note: str, wait: bool, timeout: str | None, end: bool
) -> None:
    """
    Drain WHAT on all hosts: it gets no new connections, and keeps those it has.

    WHAT is ADDRESS:PORT or tcp/ADDRESS:PORT for a backend, a node or an address
    for all backends that a host runs, SERVICE.GROUP or the id of a task. In
    full, where a name may mean several: host/NAME, service/GROUP/NAME,
    task/FRAMEWORK/ID. Without WHAT all drains are listed.

    With --wait the exit code is 0 once nothing is left, and 5 when the time is
    over before.
    """
    if what is None:
        if note or wait or timeout or end:
            raise click.UsageError("WHAT is missing; `dcosnet drain` alone lists what drains")
        _list(session)
        return
    if not what:
        raise click.UsageError("WHAT is empty")
    if end and (note or wait or timeout):
        raise click.UsageError("--end stands alone")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout needs --wait")
    try:
        seconds = None if timeout is None else float(parse_duration(timeout))
    except ValueError as error:
        raise click.UsageError(f"--timeout: {error}") from None
    daemon = session.local_daemon()
    if end:
        reply = daemon.request("DELETE", f"/v1/drains/{quote(what, safe='')}")
        _say(session, reply, f"{reply['what']} is drained no longer")
        return
    reply = daemon.request("POST", "/v1/drains", {"what": what, "note": note, "user": _user()})
    if not wait:
        _say(session, reply, f"{reply['what']} drains; see `dcosnet drain`")
        return
    if not session.json:
        click.echo(printable(f"{reply['what']} drains"))
    context.exit(_follow(session, daemon, reply["what"], seconds))


def _user() -> str:
    try:
        return getpass.getuser()[:64]
    except (KeyError, OSError):
        return ""  # a process of a user without a name, as in a container


def _say(session: Session, reply: Any, line: str) -> None:
    if session.json:
        print_json(reply)
    else:
        click.echo(printable(line))


def _list(session: Session) -> None:
    told = session.daemon().get("/v1/drains")
    if session.json:
        print_json(told)
        return
    now = time.time()
    print_table(
        ["WHAT", "FOR", "BY", "BACKENDS", "FLOWS", "HERE", "STATE", "NOTE"],
        [
            [
                one["what"],
                Duration(max(0, int(now - one["since"]))).text,
                f"{one['user'] or '?'}@{one['node']}",
                len(one["backends"]),
                one["flows"],
                one["flows_here"],
                _state(one),
                one["note"],
            ]
            for one in told["drains"]
        ],
    )
    for one in told["drains"]:
        for vip in one["emptied"]:
            click.echo(printable(f"{vip}: all its backends drain, so new connections are refused"), err=True)


def _state(drain: Any) -> str:
    """Whether it is done, or what is missing."""
    if drain["drained"]:
        return "drained" if drain["backends"] else "drained (it has no backends)"
    if drain["taking"]:
        return f"{', '.join(drain['taking'])}: still given new flows"
    left = [f"{one['node']} {one['flows']}" for one in drain["nodes"] if one["flows"]]
    silent = [f"{name} has not told" for name in drain["silent"]]
    return ", ".join([*left, *silent])


def _follow(session: Session, daemon: Api, what: str, seconds: float | None) -> int:
    """Ask until nothing is left; a line whenever that changes."""
    end = None if seconds is None else time.monotonic() + seconds
    said = None
    unseen = _UNSEEN
    while True:
        told = next((one for one in daemon.get("/v1/drains")["drains"] if one["what"] == what), None)
        over = end is not None and time.monotonic() >= end
        if told is None and unseen:
            unseen -= 1
            time.sleep(_INTERVAL)
            continue
        unseen = 0
        if told is None:
            raise CommandError(Exit.FAILED, f"{what} is not drained", "somebody ended it", "look at `dcosnet drain`")
        line = f"{told['flows']} left" + ("" if told["drained"] else f": {_state(told)}")
        if session.json:
            if told["drained"] or over:
                print_json(told)
        elif line != said:
            click.echo(printable(_state(told) if told["drained"] else line))
            said = line
        if told["drained"]:
            return Exit.OK
        if over:
            why = _state(told)
            remedy = f"it goes on draining: wait again, or put it back with `dcosnet drain --end {what}`"
            raise CommandError(Exit.TIMED_OUT, f"{what} is not drained yet", why, remedy)
        time.sleep(_INTERVAL if end is None else max(0.0, min(_INTERVAL, end - time.monotonic())))
