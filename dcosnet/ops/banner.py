"""
What the demonstration prints: lines that can be pasted and work.

Pure: what the parts say of themselves in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePath
from typing import Any

import attrs

from dcosnet.model.net import Address, Endpoint, Protocol, parse_endpoint
from dcosnet.model.snapshot import Owned
from dcosnet.model.task import Task
from dcosnet.model.vip import Vip
from dcosnet.model.viplabels import dns_name


@attrs.frozen
class Example:
    """A named VIP that answers: its name, one of its addresses, and the files that its tasks come from."""

    name: str
    address: Address
    port: int
    origins: tuple[str, ...] = ()


def origins(vip: Vip, tasks: Iterable[Owned[Task]]) -> tuple[str, ...]:
    """The files in which the tasks of a VIP's framework are written, sorted; other sources have none to edit."""
    return tuple(
        sorted(
            {
                owned.value.provenance.reference
                for owned in tasks
                if owned.value.framework == vip.key.framework and owned.value.provenance.source == "files"
            }
        )
    )


def pick(
    vips: Mapping[str, Vip], addresses: Mapping[str, Sequence[Address]], tasks: Sequence[Owned[Task]]
) -> Example | None:
    """
    The first named TCP VIP with an address, or None while there is none.

    `addresses` are those of the l4lb zone by name: a VIP is there once it is applied.
    """
    for vip in sorted(vips.values(), key=lambda vip: vip.key.sort_key):
        name = dns_name(vip.key)
        if vip.key.protocol is Protocol.TCP and name is not None and addresses.get(name):
            return Example(name, addresses[name][0], vip.key.port, origins(vip, tasks))
    return None


def connectable(listen: object) -> Endpoint | None:
    """The first of a part's listening addresses that a client can use, or None; a wildcard means loopback."""
    for text in listen if isinstance(listen, list | tuple) else ():
        try:
            endpoint = parse_endpoint(str(text))
        except ValueError:
            continue  # a UNIX socket
        if endpoint.address.is_unspecified:
            loopback = ip_address("127.0.0.1" if endpoint.address.version == 4 else "::1")
            return Endpoint(loopback, endpoint.port)
        return endpoint
    return None


def banner(example: Example, facts: Mapping[str, Mapping[str, Any]], here: PurePath | None = None) -> str:
    """
    The text for an example; `facts` is what the toolbox's `describe` gives. What would not work is left out.

    Files below `here`, where the reader stands, are told from there.
    """
    lines = ["", "dcosnet is ready."]
    web = connectable(facts.get("ops", {}).get("listen"))
    if web is not None:
        lines += ["", "  Status page:", f"    http://{web}/"]
    lines += ["", "  Paste into another terminal:"]
    dns = connectable(facts.get("dns", {}).get("listen"))
    if dns is not None:
        lines.append(f"    dig @{dns.address} -p {dns.port} {example.name} +short")
    lines.append(f"    curl http://{Endpoint(example.address, example.port)}/")
    if example.origins:
        folder = PurePath(facts.get("files", {}).get("path", ""))  # origins are file names within it
        if here is not None and folder.is_relative_to(here):
            folder = folder.relative_to(here)
        lines += ["", "  Then edit, and paste again:", *(f"    {folder / origin}" for origin in example.origins)]
    lines += ["", "  Control-C ends it.", ""]
    return "\n".join(lines) + "\n"
