"""
Which requests over TCP are a browser led astray.

A page on the web can make its visitor's browser send requests to any address.
Two checks keep it from reading and from writing: a name that was rebound to
our address shows in Host, and a write from another site says so in
Sec-Fetch-Site. Who may connect at all is the listener's business.
"""

from __future__ import annotations

from ipaddress import ip_address

from dcosnet.model.node import Node

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
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
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
