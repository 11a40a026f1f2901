"""Render a report as one HTML file, light and dark, with charts as inline SVG; it needs no network."""

from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from math import log10
from typing import Any

from inferd.bench.charts import Axis, Line, line_chart, number
from inferd.bench.report import Report, load_text
from inferd.plain_text import escaped

_FIGURES = ("OK/s", "rows/s", "good", "p50", "p90", "p99", "p99.9", "max ms", "failed")
_NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


def page(report: Report) -> str:
    """Return the page. Texts from servers and users are escaped."""
    models = ", ".join(dict.fromkeys(each["model"] for each in report["plan"]["classes"]))
    title = f"{models} on {report['target']['address']}"
    steps = report["steps"]
    best = _best(report)
    body = [
        f"<header><h1>{_text(title)}</h1><p>{_text(_subtitle(report))}</p></header>",
        "<p class=lead>Interrupted: later steps are missing.</p>" if report["interrupted"] else "",
        _saturation(report) if report["saturation"] else "",
        _tiles(best, len(steps)) if best else "",
        _sweep(steps) if len(steps) > 1 else "",
        *(_step(step, is_open=step is best) for step in steps),
        _settings(report),
    ]
    style = files("inferd.bench").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>\n{style}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _best(report: Report) -> Report | None:
    """Return the step at saturation, or else the one with the most good answers per second."""
    steps: list[Report] = report["steps"]
    level = (report["saturation"] or {}).get("level")
    for step in steps:
        if level is not None and level in (step["load"].get("concurrency"), step["load"].get("rate_per_s")):
            return step
    return max(steps, key=lambda step: step["goodput"]["per_s"], default=None)


def _subtitle(report: Report) -> str:
    server, generator = report["target"]["server"], report["generator"]
    name = f"{server['name']} {server['version']}".strip() or "server without a name"
    return (
        f"{name} · {report['created']} · load by {generator['name']} {generator['version']} ({generator['engine']}, "
        f"{generator['processes']} {'process' if generator['processes'] == 1 else 'processes'})"
    )


def _saturation(report: Report) -> str:
    level, reached = report["saturation"]["level"], report["saturation"]["reached"]
    unit = "in flight" if report["steps"][0]["load"]["kind"] == "closed" else "requests a second"
    if level is None:
        text = "Saturated by the lowest load already."
    else:
        text = f"{'Saturated beyond' if reached else 'Not saturated by'} {number(level)} {unit}."
    return f"<p class=lead>{text}</p>"


def _tiles(step: Report, steps: int) -> str:
    latency: dict[str, float] = step["latency_ms"] or {}
    objective_ms = step["goodput"]["objective_ms"]
    share = step["goodput"]["share"]
    tiles = [
        ("OK answers a second", number(step["throughput_per_s"])),
        ("OK" if objective_ms is None else f"OK within {objective_ms:g} ms", _percent(share)),
        ("median latency", _ms(latency.get("p50"))),
        ("99th percentile", _ms(latency.get("p99"))),
        ("failed", f"{step['failed']:,} of {step['requests']:,}"),
    ]
    found = "".join(f"<div><b>{_text(value)}</b><span>{_text(name)}</span></div>" for name, value in tiles)
    best = f"<p class=note>These are the figures of {_text(load_text(step['load']))}.</p>"
    return f"<section class=tiles>{found}</section>{best if steps > 1 else ''}"


def _sweep(steps: Sequence[Report]) -> str:
    if any(step["load"]["kind"] == "trace" for step in steps):
        return ""
    closed = steps[0]["load"]["kind"] == "closed"
    name, label = ("concurrency", "requests in flight") if closed else ("rate_per_s", "requests a second offered")
    ordered = sorted(steps, key=lambda step: float(step["load"][name]))
    levels = [float(step["load"][name]) for step in ordered]
    x = Axis(label=label, ticks=[(level, number(level)) for level in levels] if len(levels) <= 10 else (), log=True)
    lines = [Line(name="OK", color=1, points=_points(levels, [step["throughput_per_s"] for step in ordered]))]
    if ordered[0]["goodput"]["objective_ms"] is not None:
        good = [step["goodput"]["per_s"] for step in ordered]
        lines.append(Line(name="within the objective", color=2, points=_points(levels, good)))
    latencies = [
        Line(name=each, color=color, points=_points(levels, [(step["latency_ms"] or {}).get(each) for step in ordered]))
        for color, each in enumerate(("p50", "p90", "p99"), 1)
    ]
    shares = [None if (share := step["goodput"]["share"]) is None else 100 * share for step in ordered]
    charts = [
        line_chart("Throughput by load", lines, x, Axis(label="a second")),
        line_chart("Latency by load", latencies, x, Axis(label="ms", log=True)),
        line_chart(
            "Good answers by load", [Line(name="good", color=2, points=_points(levels, shares))], x, Axis(label="%")
        ),
    ]
    rows = [[load_text(step["load"]), *_figures(step)] for step in ordered]
    return f"<section class=charts>{''.join(charts)}</section>{_table(['load', *_FIGURES], rows)}"


