"""The parts of the dashboard's panels.

``$S`` stands for the selected instances, ``$M`` for these and the selected models. ``$__rate_interval`` is Grafana's.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Query:
    """One expression; ``legend`` may name labels as ``{{label}}``."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. ``unit`` is Grafana's name; ``kind`` is timeseries, heatmap or stat; ``width`` of 24 columns."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, labels: str = "") -> str:
    """Return the rate of a counter, of the selected models and with ``labels``."""
    return f"rate({metric}{{$M{', ' + labels if labels else ''}}}[$__rate_interval])"


def quantiles(metric: str, labels: str = "") -> tuple[Query, ...]:
    """Return the median and two high percentiles of a histogram; see `rate`."""
    rates = f"sum by (le) ({rate(f'{metric}_bucket', labels)})"
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    return tuple(Query(expr=f"histogram_quantile({share}, {rates})", legend=name) for name, share in shares)
