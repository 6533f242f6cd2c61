"""GET /v1/vips, as dcos-net has it; `?detail` adds what dcosnet knows beyond."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from re import compile as compile_pattern
from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, ITraffic, IViews, IZone
from dcosnet.model.net import Endpoint
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import Backend, Vip
from dcosnet.model.viplabels import ZONE, vip_text
from dcosnet.ops.http import encode
from dcosnet.ops.vipnames import vip_addresses


@implementer(IRestResource)
@attrs.frozen
class Vips:
    """
    All VIPs, sorted, with an ETag of the content: it is the same on every node that sees the same.

    Backends of weight zero are among them, as in dcos-net. What `?detail` adds
    is this node's alone and always anew, so it has no ETag.
    """

    path = "/v1/vips"
    methods = frozenset({"GET"})
    local = False

    _views: IViews
    _zones: Sequence[IZone]
    _planes: Sequence[ITraffic]

    def respond(self, request: RestRequest) -> RestReply:
        """[{"vip","protocol","backend":[{"ip","port"}]}]; 304 if the client has it. `?name=` picks by a glob."""
        wanted = _matcher(request.query.get("name", ""))
        vips = sorted((vip for vip in self._views.vips.value.values() if wanted(vip)), key=lambda vip: vip.key.sort_key)
        if "detail" in request.query:
            return RestReply(self._detailed(vips))
        body = encode([_told(vip) for vip in vips])
        etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
        if _has(request.headers.get("if-none-match", ""), etag):
            return RestReply(status=304, headers={"etag": etag})
        return RestReply(body, headers={"etag": etag})

    def _detailed(self, vips: Sequence[Vip]) -> Sequence[Mapping[str, Any]]:
        keys = [str(vip.key) for vip in vips]
        carried: dict[str, list[VipTraffic]] = {}
        for plane in self._planes:
            for key, traffic in plane.traffic(keys).items():
                carried.setdefault(key, []).append(traffic)
        return [self._detail(vip, carried.get(key, ())) for key, vip in zip(keys, vips, strict=True)]

    def _detail(self, vip: Vip, carried: Sequence[VipTraffic]) -> Mapping[str, Any]:
        backends = {one.endpoint: one for traffic in carried for one in traffic.backends()}
        listeners = [one for traffic in carried for one in traffic.listeners]
        problems = [problem for traffic in carried for problem in traffic.problems]
        return {
            **_told(vip),
            "backend": [_backend(backend, backends.get(backend.endpoint)) for backend in vip.backends],
            "address": [str(address) for address in vip_addresses(vip.key, self._zones)],
            "state": state(listeners, problems),
            "listeners": [
                {"address": str(one.endpoint.address), "port": one.endpoint.port, "problem": one.problem}
                for one in listeners
            ],
            "problems": problems,
            "total": told_flows(sum((traffic.total for traffic in carried), Flows())),
        }


def state(listeners: Sequence[ListenerTraffic], problems: Sequence[str]) -> str:
    """ "served", "partly" or "problem"; "none" where nobody here serves VIPs."""
    served = sum(one.problem is None for one in listeners)
    if served and served == len(listeners) and not problems:
        return "served"
    if served:
        return "partly"
    return "problem" if listeners or problems else "none"


def told_flows(flows: Flows) -> Mapping[str, Any]:
    """Counts for programs: bytes and seconds."""
    return {
        "connections": flows.taken,
        "active": flows.active,
        "failures": dict(flows.failures),
        "retries": flows.retries,
        "bytes": {"to_backend": flows.to_backend, "to_client": flows.to_client},
        "idle_closed": flows.idle_closed,
        "connect": {
            "bounds": flows.bounds,
            "counts": flows.connects,
            "seconds": round(flows.connect_seconds, 6),
        },
    }


def _told(vip: Vip) -> dict[str, Any]:
    backends = [{"ip": str(backend.address), "port": backend.port} for backend in vip.backends]
    return {"vip": vip_text(vip.key), "protocol": str(vip.key.protocol), "backend": backends}


def _backend(backend: Backend, traffic: BackendTraffic | None) -> Mapping[str, Any]:
    """`weight` is what is wanted; `use` is null where no plane here has it, `counts` of one that had no flow."""
    told: dict[str, Any] = {
        "ip": str(backend.address),
        "port": backend.port,
        "weight": backend.weight,
        "draining": backend.draining,
    }
    if traffic is None:
        return {**told, "use": None, "seconds": 0, "why": None, "latency_seconds": None, "counts": None}
    return {
        **told,
        "use": traffic.use,
        "seconds": round(traffic.seconds, 3),
        "why": traffic.why,
        "latency_seconds": None if traffic.latency is None else round(traffic.latency, 6),
        "counts": told_flows(traffic.flows) if traffic.flows.used else None,
    }


def _matcher(glob: str) -> Callable[[Vip], bool]:
    """Whether a glob means a VIP: all of its text, or without the port, or without the zone too."""
    if not glob:
        return lambda _vip: True
    pattern = compile_pattern(translate(glob.lower()))
    return lambda vip: any(pattern.match(text) for text in _names(vip))


def _names(vip: Vip) -> Iterable[str]:
    text = vip_text(vip.key)
    yield text
    if vip.key.address is not None:
        yield str(vip.key.address)
        yield str(Endpoint(vip.key.address, vip.key.port))
        return
    name = text.rpartition(":")[0]
    yield name
    yield name.removesuffix(f".{ZONE}")


def _has(if_none_match: str, etag: str) -> bool:
    """Whether the client's list names this content; weak comparison, RFC 9110 13.1.2."""
    known = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in known or etag in known
