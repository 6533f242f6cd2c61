"""
What certificates call a node: `dcosnet:<name>.<cluster>`, a URI.

Whoever answers at an address must prove the name; the address proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

# What service-identity takes for a host in a URI, with a first letter that keeps it from being an option.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
# Without dots: of "a.b.c" it must be plain which part is the cluster.
_CLUSTER = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SCHEME = "dcosnet:"


@attrs.frozen
class Identity:
    """A node of a cluster."""

    name: str
    cluster: str

    @property
    def uri(self) -> str:
        """As it stands in the certificate."""
        return f"{_SCHEME}{self.name}.{self.cluster}"

    def __str__(self) -> str:
        return f"{self.name} of the cluster {self.cluster}"


def check_name(name: str) -> str:
    """The same name, if a certificate can carry it. Raises ValueError with a sentence for people."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot stand in a certificate; use letters, digits, '.', '-' and '_'")
    return name


def check_cluster(cluster: str) -> str:
    """The same name of a cluster. Raises ValueError with a sentence for people."""
    if not _CLUSTER.fullmatch(cluster):
        raise ValueError(f"{cluster!r} is no name of a cluster; use up to 63 lower case letters, digits and '-'")
    return cluster


def identities(uris: Iterable[str]) -> list[Identity]:
    """The identities among the URIs of a certificate; others mean nothing here."""
    found = []
    for uri in uris:
        name, dot, cluster = uri.removeprefix(_SCHEME).rpartition(".")
        if uri.startswith(_SCHEME) and dot and _NAME.fullmatch(name) and _CLUSTER.fullmatch(cluster):
            found.append(Identity(name, cluster))
    return found
