"""
Draining over HTTP: POST and GET /v1/drains, DELETE /v1/drains/WHAT.

Anybody may look; to change something one has to come over the UNIX socket.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from dcosnet.interfaces import IDrains, IMembership, IRestResource, IViews
from dcosnet.model.drain import (
    Drain,
    Drainable,
    DrainedHost,
    DrainedService,
    DrainedTask,
    key_of,
    overall,
    parse_drainable,
    place,
)
from dcosnet.model.net import Endpoint, Protocol, sort_key
from dcosnet.model.rest import RestReply, RestRequest, refuse
from dcosnet.model.snapshot import Owned, Snapshot
from dcosnet.model.viplabels import vip_text

DRAINS_MAX = 1000
USER_MAX = 64
NOTE_MAX = 300
_FORMS = "write ADDRESS:PORT, tcp/ADDRESS:PORT, ADDRESS, host/NAME, service/GROUP/NAME or task/FRAMEWORK/ID"


@implementer(IRestResource)
@attrs.frozen
class Drains:
    """All drains that are on, sorted, with how far they have come."""

    path = "/v1/drains"
    methods = frozenset({"GET"})
    local = False

    _node: str
    _views: IViews
    _membership: IMembership

    def respond(self, _request: RestRequest) -> RestReply:
        """{"node","drains"}; flows are those of TCP connections and UDP flows through dcosnet, nobody else's."""
        drains = self._views.snapshot.value.drains
        told = [self._told(key, drains[key]) for key in sorted(drains) if drains[key].value.on]
        return RestReply({"node": self._node, "drains": told})

    def _told(self, key: str, owned: Owned[Drain]) -> Mapping[str, Any]:
        drain = owned.value
        so_far = overall(key, drain.since, self._views.snapshot.value.progress.values(), self._membership.members.value)
        ends, emptied = self._touched(key)
        here = so_far.nodes.get(self._node)
        return {
            "what": str(drain.what),
            "node": owned.owner,
            "user": drain.user,
            "since": drain.since,
            "note": drain.note,
            "backends": [
                {
                    "protocol": str(protocol),
                    "ip": str(endpoint.address),
                    "port": endpoint.port,
                    "vips": vips,
                    "flows": left.flows,
                    "taking": left.taking,
                }
                for (protocol, endpoint), vips in ends
                for left in (so_far.of(place(protocol, endpoint)),)
            ],
            "emptied": emptied,
            "flows": so_far.flows,
            "flows_here": None if here is None else here.flows,
            "nodes": [{"node": name, "flows": progress.flows} for name, progress in so_far.nodes.items()],
            "taking": list(so_far.taking),
            "silent": list(so_far.silent),
            "drained": so_far.done,
        }

    def _touched(self, key: str) -> tuple[list[tuple[tuple[Protocol, Endpoint], list[str]]], list[str]]:
        """The backends that a drain concerns, each with its VIPs; and the VIPs that have no others."""
        ends: dict[tuple[Protocol, Endpoint], list[str]] = {}
        emptied = []
        vips = self._views.vips.value
        for name, drained in self._views.drained.value.items():
            found = [endpoint for endpoint, keys in drained.items() if key in keys]
            vip = vips.get(name) if found else None
            if vip is None:
                continue
            for endpoint in found:
                ends.setdefault((vip.key.protocol, endpoint), []).append(vip_text(vip.key))
            if all(backend.draining for backend in vip.backends):
                emptied.append(vip_text(vip.key))
        for texts in ends.values():
            texts.sort()
        ordered = sorted(ends.items(), key=lambda one: (sort_key(one[0][1].address), one[0][1].port, one[0][0]))
        return ordered, sorted(emptied)


