"""What passes through the VIPs of this node, as values; who carries it counts it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from itertools import zip_longest

import attrs

from dcosnet.model.metric import Histogram
from dcosnet.model.net import Endpoint, Protocol
from dcosnet.model.vip import VipKey


@attrs.frozen
class Flows:
    """
    Connections and UDP flows, and what became of them; all but `active` only grow.

    Bytes are those passed on so far, also of flows that are open.
    """

    taken: int = 0
    active: int = 0
    """In flight now, those that wait for a backend among them."""
    failures: Mapping[str, int] = attrs.field(factory=dict)
    """Times that a backend did not take one, by reason."""
    retries: int = 0
    """Those that another backend had failed before."""
    to_backend: int = 0
    to_client: int = 0
    idle_closed: int = 0
    """Those that ended for having been idle."""
    bounds: tuple[float, ...] = ()
    connects: tuple[int, ...] = ()
    """Connects by the time they took: up to each of `bounds`, in seconds, and beyond the last."""
    connect_seconds: float = 0.0
    """The sum of these times."""

    @property
    def failed(self) -> int:
        """Failures of all reasons."""
        return sum(self.failures.values())

    @property
    def used(self) -> bool:
        """Whether there was any flow or failure at all."""
        return bool(self.taken or self.active or self.failed)

    def __add__(self, other: Flows) -> Flows:
        """Both together; they have the same bounds, or one of them has none."""
        longer, shorter = (self, other) if self.connects else (other, self)
        return Flows(
            taken=self.taken + other.taken,
            active=self.active + other.active,
            failures={
                reason: self.failures.get(reason, 0) + other.failures.get(reason, 0)
                for reason in {**self.failures, **other.failures}
            },
            retries=self.retries + other.retries,
            to_backend=self.to_backend + other.to_backend,
            to_client=self.to_client + other.to_client,
            idle_closed=self.idle_closed + other.idle_closed,
            bounds=longer.bounds,
            connects=tuple(map(sum, zip_longest(longer.connects, shorter.connects, fillvalue=0))),
            connect_seconds=self.connect_seconds + other.connect_seconds,
        )

    @property
    def histogram(self) -> Histogram:
        """The connect times."""
        out = Histogram(self.bounds)
        out.counts = list(self.connects) or out.counts
        out.sum = self.connect_seconds
        return out


class Use(StrEnum):
    """What a backend is used for."""

    IN_USE = "in_use"
    RETURNING = "returning"
    """It is new, or back from rest, and its share grows."""
    SUSPECT = "suspect"
    """It failed just now; others are tried first."""
    RESTING = "resting"
    """It failed or was slow again and again, and is used where nothing else is left."""
    DRAINING = "draining"
    """It gets no new flows, because its weight is zero."""


@attrs.frozen
class BackendTraffic:
    """
    A backend as its listener uses it; `weight` is the one in effect.

    `seconds` is how long this use lasts yet, 0 where it does not end by itself;
    `why` says what is held against one that rests or is suspect. `latency` is
    the average connect time of late, in seconds; None without any.
    """

    endpoint: Endpoint
    weight: int
    flows: Flows
    use: Use = Use.IN_USE
    seconds: float = 0.0
    why: str | None = None
    latency: float | None = None


@attrs.frozen
class ListenerTraffic:
    """Where a VIP answers, or should: `problem` is why it does not."""

    protocol: Protocol
    endpoint: Endpoint
    problem: str | None = None
    backends: Sequence[BackendTraffic] = ()


@attrs.frozen
class VipTraffic:
    """
    A VIP on this node, with its listeners; more than one for each family of addresses while its name moves.

    `total` has also what backends and listeners counted that are gone, so that
    its counts do not go backwards while the VIP is there. `problems` are what is
    wrong with the VIP beyond single listeners, for people.
    """

    key: VipKey
    total: Flows
    listeners: Sequence[ListenerTraffic] = ()
    problems: Sequence[str] = ()

    def backends(self) -> Collection[BackendTraffic]:
        """Of all listeners; of one that several have, the flows are added up."""
        out: dict[Endpoint, BackendTraffic] = {}
        for listener in self.listeners:
            for backend in listener.backends:
                first = out.get(backend.endpoint)
                out[backend.endpoint] = (
                    backend if first is None else attrs.evolve(first, flows=first.flows + backend.flows)
                )
        return out.values()
