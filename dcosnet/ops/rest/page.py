"""GET /: the overview page, for people with a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from zope.interface import implementer

from dcosnet.interfaces import IMembership, IRestResource, ITaskSource, IToolbox, ITraffic, IViews, IZone
from dcosnet.model.facts import Problem
from dcosnet.model.member import MemberDetail
from dcosnet.model.rest import RestReply, RestRequest
from dcosnet.model.viplabels import vip_text
from dcosnet.ops.overview import CONTENT_SECURITY_POLICY, ROWS_MAX, Overview, ShownVip, page
from dcosnet.ops.vipnames import vip_addresses


@implementer(IRestResource)
@attrs.frozen
class Page:
    """Collects what `overview` shows."""

    path = "/"
    methods = frozenset({"GET"})
    local = False

    _toolbox: IToolbox
    _views: IViews
    _zones: Sequence[IZone]
    _sources: Sequence[ITaskSource]
    _membership: IMembership
    _planes: Sequence[ITraffic]
    _uptime: Callable[[], float]

    def respond(self, _request: RestRequest) -> RestReply:
        """HTML that loads nothing else and runs nothing."""
        tasks = self._views.snapshot.value.tasks
        members, details = self._membership.members.value, self._membership.details()
        overview = Overview(
            node=self._toolbox.node,
            uptime=self._uptime(),
            parts=self._toolbox.readiness(),
            troubles={
                name: [Problem(each["subject"], each["reason"]) for each in facts.get("problems", ())]
                for name, facts in self._toolbox.describe().items()
            },
            vips=self._vips(),
            tasks=[tasks[key] for key in sorted(tasks)],
            sources=sorted(((source.name, source.status()) for source in self._sources), key=lambda pair: pair[0]),
            zones=[zone.zone.value for zone in sorted(self._zones, key=lambda zone: zone.apex)],
            members=[(members[name], details.get(name, MemberDetail())) for name in sorted(members)],
            refusals=self._membership.refusals(),
        )
        return RestReply(
            page(overview),
            content_type="text/html; charset=utf-8",
            headers={"content-security-policy": CONTENT_SECURITY_POLICY},
        )

    def _vips(self) -> Sequence[ShownVip]:
        vips = sorted(self._views.vips.value.values(), key=lambda vip: vip.key.sort_key)
        keys = [str(vip.key) for vip in vips[:ROWS_MAX]]
        carried = [plane.traffic(keys) for plane in self._planes]
        return [
            ShownVip(
                vip_text(vip.key),
                vip_addresses(vip.key, self._zones),
                vip,
                [plane[key] for plane in carried if (key := str(vip.key)) in plane],
            )
            for vip in vips
        ]
