"""Output of ``inferd bench``: the load while it runs, results and comparisons as tables."""

from collections import deque
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from inferd.bench.compare import Delta
from inferd.bench.recorder import Interval
from inferd.bench.report import Report, load_text
from inferd.bench.session import Live
from inferd.cli.output import print_table
from inferd.plain_text import escaped

# Figures of the display are means of the last reports of each worker.
_SHOWN_S = 2.0


class LiveView:
    """A progress bar and the figures of the last seconds, on a terminal; elsewhere nothing. A context manager."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console, auto_refresh=False
        )
        self._task = self._bar.add_task("connecting", total=None)
        self._display = LiveDisplay(self._bar, console=console, refresh_per_second=4, transient=True)
        self._shown = console.is_terminal
        self._recent: deque[tuple[float, Interval]] = deque()
        self._in_flight = 0

    def __enter__(self) -> Self:
        if self._shown:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._display.stop()

    def show(self, live: Live) -> None:
        """Show how far a step is and what its last seconds were like."""
        if not self._shown:
            return
        finishing = live.elapsed_s >= live.total_s
        self._bar.update(
            self._task,
            description=f"{load_text(live.load)}{', waiting for answers' if finishing else ''}",
            completed=live.elapsed_s,
            total=live.total_s,
        )
        if live.progress:
            self._recent += [(live.elapsed_s, report.ended) for report in live.progress]
            self._in_flight = sum(report.in_flight for report in live.progress)
        while self._recent and not live.elapsed_s - _SHOWN_S <= self._recent[0][0] <= live.elapsed_s:
            self._recent.popleft()
        self._display.update(Group(self._bar, self._figures(live.elapsed_s)))

    def _figures(self, elapsed_s: float) -> Table:
        total = Interval()
        for _, interval in self._recent:
            total.add(interval)
        seconds = max(min(_SHOWN_S, elapsed_s), 0.1)
        percentiles = total.latency.percentiles_ms((50.0, 99.0))
        table = Table("in flight", "OK/s", "failed/s", "p50 ms", "p99 ms", box=None, pad_edge=False)
        table.add_row(
            str(self._in_flight),
            f"{total.ok / seconds:.0f}",
            f"{total.failed / seconds:.0f}",
            _number(percentiles.get(50.0)),
            _number(percentiles.get(99.0)),
        )
        return table


def print_report(report: Report) -> None:
    """Print the figures of each step, then what is worth knowing about them."""
    objective_ms = report["plan"]["objective_ms"]
    good = "OK %" if objective_ms is None else f"within {objective_ms:g} ms %"
    columns = ["LOAD", "OK/s", "ROWS/s", good, "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "FAILED"]
    print_table(columns, [_step_row(step) for step in report["steps"]])
    if len(report["plan"]["classes"]) > 1:
        print()
        print_table(
            ["CLASS", *columns],
            [[each["name"], *_row(step, each)] for step in report["steps"] for each in step["classes"]],
        )
    _print_notes(report)


def _print_notes(report: Report) -> None:
    for step in report["steps"]:
        load = load_text(step["load"])
        for status in step["statuses"]:
            if status["code"] != "OK" or status["reason"]:
                text = f": {escaped(status['message'])}" if status["message"] else ""
                print(f"{load}: {status['count']} times {_status(status)}{text}")
        for status in step["retried"]:
            print(f"{load}: {status['count']} attempts ended with {_status(status)} and were made again")
        for model, statistics in step["server"].items():
            print(f"{load}: server, {escaped(model)}: {_statistics(statistics)}")
        for warning in step["warnings"]:
            print(f"{load}: warning: {escaped(warning)}")
    if report["plan"]["check"]:
        wrong = sum(step["wrong"] for step in report["steps"])
        print(f"{sum(step['ok'] for step in report['steps'])} answers equal those asked alone, {wrong} do not")
    if report["interrupted"]:
        print("interrupted: later steps are missing")
    if report["saturation"] is not None:
        print(_saturation(report))


def print_differences(deltas: list[Delta]) -> None:
    """Print a table of the figures of two reports."""
    rows = []
    for delta in deltas:
        change = "" if delta.change is None else f"{delta.change:+.1%}"
        verdict = "" if delta.better is None else "better" if delta.better else "worse"
        name = f"{delta.metric.name} {delta.metric.unit}"
        rows.append([delta.load, name, _number(delta.before), _number(delta.after), change, verdict])
    print_table(["LOAD", "FIGURE", "BEFORE", "AFTER", "CHANGE", ""], rows)


def _step_row(step: Report) -> list[str]:
    return _row(step, step)


def _row(step: Report, counted: Report) -> list[str]:
    latency: dict[str, Any] = counted["latency_ms"] or {}
    share = counted["goodput"]["share"]
    return [
        load_text(step["load"]),
        _number(counted["throughput_per_s"]),
        _number(counted["rows_per_s"]),
        "" if share is None else f"{100 * share:.2f}",
        *(_number(latency.get(name)) for name in ("p50", "p90", "p99", "p99.9", "max")),
        str(counted["failed"]),
    ]


def _status(status: Report) -> str:
    return escaped(f"{status['code']} {status['reason']}".strip())


def _statistics(statistics: Report) -> str:
    if "unavailable" in statistics:
        return f"no statistics: {escaped(statistics['unavailable'])}"
    mean_rows, stages = statistics["mean_batch_rows"], statistics["mean_ms"]
    batch = "" if mean_rows is None else f", {mean_rows:.1f} rows a run"
    times = ", ".join(f"{name.replace('_', ' ')} {value:.2f} ms" for name, value in stages.items() if value is not None)
    return f"{statistics['rows']} rows in {statistics['runs']} runs{batch}{'; ' if times else ''}{times}"


def _saturation(report: Report) -> str:
    level, reached = report["saturation"]["level"], report["saturation"]["reached"]
    unit = "requests in flight" if report["steps"][0]["load"]["kind"] == "closed" else "requests a second"
    if level is None:
        return "saturated by the lowest load already"
    return f"{'saturated beyond' if reached else 'not saturated by'} {level:g} {unit}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:.{digits}f}"
