"""
Registering over HTTP: PUT, DELETE and GET below /v1/register.

For those who come over the UNIX socket, whose permissions vouch for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IRestResource
from dcosnet.model.rest import RestReply, RestRequest, refuse
from dcosnet.model.task import TaskId
from dcosnet.sources.register.leases import Lease, Leases
from dcosnet.sources.register.service import BusyError, RegisterSource
from dcosnet.sources.services import Flaw, Service, clip

TTL_MIN = 1.0


@implementer(IRestResource)
class Registration:
    """One registration by its name: put, put again to renew, delete."""

    path = "/v1/register/<name>"
    methods = frozenset({"PUT", "DELETE"})
    local = True

    def __init__(self, source: RegisterSource, max_ttl: float, limit: int) -> None:
        self._source = source
        self._max_ttl = max_ttl
        self._limit = limit

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        name = request.arguments["name"]
        if request.method == "PUT":
            return self._put(name, request.body)
        return self._delete(name, request.query.get("group", ""), request.query.get("instance", ""))

    def _put(self, name: str, body: bytes) -> RestReply | Deferred[RestReply]:
        what = f"{clip(name)} was not registered"
        try:
            table = json.loads(body)
        except (ValueError, RecursionError) as error:
            return refuse(400, what, f"the body is not JSON: {clip(str(error))}", 'send {"group": "shop", "ttl": 30}')
        if not isinstance(table, dict):
            return refuse(400, what, "the body is not an object", 'send {"group": "shop", "ttl": 30}')
        if table.get("name", name) != name:
            return refuse(400, what, f"the body names it {clip(table['name'])}", "leave the name to the path")
        service, flaws = self._source.reader.read({**table, "name": name}, "")
        ttl, flaw = self._ttl(table)
        flaws += flaw
        if service is None or flaws:
            return refuse(400, what, "; ".join(_reason(one) for one in flaws), flaws[0].remedy)
        return self._source.do(self._putting(service, ttl)).addErrback(_refused, what)

    def _ttl(self, table: dict[str, Any]) -> tuple[float, list[Flaw]]:
        value, remedy = table.get("ttl"), f"send seconds from {TTL_MIN:g} to {self._max_ttl:g}"
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return 0.0, [Flaw("ttl", "is missing" if value is None else f"{clip(value)} is no number", remedy)]
        if not TTL_MIN <= value <= self._max_ttl:
            return 0.0, [Flaw("ttl", f"{clip(value)} is out of range", remedy)]
        return float(value), []

    def _putting(self, service: Service, ttl: float) -> Callable[[Leases, float], tuple[Leases, RestReply]]:
        identity = self._id(service)

        def put(leases: Leases, now: float) -> tuple[Leases, RestReply]:
            if identity not in leases.by_id and len(leases.by_id) >= self._limit:
                reason = f"there are {len(leases.by_id)} registrations, the most that are kept"
                return leases, refuse(
                    507, f"{service.name} was not registered", reason, "raise register.limit or deregister others"
                )
            lease = Lease(service, now + ttl)
            return leases.put(identity, lease), RestReply(_names(service) | {"expires_at": lease.expires_at})

        return put

    def _delete(self, name: str, group: str, instance: str) -> RestReply | Deferred[RestReply]:
        what = f"{clip(name)} was not deregistered"
        if not group:
            return refuse(400, what, "the group is missing", "ask for /v1/register/NAME?group=GROUP")
        identity = self._id(Service(name, group, self._source.reader.address, instance=instance))

        def remove(leases: Leases, _now: float) -> tuple[Leases, RestReply]:
            lease = leases.by_id.get(identity)
            if lease is None:
                remedy = "GET /v1/register lists what is registered"
                return leases, refuse(404, what, f"it is not registered in group {clip(group)}", remedy)
            return leases.remove(identity), RestReply(_names(lease.service))

        return self._source.do(remove).addErrback(_refused, what)

    def _id(self, service: Service) -> TaskId:
        reader = self._source.reader
        return service.id(reader.source, reader.node)


@implementer(IRestResource)
class Registrations:
    """All registrations, with when they end."""

    path = "/v1/register"
    methods = frozenset({"GET"})
    local = True

    def __init__(self, source: RegisterSource) -> None:
        self._source = source

    def respond(self, _request: RestRequest) -> RestReply:
        leases = sorted(self._source.leases.by_id.items())
        return RestReply([{**lease.service.table(), "expires_at": lease.expires_at} for _, lease in leases])


def _names(service: Service) -> dict[str, Any]:
    return {"name": service.name, "group": service.group, "instance": service.instance}


def _reason(flaw: Flaw) -> str:
    return f"{flaw.place}: {flaw.reason}" if flaw.place else flaw.reason


def _refused(failure: Failure, what: str) -> RestReply:
    """What the disk did not take was not done, and is said so."""
    if failure.check(BusyError) is not None:
        return refuse(503, what, "too many wait for the disk", "try again in a moment")
    failure.trap(OSError)
    return refuse(503, what, f"it could not be saved: {failure.getErrorMessage()}", "see to the disk of node.state_dir")
