"""Metrics of the routing between the versions of a model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutedVersion:
    """A ready version of a model with routing; ``share`` of the requests that name no version, from 0 to 1."""

    model: str
    version: str
    labels: tuple[str, ...]
    share: float


def routing_families(
    versions: Iterable[RoutedVersion], shadows: Mapping[tuple[str, str], Mapping[str, int]]
) -> Iterator[Metric]:
    """Yield labels and shares of versions, and the outcomes of requests copied to shadows."""
    labels = GaugeMetricFamily(
        "inferd_model_label", "Labels of model versions, 1 each", labels=("model", "version", "label")
    )
    shares = GaugeMetricFamily(
        "inferd_model_share", "Share of the requests that name no version", labels=("model", "version")
    )
    for each in versions:
        shares.add_metric((each.model, each.version), each.share)
        for label in each.labels:
            labels.add_metric((each.model, each.version, label), 1.0)
    yield labels
    yield shares
    copies = CounterMetricFamily(
        "inferd_shadow_requests", "Requests copied to a shadow", labels=("model", "version", "outcome")
    )
    for (model, version), counts in shadows.items():
        for outcome, count in counts.items():
            copies.add_metric((model, version, outcome), count)
    yield copies
