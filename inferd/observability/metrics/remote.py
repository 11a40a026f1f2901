"""Metric families of models in remote storage, and of their cache."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferd.remote.counts import RemoteCount


def remote_families(count: RemoteCount) -> Iterator[Metric]:
    """Yield the metrics of downloads and listings."""
    yield CounterMetricFamily("inferd_remote_downloaded_bytes", "Bytes of remote files", value=count.downloaded_bytes)
    yield GaugeMetricFamily(
        "inferd_remote_pending_bytes", "Bytes that present loads still download", value=count.pending_bytes
    )
    yield GaugeMetricFamily("inferd_remote_cache_bytes", "Size of the cache", value=count.cache_bytes)
    files = CounterMetricFamily("inferd_remote_files", "Remote files that loads needed", labels=("outcome",))
    for outcome in ("cached", "downloaded", "failed"):
        files.add_metric((outcome,), count.files.get(outcome, 0))
    yield files
    listings = CounterMetricFamily("inferd_remote_listings", "Listings", labels=("repository", "outcome"))
    for labels, number in count.listings.items():
        listings.add_metric(labels, number)
    yield listings
