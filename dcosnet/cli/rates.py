"""
How fast counts grow between two looks at `/v1/vips?detail`; pure.

What was not there before, or went backwards because its node started anew, has no rate yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

Counts = Mapping[str, Any]

NONE: Counts = {
    "connections": 0,
    "active": 0,
    "failures": {},
    "retries": 0,
    "bytes": {"to_backend": 0, "to_client": 0},
    "idle_closed": 0,
    "connect": {"bounds": [], "counts": [], "seconds": 0.0},
}
"""Of who had no flow."""


@attrs.frozen
class Rates:
    """Per second; `p50` and `p99` of the connect times in seconds, None where nothing connected."""

    connections: float
    failures: float
    to_backend: float
    to_client: float
    p50: float | None
    p99: float | None


def rates(before: Counts | None, now: Counts, seconds: float) -> Rates | None:
    """Of one VIP or backend, between two counts of it."""
    if before is None or seconds <= 0:
        return None
    connections = now["connections"] - before["connections"]
    failures = failed(now) - failed(before)
    to_backend, to_client = (now["bytes"][way] - before["bytes"][way] for way in ("to_backend", "to_client"))
    connect = now["connect"]
    earlier = before["connect"]["counts"] or [0] * len(connect["counts"])
    if len(earlier) != len(connect["counts"]):
        return None
    taken = [count - was for count, was in zip(connect["counts"], earlier, strict=True)]
    if min(connections, failures, to_backend, to_client, *taken) < 0:
        return None
    return Rates(
        connections / seconds,
        failures / seconds,
        to_backend / seconds,
        to_client / seconds,
        quantile(0.5, connect["bounds"], taken),
        quantile(0.99, connect["bounds"], taken),
    )


def failed(counts: Counts) -> int:
    """Failures of all reasons."""
    return sum(counts["failures"].values())


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """
    What so large a share of observations stays below, in the way of Prometheus.

    Spread evenly inside of a bucket; the last bound stands for all beyond it.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below, lower = share * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (bound - lower) * (rank - below) / count
        below, lower = below + count, bound
    return lower


class Pace:
    """Remembers the last look at all VIPs; gives each look with `rates` in every VIP and backend."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, ...], Counts] = {}
        self._at = 0.0

    def take(self, vips: Sequence[Mapping[str, Any]], now: float) -> Sequence[dict[str, Any]]:
        """A look at a time in seconds."""
        before, seconds = self._before, now - self._at
        seen: dict[tuple[str, ...], Counts] = {}
        out = []
        for vip in vips:
            key = vip["vip"], vip["protocol"]
            shown = {**vip, "backend": [dict(backend) for backend in vip["backend"]]}
            for told, name, counts in (
                (shown, key, vip["total"]),
                *((one, (*key, one["ip"], str(one["port"])), one["counts"] or NONE) for one in shown["backend"]),
            ):
                seen[name] = counts
                rate = rates(before.get(name), counts, seconds)
                told["rates"] = None if rate is None else attrs.asdict(rate)
            out.append(shown)
        self._before, self._at = seen, now
        return out

    def forget(self) -> None:
        """Whoever counted may have started anew."""
        self._before = {}
