"""Exposition for scrapes, in Prometheus' text format or OpenMetrics. Pure functions.

prometheus-client writes most of it, but not the histograms, which are nearly all of the lines: it takes some ten
microseconds for each, while holding the interpreter lock.
"""

import gzip
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from inferd.observability.metrics.histogram import Histogram

_EOF = b"# EOF\n"

#: Level 1 compresses the repetitive text to a ninth in 3.6 ms per MB, which takes 30 ms to format; level 6 to a tenth
#: in 13 ms.
_GZIP_LEVEL = 1

_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_VERSION = re.compile(rf"({_OPENMETRICS}; )version=[^;]*")

#: Media ranges that Prometheus' own text format satisfies.
_PLAIN_TEXT = ("text/plain", "text/*", "*/*")


class HistogramFamily(Metric):
    """Histograms of one name by label values. Samples are built on demand."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        series: Collection[tuple[Sequence[str], Histogram]],
    ) -> None:
        # Without the base's constructor, which would set an empty list of samples.
        self.name = name
        self.documentation = documentation
        self.type = "histogram"
        self.unit = ""
        self.label_names = label_names
        self.series = series

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]  # a property here, and never set
        """All samples, as prometheus-client builds them."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        for labels, histogram in self.series:
            family.add_metric(labels, histogram.buckets(), histogram.sum)
        return family.samples

    def write(self, *, openmetrics: bool) -> Iterator[str]:
        """Yield the text, which differs between the two formats in exemplars only."""
        yield f"# HELP {self.name} {self.documentation}\n# TYPE {self.name} histogram\n"
        for values, histogram in self.series:
            labels = ",".join(
                f'{name}="{_escaped(value)}"' for name, value in zip(self.label_names, values, strict=True)
            )
            count = 0.0
            for le, count, *exemplar in histogram.buckets():
                exemplar_text = _exemplar_text(exemplar[0]) if exemplar and openmetrics else ""
                yield f'{self.name}_bucket{{{labels},le="{le}"}} {count}{exemplar_text}\n'
            yield f"{self.name}_count{{{labels}}} {count}\n{self.name}_sum{{{labels}}} {histogram.sum}\n"


class BareCounterFamily(Metric):
    """A counter whose samples do not end with ``_total``, as Triton's.

    OpenMetrics does not know such a counter: there its type is unknown.
    """

    def __init__(self, name: str, documentation: str, label_names: Sequence[str]) -> None:
        super().__init__(name, documentation, "unknown")
        self._label_names = label_names

    def add(self, labels: Sequence[str], value: float) -> None:
        """Add a sample."""
        self.add_sample(self.name, dict(zip(self._label_names, labels, strict=True)), value)

    def write(self, *, openmetrics: bool) -> Iterator[str]:
        """Yield the text."""
        kind = "unknown" if openmetrics else "counter"
        yield f"# HELP {self.name} {self.documentation}\n# TYPE {self.name} {kind}\n"
        for sample in self.samples:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
            yield f"{self.name}{{{labels}}} {float(sample.value)}\n"


class Format(NamedTuple):
    """Content type of an exposition, and whether it is compressed."""

    content_type: str
    gzipped: bool

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Response headers besides Content-Type."""
        return (("Vary", "Accept-Encoding"), *((("Content-Encoding", "gzip"),) if self.gzipped else ()))


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics of ``registry`` in the format that an Accept header asks for, and its content type."""
    encode, content_type = _encoder(accept)
    openmetrics = content_type.startswith(_OPENMETRICS)
    own, others = [], []
    for family in registry.collect():
        if isinstance(family, HistogramFamily | BareCounterFamily):
            own.append("".join(family.write(openmetrics=openmetrics)))
        else:
            others.append(family)
    text = encode(_Collected(others)).removesuffix(_EOF) + "".join(own).encode()
    return text + _EOF if openmetrics else text, content_type


def render(registry: CollectorRegistry, wanted: Format) -> bytes:
    """Return the metrics of ``registry`` in this format."""
    text, _ = exposition(registry, wanted.content_type)
    return gzip.compress(text, _GZIP_LEVEL, mtime=0) if wanted.gzipped else text


def requested_format(accept: str, accept_encoding: str) -> Format:
    """Return the format that the headers Accept and Accept-Encoding ask for."""
    return Format(content_type_of(accept), _wants_gzip(accept_encoding))


def _wants_gzip(accept_encoding: str) -> bool:
    """Whether gzip is preferred to identity, or named explicitly with the same quality."""
    try:
        choices = {choice.partition(";")[0].strip().lower(): _quality(choice) for choice in accept_encoding.split(",")}
    except ValueError:
        # An invalid quality: ignore the header.
        return False
    any_other = choices.get("*", 0.0)
    compressed, plain = choices.get("gzip", any_other), choices.get("identity", any_other)
    return compressed > plain or ("gzip" in choices and compressed == plain > 0)


def content_type_of(accept: str) -> str:
    """Return the content type that an Accept header asks for. Idempotent: as a header, it yields itself."""
    return _encoder(accept)[1]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        encode, content_type = choose_encoder(",".join(_up_to_plain_text(accept)))
    except (TypeError, ValueError):
        # An invalid version or quality: ignore the header.
        return choose_encoder("")
    # prometheus-client echoes any later version that is asked for, but the output is 1.0.0.
    return encode, _OPENMETRICS_VERSION.sub(r"\1version=1.0.0", content_type)


def _up_to_plain_text(accept: str) -> Iterator[str]:
    """Yield the media ranges of an Accept header by descending quality, up to one that plain text satisfies.

    prometheus-client would choose OpenMetrics wherever it stands in the header.
    """
    for choice in sorted(accept.split(","), key=_quality, reverse=True):
        if not _quality(choice):
            return
        yield choice
        if choice.partition(";")[0].strip() in _PLAIN_TEXT:
            return


def _quality(choice: str) -> float:
    for parameter in choice.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return float(value)
    return 1.0


def _exemplar_text(exemplar: Exemplar) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in exemplar.labels.items())
    return f" # {{{labels}}} {exemplar.value} {exemplar.timestamp}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
