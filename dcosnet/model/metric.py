"""
Metrics as values that a part gives when it is asked.

Hot paths keep plain integers; what makes Prometheus text of them is `ops`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

import attrs


@attrs.frozen
class Sample:
    """One number with its labels; label values come from closed sets only."""

    value: float
    labels: Mapping[str, str] = attrs.field(factory=dict)


class Histogram:
    """Counts of observations up to each bound; `sum` in the unit of the observations."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


@attrs.frozen
class Metric:
    """
    A family: full name ("dcosnet_dns_queries_total"), help, kind and samples.

    `histograms` takes the place of `samples` for the kinds "histogram" and
    "summary"; of the latter only count and sum are told.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    samples: Sequence[Sample] = ()
    histograms: Sequence[tuple[Mapping[str, str], Histogram]] = ()