@implementer(IRestResource)
@attrs.frozen
class BeginDrain:
    """Drains what is named."""

    path = "/v1/drains"
    methods = frozenset({"POST"})
    local = True

    _views: IViews
    _drains: IDrains

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        """{"what","note","user"}, the last two as one likes; the reply has "what" in full, once it is on disk."""
        what = "nothing is drained"
        try:
            told = json.loads(request.body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict) or not all(map(_is_text, told.values())):
            return refuse(400, what, "the body is no JSON object of texts", 'send {"what": "host/NAME", "note": "..."}')
        text, note, user = told.get("what", ""), told.get("note", ""), told.get("user", "")
        if unknown := told.keys() - {"what", "note", "user"}:
            return refuse(400, what, f"{min(unknown)[:40]!r} is not known", "send what, note and user")
        if len(note) > NOTE_MAX or len(user) > USER_MAX:
            return refuse(400, what, "the note or the user is too long", f"{NOTE_MAX} and {USER_MAX} characters do")
        try:
            found = _find(text, self._views.snapshot.value)
        except ValueError as error:
            return refuse(400, what, f"{text[:80]!r}: {error}", _FORMS)
        if not found:
            remedy = f"look at `dcosnet members` and `dcosnet tasks`, or {_FORMS}"
            return refuse(404, what, f"{text[:80]!r} is no node, no task and no service that is known here", remedy)
        return _one(found, what, lambda one: self._begin(one, user, note))

    def _begin(self, one: Drainable, user: str, note: str) -> RestReply | Deferred[RestReply]:
        drains = self._views.snapshot.value.drains
        if key_of(one) not in drains and sum(owned.value.on for owned in drains.values()) >= DRAINS_MAX:
            return refuse(507, "nothing is drained", f"there are {DRAINS_MAX} drains", "end some of them")
        try:
            begun = self._drains.begin(one, user, note)
        except ValueError as error:
            return refuse(507, "nothing is drained", str(error), "end drains that are not needed, or name it shorter")
        return _written(begun, one)


@implementer(IRestResource)
@attrs.frozen
class EndDrain:
    """Ends a drain, whoever began it."""

    path = "/v1/drains/<what>"
    methods = frozenset({"DELETE"})
    local = True

    _views: IViews
    _drains: IDrains

    def respond(self, request: RestRequest) -> RestReply | Deferred[RestReply]:
        text, what = request.arguments["what"], "no drain was ended"
        on = [owned.value.what for owned in self._views.snapshot.value.drains.values() if owned.value.on]
        found = [one for one in on if str(one) == text] or [one for one in on if one.short == text]
        if not found:
            with suppress(ValueError):
                found = [one for one in on if one == parse_drainable(text)]  # an address in another form
        if not found:
            return refuse(404, what, f"{text[:80]!r} is not drained", "`dcosnet drain` lists what is")
        return _one(found, what, self._end)

    def _end(self, one: Drainable) -> RestReply | Deferred[RestReply]:
        ended = self._drains.end(one)
        if ended is None:
            return RestReply({"what": str(one)})  # somebody was quicker
        return _written(ended, one)


def _is_text(value: object) -> bool:
    """JSON may have halves of characters, which cannot be written."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _find(text: str, snapshot: Snapshot) -> list[Drainable]:
    """What a text may mean here. Raises ValueError."""
    named = parse_drainable(text)
    if named is not None:
        return [named]
    found: list[Drainable] = [DrainedHost(text)] if text in snapshot.members else []
    for owned in snapshot.tasks.values():
        task = owned.value
        if task.id.task == text:
            found.append(DrainedTask(task.id))
        service = DrainedService(task.framework, task.name)
        if text.startswith(task.name) and service.short == text and service not in found:
            found.append(service)
    return found


def _one(
    found: list[Drainable], what: str, do: Callable[[Drainable], RestReply | Deferred[RestReply]]
) -> RestReply | Deferred[RestReply]:
    if len(found) > 1:
        texts = ", ".join(sorted(map(str, found))[:5])
        return refuse(409, what, f"it may be any of {texts}", "write one of these")
    return do(found[0])


def _written(write: Deferred[None], one: Drainable) -> Deferred[RestReply]:
    def done(_result: None) -> RestReply:
        return RestReply({"what": str(one)})

    def refused(failure: Failure) -> RestReply:
        failure.trap(OSError)
        why = f"it could not be saved: {failure.getErrorMessage()}"
        return refuse(503, f"{one} is as it was", why, "see to the disk of node.state_dir")

    replied = write.addCallback(done)
    return replied.addErrback(refused)
