"""`dcosnet vips`: the virtual addresses and their backends."""

from __future__ import annotations

from typing import Any

import click

from dcosnet.cli.output import print_json, print_table
from dcosnet.cli.session import Session, pass_session


@click.command("vips", short_help="Show the VIPs and their backends.")
@pass_session
def command(session: Session) -> None:
    """Show the VIPs with their addresses and backends; one that drains is marked."""
    vips = session.daemon().get("/v1/vips?detail")
    if session.json:
        print_json(vips)
        return
    print_table(
        ["VIP", "PROTOCOL", "ADDRESS", "BACKENDS"],
        [[vip["vip"], vip["protocol"], vip["address"], [_backend(one) for one in vip["backend"]]] for vip in vips],
    )


def _backend(backend: dict[str, Any]) -> str:
    ip = f"[{backend['ip']}]" if ":" in backend["ip"] else backend["ip"]
    weight = "" if backend["weight"] == 1 else f"*{backend['weight']}"
    return f"{ip}:{backend['port']}" + ("(drains)" if backend["draining"] else weight)
