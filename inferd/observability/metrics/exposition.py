"""Answers to scrapes, in Prometheus' text format or OpenMetrics. Pure.

prometheus-client writes everything but histograms. Those are nearly all of the lines, and it takes some ten
microseconds for each: with a few models, milliseconds in which no call is served.
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

#: Repetitive as the text is, level 1 makes a ninth of it, in 3.6 ms of a core for each MB, which takes 30 ms to be
#: written; level 6 would make a tenth of it, in 13 ms.
_GZIP_LEVEL = 1

_OPENMETRICS = "application/openmetrics-text"
_OPENMETRICS_VERSION = re.compile(rf"({_OPENMETRICS}; )version=[^;]*")

#: Wishes that Prometheus' own text format fulfils.
_PLAIN_TEXT = ("text/plain", "text/*", "*/*")


class HistogramFamily(Metric):
    """Histograms of one name by the values of their labels. Its samples are made only when they are asked for."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        series: Collection[tuple[Sequence[str], Histogram]],
    ) -> None:
        # Not the base's own, which would set an empty list of samples.
        self.name = name
        self.documentation = documentation
        self.type = "histogram"
        self.unit = ""
        self.label_names = label_names
        self.series = series

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]  # made when it is asked for, and never set
        """All of its lines, as prometheus-client has them."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        for labels, histogram in self.series:
            family.add_metric(labels, histogram.buckets(), histogram.sum)
        return family.samples

    def write(self, *, exemplars: bool) -> Iterator[str]:
        """Yield its text, which is the same in both formats but for the exemplars."""
        yield f"# HELP {self.name} {self.documentation}\n# TYPE {self.name} histogram\n"
        for values, histogram in self.series:
            labels = ",".join(
                f'{name}="{_escaped(value)}"' for name, value in zip(self.label_names, values, strict=True)
            )
            count = 0.0
            for le, count, *exemplar in histogram.buckets():
                example = _example(exemplar[0]) if exemplar and exemplars else ""
                yield f'{self.name}_bucket{{{labels},le="{le}"}} {count}{example}\n'
            yield f"{self.name}_count{{{labels}}} {count}\n{self.name}_sum{{{labels}}} {histogram.sum}\n"


class Form(NamedTuple):
    """What is answered to a scrape: in which format, and whether compressed."""

    content_type: str
    gzipped: bool

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the answer says of it besides its type."""
        return (("Vary", "Accept-Encoding"), *((("Content-Encoding", "gzip"),) if self.gzipped else ()))


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return what the registry tells, in the format that an Accept header asks for, and its content type."""
    encode, content_type = _encoder(accept)
    openmetrics = content_type.startswith(_OPENMETRICS)
    histograms, others = [], []
    for family in registry.collect():
        if isinstance(family, HistogramFamily):
            histograms.append("".join(family.write(exemplars=openmetrics)))
        else:
            others.append(family)
    text = encode(_Collected(others)).removesuffix(_EOF) + "".join(histograms).encode()
    return text + _EOF if openmetrics else text, content_type


def rendered(registry: CollectorRegistry, form: Form) -> bytes:
    """Return what the registry tells, in this form."""
    text, _ = exposition(registry, form.content_type)
    return gzip.compress(text, _GZIP_LEVEL, mtime=0) if form.gzipped else text


def form_of(accept: str, accept_encoding: str) -> Form:
    """Return in which form the headers Accept and Accept-Encoding ask for it."""
    return Form(content_type_of(accept), _wants_gzip(accept_encoding))


def _wants_gzip(accept_encoding: str) -> bool:
    """Whether gzip is wanted at least as much as no encoding, and by name if both are just as welcome."""
    try:
        wishes = {wish.partition(";")[0].strip().lower(): _quality(wish) for wish in accept_encoding.split(",")}
    except ValueError:
        # A quality that is no number, in a header that is only a wish.
        return False
    any_other = wishes.get("*", 0.0)
    compressed, plain = wishes.get("gzip", any_other), wishes.get("identity", any_other)
    return compressed > plain or ("gzip" in wishes and compressed == plain > 0)


def content_type_of(accept: str) -> str:
    """Return which of the few formats an Accept header asks for. As a header, it asks for itself."""
    return _encoder(accept)[1]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        encode, content_type = choose_encoder(",".join(_up_to_plain_text(accept)))
    except (TypeError, ValueError):
        # A version or a quality that is no number, in a header that is only a wish.
        return choose_encoder("")
    # prometheus-client says that it is of whatever later version is asked for; what later ones have, we do not.
    return encode, _OPENMETRICS_VERSION.sub(r"\1version=1.0.0", content_type)


def _up_to_plain_text(accept: str) -> Iterator[str]:
    """Yield the wishes in an Accept header, the dearest first, down to one that plain text fulfils.

    prometheus-client takes OpenMetrics wherever it stands in the header.
    """
    for wish in sorted(accept.split(","), key=_quality, reverse=True):
        if not _quality(wish):
            return
        yield wish
        if wish.partition(";")[0].strip() in _PLAIN_TEXT:
            return


def _quality(wish: str) -> float:
    for parameter in wish.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return float(value)
    return 1.0


def _example(exemplar: Exemplar) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in exemplar.labels.items())
    return f" # {{{labels}}} {exemplar.value} {exemplar.timestamp}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
