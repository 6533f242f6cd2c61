"""
Which services are registered, and until when.

Values that never change: a step makes new leases of old ones, so what could
not be saved is simply not taken. Time is always given, in seconds since the
epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs

from dcosnet.model.task import TaskId
from dcosnet.sources.services import Reader, Service

_VERSION = 1


@attrs.frozen
class Lease:
    """A service, and the moment from which it is not there any more."""

    service: Service
    expires_at: float


@attrs.frozen
class Leases:
    """
    All leases by identity.

    Laws: putting what is there moves its end and nothing else; a removed or
    expired lease is as one that never was; expiring twice is expiring once, at
    the later time.
    """

    by_id: Mapping[TaskId, Lease] = attrs.field(factory=dict)

    def put(self, identity: TaskId, lease: Lease) -> Leases:
        """With this lease, in the place of one of the same identity."""
        return Leases({**self.by_id, identity: lease})

    def remove(self, identity: TaskId) -> Leases:
        """Without this lease; the same value where there is none."""
        if identity not in self.by_id:
            return self
        return Leases({key: lease for key, lease in self.by_id.items() if key != identity})

    def expire(self, now: float) -> Leases:
        """Without those that have ended at `now`; the same value where none has."""
        due = self.due()
        if due is None or due > now:
            return self
        return Leases({key: lease for key, lease in self.by_id.items() if lease.expires_at > now})

    def due(self) -> float | None:
        """When the next one ends; None where there is none."""
        return min((lease.expires_at for lease in self.by_id.values()), default=None)


def dump(leases: Leases) -> bytes:
    """What `load` reads."""
    tables = [{**lease.service.table(), "expires_at": lease.expires_at} for lease in leases.by_id.values()]
    return json.dumps({"version": _VERSION, "leases": tables}, separators=(",", ":")).encode()


def load(data: bytes, reader: Reader) -> Leases:
    """
    The leases that were dumped, those that have ended included.

    Raises ValueError with a sentence for people when it is not that, whole and
    in every part.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not (isinstance(document, dict) and document.get("version") == _VERSION):
        raise ValueError(f"is not of version {_VERSION}")
    tables = document.get("leases")
    if not isinstance(tables, list):
        raise ValueError("has no list of leases")  # noqa: TRY004 - it is the file, not a caller
    by_id: dict[TaskId, Lease] = {}
    for number, table in enumerate(tables, 1):
        lease = _lease(table, f"lease {number}", reader)
        by_id[lease.service.id(reader.source, reader.node)] = lease
    return Leases(by_id)


def _lease(table: Any, place: str, reader: Reader) -> Lease:
    ends = table.pop("expires_at", None) if isinstance(table, dict) else None
    service, flaws = reader.read(table, place)
    if service is None:
        raise ValueError(str(flaws[0]))
    if not isinstance(ends, int | float) or isinstance(ends, bool) or not math.isfinite(ends):
        raise ValueError(f"{place}: `expires_at` is not a time")
    return Lease(service, float(ends))
