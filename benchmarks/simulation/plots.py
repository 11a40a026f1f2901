"""Charts of what was simulated, for the documentation."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt  # The backend is chosen first.
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.simulation.calls import End
from benchmarks.simulation.overload import FACTORS, MIXES, SERVERS, overload
from benchmarks.simulation.sharing import Principal, principals, priorities, scavenging
from benchmarks.simulation.spike import KINDS, Spike, spike

DOCS = Path(__file__).resolve().parents[2] / "docs"
_STYLES = {"inferd": "o-", SERVERS[1]: "s--", SERVERS[2]: "^--", SERVERS[3]: "v:"}
_DPI = 110


def draw() -> list[Path]:
    """Simulate and draw everything; returns the files."""
    return [
        _goodput(DOCS / "overload-goodput.png"),
        _spikes(DOCS / "overload-spike.png"),
        _sharing(DOCS / "overload-sharing.png"),
    ]


def _goodput(path: Path) -> Path:
    figure, places = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", sharey=True)
    for axes, mix in zip(places, MIXES[:3], strict=True):
        for server in SERVERS:
            shares = [100 * overload(mix, server, factor, seconds=3.0).goodput for factor in FACTORS]
            axes.plot(FACTORS, shares, _STYLES[server], label=server)
        axes.set_xscale("log")
        axes.set_xticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
        axes.minorticks_off()
        axes.set_title(f"deadlines: {mix.name}", fontsize="medium")
        axes.set_xlabel("requests offered, times the capacity")
        axes.set_ylim(0, 105)
        axes.grid(alpha=0.3)
    places[0].set_ylabel("answered in time, % of capacity")
    places[0].legend(fontsize="small")
    return _save(figure, path)


def _spikes(path: Path) -> Path:
    figure, (delays, rates) = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    measured = spike(KINDS[0], seed=0)
    _delay(delays, measured)
    _rates(rates, measured)
    return _save(figure, path)


def _delay(axes: Axes, measured: Spike) -> None:
    axes.plot([when for when, _ in measured.delays], [1000 * delay for _, delay in measured.delays])
    axes.axvspan(0, measured.spike_s, alpha=0.12, color="tab:red", label="three times the capacity")
    axes.set_xlabel("s after the step")
    axes.set_ylabel("queue delay, ms")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _rates(axes: Axes, measured: Spike) -> None:
    for kind, name, style in ((End.OK, "answered", "tab:green"), (End.REFUSED, "refused the fourth time", "tab:red")):
        moments = [when for end, when in measured.ends if end is kind]
        bins = [0.1 * number for number in range(-10, 40)]
        counts = [sum(first <= when < first + 0.1 for when in moments) * 10 for first in bins]
        axes.step(bins, counts, where="post", color=style, label=name)
    axes.axvspan(0, measured.spike_s, alpha=0.12, color="tab:red")
    axes.set_xlabel("s after the step")
    axes.set_ylabel("calls/s")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _sharing(path: Path) -> Path:
    figure, (levels, callers, idle) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    _priorities(levels)
    _principals(callers)
    _scavengers(idle)
    return _save(figure, path)


def _priorities(axes: Axes) -> None:
    floods = (0.0, 0.5, 1.0, 2.0, 4.0, 12.0)
    got = [priorities(0.1, flood, seconds=3.0)["high"] for flood in floods]
    axes.plot([f"{flood:g}" for flood in floods], [one.p99_ms for one in got], "o-", label="p99 of the high priority")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("low priority offered, times the capacity")
    axes.set_ylabel("ms")
    axes.set_title("a high priority at 10 % in a flood", fontsize="medium")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _principals(axes: Axes) -> None:
    asked = ((6.0, (1, 1)), (2.0, (8, 8)), (2.0, (1, 16)))
    names = ("6x in rows of 1", "2x in rows of 8", "2x in rows of 1 to 16")
    width = 0.38
    for offset, weights in enumerate(((1.0, 1.0, 1.0), (1.0, 2.0, 4.0))):
        given = [
            Principal(name=name, demand=demand, rows=rows, weight=weight)
            for name, (demand, rows), weight in zip(names, asked, weights, strict=True)
        ]
        used, _ = principals(given, seconds=4.0)
        places = [number + (offset - 0.5) * width for number in range(3)]
        bars = axes.bar(
            places,
            [100 * used[name] for name in names],
            width,
            label=f"weights {weights[0]:g}, {weights[1]:g}, {weights[2]:g}",
        )
        axes.bar_label(bars, fmt="%.1f", fontsize="small")
    axes.set_xticks(range(3), names, fontsize="small")
    axes.set_ylabel("% of the processor time")
    axes.set_title("principals that ask for more than there is", fontsize="medium")
    axes.legend(fontsize="small")


def _scavengers(axes: Axes) -> None:
    loads = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    got = [scavenging(load, seconds=5.0) for load in loads]
    shown = [f"{100 * load:.0f}" for load in loads]
    axes.plot(shown, [one.alone_p99_ms for one in got], "o--", label="p99 alone, ms")
    axes.plot(shown, [one.beside_p99_ms for one in got], "o-", label="p99 beside scavengers, ms")
    axes.plot(shown, [100 * one.scavenged for one in got], "s-", color="tab:gray", label="scavengers, % of capacity")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("other requests, % of capacity")
    axes.set_title("scavengers that want all there is", fontsize="medium")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    return path
