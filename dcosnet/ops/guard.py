"""
Which requests over TCP are a browser led astray.

A page on the web can make its visitor's browser send requests to any address.
Two checks keep it from reading and from writing: a name that was rebound to
our address shows in Host, and a write from another site says so in
Sec-Fetch-Site. Who may connect at all is the listener's business.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from dcosnet.model.node import Node

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::[0-9]*)?")  # RFC 9110 7.2
SAFE_METHODS = frozenset({"GET", "HEAD"})


def own_names(node: Node) -> frozenset[str]:
    """The host names, lower case, under which a client may ask this node; addresses always do."""
    return frozenset({"localhost", node.name.lower().rstrip(".")})


def host_known(host: str | None, names: frozenset[str]) -> bool:
    """
    Whether a Host header is an address or a name of ours, with or without port.

    None (HTTP/1.0 has no such header) is known: every browser sends one.
    """
    if host is None:
        return True
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = (found[1] or found[2]).lower().rstrip(".")
    if name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def foreign_write(method: str, fetch_site: str | None) -> bool:
    """Whether a page of another site asks for a change (Fetch Metadata, Sec-Fetch-Site)."""
    return method not in SAFE_METHODS and (fetch_site or "").lower() == "cross-site"
