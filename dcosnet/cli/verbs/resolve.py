"""`dcosnet resolve`: what the node's own DNS server answers."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import click

from dcosnet.cli.failure import CommandError, Exit
from dcosnet.cli.output import print_json, print_table, printable
from dcosnet.cli.session import Session, pass_session
from dcosnet.config.fields import parse_duration
from dcosnet.model.net import Endpoint, parse_endpoint


@click.command("resolve", short_help="Ask the node's own DNS server.")
@click.argument("name")
@click.argument("rtype", metavar="[TYPE]", default="A")
@click.option("--timeout", default="5s", show_default=True, help="How long to wait for an answer.")
@click.pass_context
@pass_session
def command(session: Session, context: click.Context, name: str, rtype: str, timeout: str) -> None:
    """Ask the DNS server of the daemon for a name; exit code 1 for NXDOMAIN, SERVFAIL and other failures."""
    from dcosnet.cli.lookup import TYPES, ask
    from dcosnet.dns.wire import wire_of

    kind = TYPES.get(rtype.upper())
    if kind is None:
        raise click.UsageError(f"{rtype} is not a record type; known: {', '.join(TYPES)}")
    try:
        seconds = float(parse_duration(timeout))
        owner = (name if name.isascii() else name.encode("idna").decode()).removesuffix(".")
        wire_of(owner)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    server = _server(session.daemon().get("/v1/status"))
    try:
        reply = ask(server, owner, kind, seconds)
    except TimeoutError:
        why = f"{server} gave no answer within {timeout}"
        raise CommandError(Exit.TIMED_OUT, f"{name} was not answered", why, "see `dcosnet status`; ask again") from None
    except OSError as error:
        why = f"{server}: {error.strerror or error}"
        raise CommandError(Exit.UNREACHABLE, f"{name} was not answered", why, "see `dcosnet status`") from None
    except ValueError as error:
        raise CommandError(
            Exit.FAILED, f"{name} was not answered", f"the reply of {server} cannot be read: {error}", "ask it with dig"
        ) from None
    if session.json:
        error_told = None if reply.error_code is None else {"code": reply.error_code, "text": reply.error_text}
        answers = [{"name": line.name, "ttl": line.ttl, "type": line.type, "data": line.data} for line in reply.answers]
        print_json({"server": str(server), "rcode": reply.rcode, "answers": answers, "extended_error": error_told})
    elif reply.answers:
        rows = [[line.name, line.ttl, line.type, line.data] for line in reply.answers]
        print_table(["NAME", "TTL", "TYPE", "DATA"], rows)
    if not session.json and (reply.rcode != "NOERROR" or not reply.answers):
        why = f": {reply.error_text or f'extended error {reply.error_code}'}" if reply.error_code is not None else ""
        told = reply.rcode if reply.rcode != "NOERROR" else f"exists, and has no {rtype.upper()} record"
        click.echo(printable(f"{name}: {told}{why}"), err=True)
    if reply.rcode != "NOERROR":
        context.exit(Exit.FAILED)


def _server(status: dict[str, Any]) -> Endpoint:
    """Where the daemon says that its DNS server listens."""
    listen = status["parts"].get("dns", {}).get("facts", {}).get("listen", [])
    if not listen:
        raise CommandError(
            Exit.FAILED, f"{status['node']} serves no DNS", "its configuration has no table [dns]", "add one"
        )
    endpoint = parse_endpoint(listen[0])
    if endpoint.address.is_unspecified:
        return Endpoint(ip_address("127.0.0.1" if endpoint.address.version == 4 else "::1"), endpoint.port)
    return endpoint
