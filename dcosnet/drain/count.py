"""
What is left to the backends that drain, by drain.

Pure: what the read models say of drains, and what data planes carry, in; what
this node tells of each drain, out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from dcosnet.model.drain import Drain, Left, Progress, place
from dcosnet.model.net import Endpoint
from dcosnet.model.snapshot import Owned
from dcosnet.model.traffic import VipTraffic


def count(
    drains: Mapping[str, Owned[Drain]],
    drained: Mapping[str, Mapping[Endpoint, tuple[str, ...]]],
    planes: Iterable[Mapping[str, VipTraffic]],
) -> dict[str, Progress]:
    """
    How far each drain that is on has come here; `drained` is that of IViews, `planes` what each plane carries.

    A backend of several VIPs has the flows of all of them. One that still has a
    weight somewhere is given new flows there: the plane has not heard yet, or
    something beside what is drained stands behind it.
    """
    left: dict[str, dict[str, Left]] = {key: {} for key, owned in drains.items() if owned.value.on}
    for carried in planes:
        for key, name, more in _found(drained, carried):
            if key in left:
                before = left[key].get(name, Left(0))
                left[key][name] = Left(before.flows + more.flows, before.taking or more.taking)
    return {key: Progress(drains[key].value.since, some) for key, some in left.items()}


def _found(
    drained: Mapping[str, Mapping[Endpoint, tuple[str, ...]]], carried: Mapping[str, VipTraffic]
) -> Iterator[tuple[str, str, Left]]:
    for vip, traffic in carried.items():
        ends = drained.get(vip, {})
        for backend in traffic.backends():
            left = Left(backend.flows.active, backend.weight > 0)
            for key in ends.get(backend.endpoint, ()) if left.flows or left.taking else ():
                yield key, place(traffic.key.protocol, backend.endpoint), left
