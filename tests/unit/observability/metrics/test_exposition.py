"""Expositions, compared with those of prometheus-client."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from inferd.observability.metrics.exposition import (
    HistogramFamily,
    content_type_of,
    exposition,
    render,
    requested_format,
)
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, Histogram

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

#: Possible names of models, and the syntax characters of the formats.
NAMES = st.text(st.sampled_from('a"\\\n{},=# é'), max_size=5)
VALUES = st.lists(st.floats(0, 100), max_size=5)
SERIES = st.dictionaries(st.tuples(NAMES, NAMES), VALUES, max_size=3)


class _Histograms(Collector):
    def __init__(self, series: dict[tuple[str, str], list[float]]) -> None:
        self._series = []
        for labels, values in series.items():
            histogram = Histogram(DURATION_BOUNDS_S)
            histogram.observe_all(values)
            for number, value in enumerate(values):
                histogram.exemplify(Exemplar({"trace_id": f"{number:032x}"}, value, 1700000000.25))
            self._series.append((labels, histogram))

    def collect(self) -> list[HistogramFamily]:
        return [HistogramFamily("seconds", "How long", ("one", "other"), self._series)]


@pytest.mark.parametrize(
    ("accept_encoding", "gzipped"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZIP ; q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, deflate", False),
        ("gzip;q=0.5, identity", False),
        ("gzip, identity;q=0.5", True),
        ("gzip, identity", True),
        ("identity", False),
        ("identity;q=0, *", True),
        ("*", False),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("gzip;q=0, *", False),
        ("deflate, br", False),
        ("gzip;q=abc", False),
        ("gzip;q=nan", False),
        (",;,=", False),
    ],
)
def test_compression_by_accept_encoding(accept_encoding: str, gzipped: bool) -> None:
    """As RFC 9110 defines it: gzip if it is at least as acceptable as identity."""
    assert requested_format("", accept_encoding).gzipped is gzipped


def test_compressed_text_is_the_same() -> None:
    """In the requested format."""
    registry = CollectorRegistry()
    Gauge("answer", "of all", registry=registry).set(42)
    for accept in ("", OPENMETRICS):
        plain, compressed = (render(registry, requested_format(accept, encoding)) for encoding in ("", "gzip"))
        assert gzip.decompress(compressed) == plain == exposition(registry, accept)[0]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=7", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=dots",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=dots",
        ),
        *(
            (
                f"application/openmetrics-text;version={version}",
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
            )
            for version in ("2.0.0", "1.0.0.0.7", "1.0.0\n")
        ),
    ],
)
def test_content_type_is_one_of_ours(accept, content_type) -> None:
    """For any Accept header; the content type yields itself."""
    assert content_type_of(accept) == content_type
    assert content_type_of(content_type) == content_type


@pytest.mark.parametrize(("accept", "parse"), [("", text_string_to_metric_families), (OPENMETRICS, parse_openmetrics)])
@given(series=SERIES)
def test_histograms_equal_those_of_prometheus_client(accept, parse, series) -> None:
    """Bounds, counts, sums, labels and exemplars."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Histograms(series))
    Gauge("other", "Not a histogram", registry=registry).set(3)
    ours, our_type = exposition(registry, accept)
    encode, their_type = choose_encoder(accept)

    def read(text):
        return {
            (family.name, family.type, family.documentation): {
                (sample.name, *sorted(sample.labels.items())): (sample.value, sample.exemplar)
                for sample in family.samples
            }
            for family in parse(text.decode())
        }

    assert our_type == their_type
    assert read(ours) == read(encode(registry))


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.6", False),
        ("application/openmetrics-text;version=1.0.0;q=0.5,*/*", False),
        ("application/openmetrics-text;version=0.0.1, text/plain;version=0.0.4;q=0.5", False),
        ("application/openmetrics-text; Q=0", False),
        ("application/openmetrics-text;q=high", False),
        ("application/openmetrics-text;version=one", False),
    ],
)
def test_format_by_quality(accept, openmetrics) -> None:
    """Invalid qualities are ignored."""
    _, content_type = exposition(CollectorRegistry(), accept)
    assert content_type.startswith("application/openmetrics-text") is openmetrics


def test_openmetrics_ends_once() -> None:
    """After all families."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Histograms({("a", "b"): [1.0]}))
    text, _ = exposition(registry, OPENMETRICS)
    assert text.endswith(b"\n# EOF\n")
    assert text.count(b"# EOF") == 1
