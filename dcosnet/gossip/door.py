"""
Who may have a link: the rules for a HELLO.

Judges and tells why; what follows from it is `cluster`'s business.
"""

from __future__ import annotations

import attrs

from dcosnet.gossip.faults import Faults
from dcosnet.gossip.link import Link
from dcosnet.gossip.messages import PROTOCOL, CloseCode, Hello
from dcosnet.gossip.table import Table, check_name


@attrs.frozen
class Objection:
    """Why there is to be no link; for people in words."""

    code: CloseCode
    text: str


class Door:
    """The rules of one node; `nonce` tells this process from others of its name."""

    def __init__(self, cluster: str, nonce: int, table: Table, faults: Faults) -> None:
        self._cluster = cluster
        self._nonce = nonce
        self._table = table
        self._faults = faults

    def objection(
        self, link: Link, hello: Hello, expected: str | None, before: Link | None, now: float
    ) -> Objection | None:
        """
        What speaks against a link with who says so; None if nothing does.

        `expected` is who was dialled, `before` the link that stands with that
        name. Raises PeerError for what is no name.
        """
        check_name(hello.name)
        if hello.cluster != self._cluster:
            return Objection(
                CloseCode.WRONG_CLUSTER,
                f"it belongs to the cluster {hello.cluster!r}, and this is {self._cluster!r}; correct gossip.cluster "
                "or the seeds",
            )
        if not hello.least <= PROTOCOL <= hello.most:
            return Objection(
                CloseCode.VERSION, f"it speaks versions {hello.least} to {hello.most}, and this node {PROTOCOL}"
            )
        return self._identity(link, hello, expected) or self._namesake(link, hello, before, now)

    def replaces(self, link: Link, hello: Hello, before: Link) -> bool:
        """
        Whether a link takes the place of one that stands with the same peer.

        The one stays that the lower name has opened; both ends decide alike.
        """
        assert before.hello is not None
        if before.hello.generation != hello.generation or before.dialled == link.dialled:
            return True
        return link.dialled is (self._table.name < hello.name)

    def _identity(self, link: Link, hello: Hello, expected: str | None) -> Objection | None:
        """Before anything is believed of a name, it has to be proven."""
        if link.certified is not None and link.certified != hello.name:
            return Objection(
                CloseCode.IDENTITY, f"it calls itself {hello.name}, and its certificate says {link.certified}"
            )
        if expected is not None and expected != hello.name:
            return Objection(CloseCode.IDENTITY, f"{hello.name} answers where {expected} is said to be")
        return None

    def _namesake(self, link: Link, hello: Hello, before: Link | None, now: float) -> Objection | None:
        """Of several processes with one name only the newest may stay."""
        table, record = self._table, self._table.record(hello.name)
        if hello.name == table.name:
            return self._of_own_name(link, hello)
        if record is not None and hello.generation < record.generation and not hello.fresh:
            return Objection(CloseCode.STALE, f"there is a newer process that calls itself {hello.name}")
        if before is not None and before.hello is not None:
            same = before.hello.generation == hello.generation
            if same and before.hello.nonce != hello.nonce:
                return Objection(
                    CloseCode.TWO_NODES, f"two processes call themselves {hello.name}, of one generation: a cloned disk"
                )
        quarantined = self._faults.quarantined(hello.name, now)
        if quarantined:
            return Objection(CloseCode.QUARANTINE, f"it has sent nonsense too often; not for {quarantined:.0f} s more")
        return None

    def _of_own_name(self, link: Link, hello: Hello) -> Objection:
        own = self._table.own
        if hello.nonce == self._nonce:
            return Objection(CloseCode.SELF, "that is this node itself")
        if (hello.generation, hello.nonce) > (own.generation, self._nonce):
            self._table.supersede(
                f"another process at {link.endpoint} calls itself {own.name} and is newer; give one of them another "
                "node.name, or stop it"
            )
        return Objection(
            CloseCode.TWO_NODES, f"two processes call themselves {own.name}; give one of them another node.name"
        )
