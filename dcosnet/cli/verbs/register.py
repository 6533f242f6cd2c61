"""`dcosnet register`: a service for a while, or for as long as a program runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from dcosnet.cli.api import Api, TransientError
from dcosnet.cli.failure import CommandError
from dcosnet.cli.output import print_json, printable
from dcosnet.cli.registration import document, registration_path, service_path
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.fields import parse_duration

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells say it
# A daemon that restarts is back within seconds; the lease is shorter than people are patient.
_RETRY = 1.0
# Short, because signals to the program wait as long.
_TIMEOUT = 2.0


@click.command("register", short_help="Register a service, also while a program runs.")
@click.argument("name")
@click.option("--group", required=True, help="The group; it takes the place of a framework in names.")
@click.option("--address", required=True, help="The address that the service listens on.")
@click.option("--port", "ports", multiple=True, metavar="PORT[/tcp|udp[/NAME]]", help="A port; may be repeated.")
@click.option("--vip", "vips", multiple=True, metavar="[PORT=]LABEL", help='A VIP of the port, "/web:8000".')
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be repeated.")
@click.option("--ttl", default="60s", show_default=True, help="How long the registration lives without renewal.")
@click.option("--instance", default="", help="Tells several services of one name apart.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD ARGS...]")
@click.pass_context
@pass_session
def command(
    session: Session,
    context: click.Context,
    name: str,
    group: str,
    address: str,
    ports: Sequence[str],
    vips: Sequence[str],
    labels: Sequence[str],
    ttl: str,
    instance: str,
    program: Sequence[str],
) -> None:
    """
    Register a service with the daemon of this host.

    With a program, the registration is renewed while it runs and ends with it;
    the exit code is the program's.
    """
    try:
        seconds = float(parse_duration(ttl))
        body = document(
            group=group, address=address, ports=ports, vips=vips, labels=labels, ttl=seconds, instance=instance
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    registration = Registration(session.local_daemon(_TIMEOUT), name, body)
    if program:
        context.exit(_run(registration, program, seconds / 3))
    reply = registration.put()
    if session.json:
        print_json(reply)
    else:
        click.echo(printable(f"{name} in {group} is registered for {ttl}"))


class Registration:
    """A service at the daemon. What fails while a program runs is told once, until it works again."""

    def __init__(self, daemon: Api, name: str, body: dict[str, Any]) -> None:
        self._daemon = daemon
        self._name = name
        self._body = body
        self._told = False

    def put(self) -> Any:
        """Make or renew it."""
        return self._daemon.request("PUT", service_path(self._name), self._body)

    def delete(self) -> Any:
        """End it."""
        path = registration_path(self._name, self._body["group"], self._body["instance"])
        return self._daemon.request("DELETE", path)

    def attempt(self, step: Callable[[], Any], then: str) -> bool:
        """Whether a step worked; if not, that is told with what happens `then`."""
        try:
            step()
        except CommandError as error:
            if not self._told:
                error.show()
                click.echo(printable(f"dcosnet: {self._name} is not registered now; {then}"), err=True)
            self._told = True
            return False
        self._told = False
        return True


def _run(registration: Registration, program: Sequence[str], interval: float) -> int:
    """Run the program with its registration; a daemon that is away does not keep it from starting."""
    from dcosnet.cli import child

    def put_first() -> None:
        try:
            registration.put()
        except TransientError:
            raise
        except CommandError as refused:
            # It would be refused again: better no service than one that nobody finds.
            refused.show()
            sys.exit(refused.code)

    def renew() -> float:
        return interval if registration.attempt(registration.put, "trying on") else min(interval, _RETRY)

    registered = registration.attempt(put_first, "trying on")
    first = interval if registered else min(interval, _RETRY)
    try:
        return child.run(program, renew, lambda: _end(registration), first)
    except OSError as error:
        _end(registration)
        click.echo(printable(f"dcosnet: {program[0]} cannot be run: {error.strerror}"), err=True)
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE


def _end(registration: Registration) -> None:
    registration.attempt(registration.delete, "what is left of it ends with its lease")
