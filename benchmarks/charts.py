"""Charts of the results: throughput and p99 of each server by the number of calls in flight."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt  # The backend is chosen first.


class Point(Protocol):
    """A measured point."""

    @property
    def server(self) -> str:
        """Name of the server."""

    @property
    def concurrency(self) -> int:
        """Calls in flight."""

    @property
    def requests_per_s(self) -> float:
        """Median throughput."""

    @property
    def slowest(self) -> float:
        """Lowest throughput of a round."""

    @property
    def fastest(self) -> float:
        """Highest throughput of a round."""

    @property
    def p99_ms(self) -> float:
        """99th percentile of the latency."""


def draw(path: Path, title: str, points: Sequence[Point]) -> None:
    """Write a PNG with bars per server, grouped by the calls in flight; lines in the bars show the spread."""
    servers = list(dict.fromkeys(point.server for point in points))
    concurrencies = sorted({point.concurrency for point in points})
    figure, (speed, latency) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    width = 0.8 / len(servers)
    for index, server in enumerate(servers):
        own = [point for point in points if point.server == server]
        places = [concurrencies.index(point.concurrency) + index * width - 0.4 + width / 2 for point in own]
        heights = [point.requests_per_s for point in own]
        below = [point.requests_per_s - point.slowest for point in own]
        above = [point.fastest - point.requests_per_s for point in own]
        speed.bar(places, heights, width, yerr=[below, above], label=server, error_kw={"linewidth": 1})
        latency.plot(places, [point.p99_ms for point in own], "o", label=server)
    speed.set_ylabel("requests/s")
    latency.set_ylabel("p99, ms")
    latency.set_yscale("log")
    for axes in (speed, latency):
        axes.set_xticks(range(len(concurrencies)), [str(value) for value in concurrencies])
        axes.set_xlabel("calls in flight")
    figure.suptitle(title)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_overview(
    path: Path,
    *,
    speed_title: str,
    requests_per_s: Mapping[str, float],
    goodput_title: str,
    goodput_per_s: Mapping[str, Mapping[str, float]],
) -> None:
    """Write a PNG: the throughput of each server, fastest on top, and beside it the goodput of some by offered load."""
    figure, (speed, goodput) = plt.subplots(1, 2, figsize=(11, 3.4), width_ratios=(5, 3), layout="constrained")
    servers = sorted(requests_per_s, key=lambda server: requests_per_s[server])
    bars = speed.barh(servers, [requests_per_s[server] for server in servers], color=[*map(_colour, servers)])
    speed.bar_label(bars, fmt="{:,.0f}", padding=3)
    speed.set_xlabel("requests/s")
    speed.margins(x=0.14)
    speed.set_title(speed_title, fontsize="medium")
    width = 0.8 / len(goodput_per_s)
    for index, (server, by_load) in enumerate(goodput_per_s.items()):
        places = [place + index * width - 0.4 + width / 2 for place in range(len(by_load))]
        bars = goodput.bar(places, by_load.values(), width, color=_colour(server), label=server)
        goodput.bar_label(bars, fmt="{:,.0f}", padding=3)
        goodput.set_xticks(range(len(by_load)), list(by_load))
    goodput.set_ylabel("answered within 1 s, requests/s")
    goodput.margins(y=0.14)
    goodput.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=len(goodput_per_s), frameon=False)
    goodput.set_title(goodput_title, fontsize="medium")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colour(server: str) -> str:
    return "tab:blue" if server.startswith("inferd") else "tab:gray"
