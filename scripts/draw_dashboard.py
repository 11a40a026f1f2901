"""Draw the dashboard's panels from the data of a Prometheus, without Grafana.

python -m scripts.draw_dashboard                                   a server under load for two minutes
python -m scripts.draw_dashboard http://127.0.0.1:9090 --minutes 60  an existing Prometheus
"""

import argparse
import json
import math
import re
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt  # After the backend is chosen.
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, Formatter, MaxNLocator, PercentFormatter

from scripts.generate_dashboard import dashboard
from tests.e2e.observed import observed

PICTURE = Path(__file__).parents[1] / "docs" / "dashboard.png"

#: Approximate number of points of a line.
_POINTS = 150
_COLUMNS = 24
_INCHES_PER_COLUMN, _INCHES_PER_LINE = 0.75, 0.34

_FORMATTERS: Mapping[str, Formatter] = {
    "s": EngFormatter("s", sep=" "),
    "bytes": EngFormatter("B", sep=" "),
    "percentunit": PercentFormatter(1),
}

#: The samples of one series: seconds since the first moment, and values.
Line = tuple[dict[str, str], list[float], list[float]]


class Source:
    """A Prometheus and a time range, in seconds since the epoch."""

    def __init__(self, address: str, start: float, end: float) -> None:
        self._address = address
        self._start = start
        self._end = end
        self._step = max(1, round((end - start) / _POINTS))

    def lines(self, expr: str) -> list[Line]:
        """Return ``expr`` over time, without NaN."""
        window = f"{max(4 * self._step, 5)}s"
        query = re.sub(r"\$(job|instance|model)", ".*", expr).replace("$__rate_interval", window)
        asked = {"query": query, "start": self._start, "end": self._end, "step": self._step}
        with urllib.request.urlopen(f"{self._address}/api/v1/query_range?{urllib.parse.urlencode(asked)}") as response:
            result = json.load(response)["data"]["result"]
        return [self._line(series) for series in result]

    def _line(self, series: Mapping[str, Any]) -> Line:
        points = [(at - self._start, float(value)) for at, value in series["values"]]
        points = [(at, value) for at, value in points if math.isfinite(value)]
        return series["metric"], [at for at, _ in points], [value for _, value in points]


def draw(source: Source, path: Path) -> None:
    """Write a PNG with all panels at their positions."""
    panels = dashboard()["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(_COLUMNS * _INCHES_PER_COLUMN, lines * _INCHES_PER_LINE))
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] / _COLUMNS, 1 - place["y"] / lines
        if panel["type"] == "row":
            figure.text(left + 0.005, top - 0.9 / lines, panel["title"], fontsize=15, weight="bold")
            continue
        # Space for the axis labels at the left, the title above and the legend below.
        box = (
            left + 0.042,
            top - (place["h"] - 1.8) / lines,
            place["w"] / _COLUMNS - 0.055,
            (place["h"] - 3.1) / lines,
        )
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_formatter(_FORMATTERS["s"])
        if panel["type"] == "heatmap":
            _heatmap(axes, source.lines(panel["targets"][0]["expr"]), panel["options"]["yAxis"]["unit"])
        else:
            _lines(axes, panel, source)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _lines(axes: Axes, panel: Mapping[str, Any], source: Source) -> None:
    axes.yaxis.set_major_formatter(_FORMATTERS.get(panel["fieldConfig"]["defaults"]["unit"], EngFormatter(sep="")))
    drawn = 0
    for target in panel["targets"]:
        for labels, times, values in source.lines(target["expr"]):
            if values:
                axes.plot(times, values, linewidth=1.2, label=_legend(target["legendFormat"], labels))
                drawn += 1
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes, color="gray")
        return
    top = 1.05 * axes.dataLim.y1 or 1.0
    axes.set_ylim(-0.02 * top, top)  # So that a line of zeros is visible.
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=4, loc="upper left", bbox_to_anchor=(-0.02, -0.14), frameon=False)


def _heatmap(axes: Axes, lines: Sequence[Line], unit: str) -> None:
    """Draw the increase of each bucket; Prometheus returns cumulative buckets."""
    by_bound = {float(labels["le"]): dict(zip(times, values, strict=True)) for labels, times, values in lines}
    bounds = sorted(by_bound)
    times = sorted({at for line in by_bound.values() for at in line})
    rows, below = [], dict.fromkeys(times, 0.0)
    for bound in bounds:
        up_to = {at: by_bound[bound].get(at, below[at]) for at in times}
        rows.append([max(up_to[at] - below[at], 0.0) or math.nan for at in times])
        below = up_to
    axes.pcolormesh(times, range(len(bounds)), rows, cmap="Oranges", norm="log", shading="nearest")
    formatter = _FORMATTERS.get(unit, EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    names = {number: "∞" if math.isinf(bound) else formatter(bound) for number, bound in enumerate(bounds)}
    axes.yaxis.set_major_formatter(lambda number, _: names.get(round(number), ""))


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), pattern)


def _draw_a_server_under_load(path: Path, seconds: int) -> None:
    """Half a minute of low load, then growing load, then low load again."""
    with (
        tempfile.TemporaryDirectory() as folder,
        observed(Path(folder), callers=2, flood=2) as (served, prometheus),
    ):
        prometheus.wait_scraped(2)
        start = time.time()
        time.sleep(seconds / 4)
        with served.load(callers=6, flood=1):
            time.sleep(seconds / 4)
            with served.load(callers=6, flood=10):
                time.sleep(seconds / 4)
        time.sleep(seconds / 4)
        draw(Source(f"http://{prometheus.address}", start, time.time()), path)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "prometheus", nargs="?", help="its address; without one, a server is started and put under load"
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to look back, or to watch")
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    if options.prometheus is None:
        _draw_a_server_under_load(options.out, round(options.minutes * 60))
    else:
        now = time.time()
        draw(Source(options.prometheus.rstrip("/"), now - options.minutes * 60, now), options.out)


if __name__ == "__main__":
    main()