def _step(step: Report, *, is_open: bool) -> str:
    series = step["series"]
    interval_s = series["interval_s"]
    at = [interval_s * (index + 0.5) - step["warmup_s"] for index in range(len(series["points"]))]
    pick = partial(_picked, at, series["points"])
    seconds = Axis(label="seconds; the warm-up is before 0" if step["warmup_s"] else "seconds")
    charts = [
        line_chart(
            "Answers over time",
            [
                Line(name="OK", color=1, points=pick("ok_per_s")),
                *([Line(name="failed", color=3, points=pick("failed_per_s"))] if step["failed"] else []),
            ],
            seconds,
            Axis(label="a second"),
        ),
        line_chart(
            "Latency over time",
            [Line(name="p50", color=1, points=pick("p50_ms")), Line(name="p99", color=2, points=pick("p99_ms"))],
            seconds,
            Axis(label="ms", log=True),
        ),
        _curve(step),
    ]
    warnings = "".join(f"<li>{_text(warning)}</li>" for warning in step["warnings"])
    tables = [
        *(_server(model, statistics) for model, statistics in step["server"].items()),
        _generator(step),
    ]
    wide = [
        _classes(step) if len(step["classes"]) > 1 else "",
        _table(["status", "requests", "first message"], map(_status, step["statuses"]), kind="messages"),
        _table(["sent again after", "attempts", ""], map(_status, step["retried"]), kind="messages")
        if step["retried"]
        else "",
    ]
    return (
        f"<details{' open' if is_open else ''}><summary>{_text(load_text(step['load']))}</summary>"
        f"{f'<ul class=warnings>{warnings}</ul>' if warnings else ''}"
        f"<section class=charts>{''.join(charts)}</section>{''.join(wide)}"
        f"<section class=tables>{''.join(tables)}</section></details>"
    )


def _curve(step: Report) -> str:
    """Draw latency by percentile, on an axis where 90, 99 and 99.9 % are as far apart."""
    points = [(-log10(1 - percentile / 100), value) for percentile, value in step["curve"] if percentile < 100]
    ticks = [(-log10(1 - percentile / 100), f"{percentile:g}") for percentile in _NINES]
    line = Line(name="latency", color=1, points=points)
    return line_chart("Latency by percentile", [line], Axis(label="% of OK answers", ticks=ticks), Axis(label="ms"))


def _classes(step: Report) -> str:
    return _table(["class", *_FIGURES], ([each["name"], *_figures(each)] for each in step["classes"]))


def _figures(counted: Report) -> list[str]:
    latency: dict[str, float] = counted["latency_ms"] or {}
    return [
        number(counted["throughput_per_s"]),
        number(counted["rows_per_s"]),
        _percent(counted["goodput"]["share"]),
        *("" if name not in latency else number(latency[name]) for name in ("p50", "p90", "p99", "p99.9", "max")),
        f"{counted['failed']:,}",
    ]


def _status(status: Report) -> list[str]:
    return [f"{status['code']} {status['reason']}".strip(), f"{status['count']:,}", status["message"]]


def _server(model: str, statistics: Report) -> str:
    if "unavailable" in statistics:
        return f"<p class=note>No statistics of the server for {_text(model)}: {_text(statistics['unavailable'])}.</p>"
    stages = [
        [name.replace("_", " "), "" if value is None else _ms(value)] for name, value in statistics["mean_ms"].items()
    ]
    mean = statistics["mean_batch_rows"]
    rows = [
        ["rows", f"{statistics['rows']:,}"],
        ["runs", f"{statistics['runs']:,}"],
        ["mean batch", "" if mean is None else f"{number(mean)} rows"],
        ["requests that failed", f"{statistics['failed']:,}"],
        *([f"mean time, {name}", text] for name, text in stages),
    ]
    return _table([f"the server's own count, {model}", ""], rows)


def _generator(step: Report) -> str:
    generator = step["generator"]
    lag = generator["send_lag_ms"]
    rows = [["share of a core, busiest process", _percent(generator["cpu_share"])]]
    if lag and step["load"]["kind"] != "closed":
        rows.append(["sent later than meant", f"median {_ms(lag['p50'])}, 99 % within {_ms(lag['p99'])}"])
    rows.append(["most requests in flight", f"{step['most_in_flight']:,}"])
    return _table(["the generator", ""], rows)


def _settings(report: Report) -> str:
    plan: dict[str, Any] = report["plan"]
    classes = plan["classes"]
    rows = [[name.replace("_", " "), str(value)] for name, value in plan.items() if name != "classes"]
    rows += [[name, str(value)] for name, value in report["generator"].items() if name != "machine"]
    rows += [[f"machine, {name}", str(value)] for name, value in report["generator"]["machine"].items()]
    columns = list(classes[0])
    traffic = _table(
        [name.replace("_", " ") for name in columns], ([str(each[c]) for c in columns] for each in classes)
    )
    return f"<details><summary>Settings</summary>{traffic}{_table(['setting', 'value'], rows)}</details>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "figures") -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll {kind}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _picked(at: Sequence[float], points: Sequence[Report], name: str) -> list[tuple[float, float | None]]:
    return _points(at, [point[name] for point in points])


def _points(at: Sequence[float], values: Sequence[float | None]) -> list[tuple[float, float | None]]:
    return list(zip(at, values, strict=True))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{number(value)} ms"


def _text(text: str) -> str:
    return escape(escaped(text))
