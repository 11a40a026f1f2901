"""What panels of the dashboard are made of.

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
