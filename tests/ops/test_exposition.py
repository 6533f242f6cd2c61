"""Our text is what prometheus_client would write."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from dcosnet.model.metric import Histogram, Metric, Sample
from dcosnet.ops.exposition import lines

labels = st.dictionaries(st.sampled_from(["vip", "backend", "reason", "le_", "a"]), st.text(max_size=8), max_size=3)
values = st.one_of(
    st.integers(-(10**18), 10**18), st.floats(), st.booleans(), st.sampled_from([0, 10**6, 10**6 - 1, -(10**6)])
)


@st.composite
def histograms(draw) -> Histogram:
    out = Histogram(sorted(draw(st.sets(st.floats(0.0001, 10), max_size=4))))
    for value in draw(st.lists(st.floats(0, 20), max_size=5)):
        out.observe(value)
    return out


metrics = st.one_of(
    st.builds(
        Metric,
        st.just("dcosnet_a_total"),
        st.text(max_size=20),
        st.just("counter"),
        st.lists(st.builds(Sample, values, labels), max_size=4),
    ),
    st.builds(
        Metric,
        st.just("dcosnet_a"),
        st.text(max_size=20),
        st.just("gauge"),
        st.lists(st.builds(Sample, values, labels), max_size=4),
    ),
    st.builds(
        Metric,
        st.just("dcosnet_a_seconds"),
        st.text(max_size=20),
        st.sampled_from(["histogram", "summary"]),
        st.just(()),
        st.lists(st.tuples(labels, histograms()), max_size=3),
    ),
)


class Library:
    """A family of ours as the library's own types have it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def describe(self) -> Iterator[Family]:
        return iter(())

    def collect(self) -> Iterator[Family]:
        metric = self._metric
        made = Family(metric.name.removesuffix("_total"), metric.help, metric.kind)
        for sample in metric.samples:
            made.add_sample(metric.name, dict(sample.labels), sample.value)
        for told, histogram in metric.histograms:
            total = 0
            for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
                total += count
                if metric.kind == "histogram":
                    made.add_sample(f"{metric.name}_bucket", {**told, "le": floatToGoString(bound)}, total)
            made.add_sample(f"{metric.name}_count", dict(told), total)
            made.add_sample(f"{metric.name}_sum", dict(told), histogram.sum)
        yield made


@given(metrics)
def test_it_writes_what_the_library_writes(metric: Metric) -> None:
    """Names that need quoting, numbers of every kind, buckets in their order."""
    registry = CollectorRegistry()
    registry.register(Library(metric))
    assert "".join(lines(metric)) == generate_latest(registry).decode()
