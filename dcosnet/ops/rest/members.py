"""GET /v1/members: who belongs to the cluster, how each one fares, and who was refused."""

from __future__ import annotations

from typing import Any

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IMembership, IRestResource
from dcosnet.model.member import Member, MemberDetail, Refusal
from dcosnet.model.rest import RestReply, RestRequest


@implementer(IRestResource)
@attrs.frozen
class Members:
    """The members as this node sees them, sorted by name. Times are ages: clocks may differ, and that is shown here."""

    path = "/v1/members"
    methods = frozenset({"GET"})
    local = False

    _node: str
    _membership: IMembership

    def respond(self, _request: RestRequest) -> RestReply:
        """{"node","unsynced","members","refusals"}; what is not known is null."""
        members, details = self._membership.members.value, self._membership.details()
        return RestReply(
            {
                "node": self._node,
                "unsynced": self._membership.unsynced.value,
                "members": [_told(members[name], details.get(name, MemberDetail())) for name in sorted(members)],
                "refusals": [_refused(refusal) for refusal in self._membership.refusals()],
            }
        )


def _told(member: Member, detail: MemberDetail) -> dict[str, Any]:
    return {
        "name": member.name,
        "state": str(member.state),
        "age_seconds": _rounded(detail.age),
        "degraded": detail.degraded,
        "problem": detail.problem,
        "accused_by": [
            {"accuser": one.accuser, "reason": one.reason, "age_seconds": _rounded(one.age)}
            for one in detail.accused_by
        ],
        "addresses": [str(address) for address in member.addresses],
        "endpoints": list(detail.endpoints),
        "generation": detail.generation,
        "incarnation": detail.incarnation,
        "linked": detail.linked,
        "rtt_seconds": None if detail.rtt is None else round(detail.rtt, 6),
        "skew_seconds": _rounded(detail.skew),
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {
        "peer": refusal.peer,
        "reason": refusal.reason,
        "text": refusal.text,
        "by": "peer" if refusal.theirs else "node",
        "age_seconds": _rounded(refusal.age),
        "count": refusal.count,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
