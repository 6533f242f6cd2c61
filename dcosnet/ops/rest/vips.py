"""GET /v1/vips, as dcos-net has it; `?detail` adds what dcosnet knows beyond."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IRestResource, IViews, IZone
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.vip import Vip
from dcosnet.ops.http import encode
from dcosnet.ops.vipnames import vip_addresses, vip_text


@implementer(IRestResource)
@attrs.frozen
class Vips:
    """
    All VIPs, sorted, with an ETag of the content: it is the same on every node that sees the same.

    Backends of weight zero are among them, as in dcos-net.
    """

    path = "/v1/vips"
    methods = frozenset({"GET"})
    local = False

    _views: IViews
    _zones: Sequence[IZone]

    def respond(self, request: RestRequest) -> RestReply:
        """[{"vip","protocol","backend":[{"ip","port"}]}]; 304 if the client has it."""
        detail = "detail" in request.query
        vips = sorted(self._views.vips.value.values(), key=lambda vip: vip.key.sort_key)
        body = encode([self._vip(vip, detail=detail) for vip in vips])
        etag = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
        if _has(request.headers.get("if-none-match", ""), etag):
            return RestReply(status=304, headers={"etag": etag})
        return RestReply(body, headers={"etag": etag})

    def _vip(self, vip: Vip, *, detail: bool) -> Mapping[str, Any]:
        backends: list[dict[str, Any]] = [{"ip": str(b.address), "port": b.port} for b in vip.backends]
        told: dict[str, Any] = {"vip": vip_text(vip.key), "protocol": str(vip.key.protocol), "backend": backends}
        if detail:
            told["address"] = [str(address) for address in vip_addresses(vip.key, self._zones)]
            for shown, backend in zip(backends, vip.backends, strict=True):
                shown.update(weight=backend.weight, draining=backend.draining)
        return told


def _has(if_none_match: str, etag: str) -> bool:
    """Whether the client's list names this content; weak comparison, RFC 9110 13.1.2."""
    known = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in known or etag in known
