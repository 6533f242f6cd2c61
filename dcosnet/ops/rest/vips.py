"""GET /v1/vips, as dcos-net has it; `?detail` adds what dcosnet knows beyond."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from re import compile as compile_pattern
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, ITraffic, IViews, IZone
from dcosnet.model.cell import Later
from dcosnet.model.drain import PREFIX
from dcosnet.model.net import Endpoint, parse_address
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.traffic import BackendTraffic, Flows, ListenerTraffic, VipTraffic
from dcosnet.model.vip import Backend, Vip
from dcosnet.model.viplabels import ZONE, vip_text
from dcosnet.ops.http import encode
from dcosnet.ops.slices import gather
from dcosnet.ops.vipnames import vip_addresses

SLICE = 25
"""VIPs asked for together; two such slices are told in one turn, some milliseconds with ten backends each."""


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
    _later: Later

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        """[{"vip","protocol","backend":[{"ip","port"}]}]; 304 if the client has it. `?name=` picks by a glob."""
        wanted = _matcher(request.query.get("name", ""), self._zones)
        vips = sorted((vip for vip in self._views.vips.value.values() if wanted(vip)), key=lambda vip: vip.key.sort_key)
        if "detail" in request.query:
            found = gather(self._detailed(vips), 2, self._later)
            return _whole(found) if isinstance(found, list) else found.addCallback(_whole)
        body = encode([_told(vip) for vip in vips])
        etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
        if _has(request.headers.get("if-none-match", ""), etag):
            return RestReply(status=304, headers={"etag": etag})
        return RestReply(body, headers={"etag": etag})

    def _detailed(self, vips: Sequence[Vip]) -> Iterator[bytes]:
        """Their JSON, a few at a time."""
        for begin in range(0, len(vips), SLICE):
            some = vips[begin : begin + SLICE]
            keys = [str(vip.key) for vip in some]
            carried: dict[str, list[VipTraffic]] = {}
            for plane in self._planes:
                for key, traffic in plane.traffic(keys).items():
                    carried.setdefault(key, []).append(traffic)
            told = [self._detail(vip, carried.get(key, ())) for key, vip in zip(keys, some, strict=True)]
            yield encode(told).strip()[1:-1]

    def _detail(self, vip: Vip, carried: Sequence[VipTraffic]) -> Mapping[str, Any]:
        backends = {one.endpoint: one for traffic in carried for one in traffic.backends()}
        listeners = [one for traffic in carried for one in traffic.listeners]
        problems = [problem for traffic in carried for problem in traffic.problems]
        drains = self._views.drained.value.get(str(vip.key), {})
        return {
            **_told(vip),
            "backend": [
                {
                    **_backend(backend, backends.get(backend.endpoint)),
                    "drains": [key.removeprefix(PREFIX) for key in drains.get(backend.endpoint, ())],
                }
                for backend in vip.backends
            ],
            "address": [str(address) for address in vip_addresses(vip.key, self._zones)],
            "state": state(listeners, problems),
            "listeners": [
                {"address": str(one.endpoint.address), "port": one.endpoint.port, "problem": one.problem}
                for one in listeners
            ],
            "problems": problems,
            "total": told_flows(sum((traffic.total for traffic in carried), Flows())),
        }


def _whole(slices: Sequence[bytes]) -> RestReply:
    return RestReply(b"[" + b",".join(slices) + b"]\n")


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


def _matcher(glob: str, zones: Sequence[IZone]) -> Callable[[Vip], bool]:
    """
    Whether a glob means a VIP: all of its text, or without the port, the zone, or both.

    An address means all VIPs that answer there.
    """
    if not glob:
        return lambda _vip: True
    # A dot at the end says that the name is whole, as in DNS.
    pattern = compile_pattern(translate(glob.lower().rstrip(".")))

    def called(vip: Vip) -> bool:
        return any(pattern.match(text) for text in _names(vip))

    try:
        address = parse_address(glob)
    except ValueError:
        return called
    # "fd00::7:53" is an address, and a VIP's text without brackets.
    return lambda vip: called(vip) or address in vip_addresses(vip.key, zones)


def _names(vip: Vip) -> Iterable[str]:
    text = vip_text(vip.key)
    yield text
    if vip.key.address is not None:
        yield str(vip.key.address)
        yield str(Endpoint(vip.key.address, vip.key.port))
        return
    name, _, port = text.rpartition(":")
    short = name.removesuffix(f".{ZONE}")
    yield from (name, short, f"{short}:{port}")


def _has(if_none_match: str, etag: str) -> bool:
    """Whether the client's list names this content; weak comparison, RFC 9110 13.1.2."""
    known = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in known or etag in known
