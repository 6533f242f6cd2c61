"""
What `register` sends: a service's document out of options, and where it goes.

The daemon judges the values; only what cannot be put into the document is
refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp)(?:/(.+))?)?")
_VIP_OF_PORT = re.compile(r"([0-9]{1,5})=(.+)")


def registration_path(name: str, group: str, instance: str) -> str:
    """Where a registration is ended."""
    return f"{service_path(name)}?{urlencode({'group': group, 'instance': instance})}"


def service_path(name: str) -> str:
    """Where a service is registered."""
    return f"/v1/register/{quote(name, safe='')}"


def document(
    *,
    group: str,
    address: str,
    ports: Sequence[str],
    vips: Sequence[str],
    labels: Sequence[str],
    ttl: float,
    instance: str,
) -> dict[str, Any]:
    """
    The body of a registration.

    A port is "8001", "8001/udp" or "8001/tcp/NAME". A VIP is a label for the
    one port, or "8001=LABEL" where there are several. Raises ValueError.
    """
    tables = [_port(text) for text in ports]
    for text in vips:
        of_port = _VIP_OF_PORT.fullmatch(text)
        if of_port is None and len(tables) != 1:
            raise ValueError(f"--vip {text}: there are {len(tables)} ports; write --vip PORT={text}")
        wanted = tables if of_port is None else [table for table in tables if table["port"] == int(of_port[1])]
        if not wanted:
            raise ValueError(f"--vip {text}: there is no such --port")
        for table in wanted:
            table["vip"].append(text if of_port is None else of_port[2])
    pairs = [text.partition("=") for text in labels]
    for key, equals, _ in pairs:
        if not (key and equals):
            raise ValueError(f"--label {key}: write --label KEY=VALUE")
    return {
        "group": group,
        "address": address,
        "ports": tables,
        "labels": {key: value for key, _, value in pairs},
        "ttl": ttl,
        "instance": instance,
    }


def _port(text: str) -> dict[str, Any]:
    match = _PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"--port {text}: write 8001, 8001/udp or 8001/tcp/NAME")
    table: dict[str, Any] = {"port": int(match[1]), "protocol": match[2] or "tcp", "vip": []}
    return table | ({"name": match[3]} if match[3] else {})
