"""The report of a run: JSON with a versioned schema.

Names with ``_ms`` are in milliseconds, with ``_s`` in seconds. A report is a plain dictionary, so that reports of other
versions are read as they are.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inferd.bench.histogram import CURVE, PERCENTILES, Histogram
from inferd.bench.loads import ClosedLoop, Load, OpenLoop
from inferd.bench.outages import Outage
from inferd.bench.recorder import Interval, Recorder, Status, Tally
from inferd.bench.traffic import TrafficClass
from inferd.bench.workers import StepResult

#: Changes with incompatible changes of the document.
SCHEMA = "inferd-bench/1"

Report = dict[str, Any]

# A generator that sends later, or uses more of a core, is itself the limit.
_TOLERATED_LAG_MS = 2.0
_TOLERATED_LAG_SHARE = 0.1
_TOLERATED_CPU_SHARE = 0.9


def describe_load(load: Load) -> dict[str, object]:
    """Return a load for reports."""
    if isinstance(load, ClosedLoop):
        return {"kind": "closed", "concurrency": load.concurrency}
    if isinstance(load, OpenLoop):
        return {"kind": "open", "process": load.process, "rate_per_s": load.rate_per_s}
    return {"kind": "trace", "requests": len(load.entries)}


def load_text(load: Mapping[str, Any]) -> str:
    """Format the load of a report."""
    if load["kind"] == "closed":
        return f"{load['concurrency']} in flight"
    if load["kind"] == "open":
        return f"{load['rate_per_s']:g}/s {load['process']}"
    return f"trace of {load['requests']}"


def step_report(
    load: Load,
    result: StepResult,
    classes: Sequence[TrafficClass],
    objective_ms: float | None,
    warmup_s: float,
    outage: Outage | None = None,
) -> Report:
    """Return the report of a step."""
    recorder = result.recorder
    duration_s = recorder.window.duration_s
    total = recorder.total()
    lag_ms = summary(recorder.send_lag)
    step: Report = {
        "load": describe_load(load),
        "warmup_s": warmup_s,
        "duration_s": duration_s,
        **_tally(total, duration_s, objective_ms),
        "curve": _curve(total.latency),
        "histogram": total.latency.encoded() if total.latency.count else None,
        "most_in_flight": recorder.most_in_flight,
        "generator": {"cpu_share": result.cpu_share, "send_lag_ms": lag_ms, "held_back": recorder.held_back},
        "classes": [
            {"name": each.name, "model": each.model, **_tally(tally, duration_s, objective_ms)}
            for each, tally in zip(classes, recorder.tallies, strict=True)
        ],
        "series": _series(recorder),
        "outage": None if outage is None else {**asdict(outage), "text": outage.text()},
    }
    step["warnings"] = warnings(step)
    return step


def summary(latencies: Histogram) -> dict[str, float] | None:
    """Return mean, percentiles and maximum, or None without durations."""
    mean, longest = latencies.mean_ms(), latencies.max_ms()
    if mean is None or longest is None:
        return None
    percentiles = {f"p{percentile:g}": value for percentile, value in latencies.percentiles_ms(PERCENTILES).items()}
    return {"mean": mean, **percentiles, "max": longest}


def warnings(step: Report) -> list[str]:
    """Return warnings about conditions that distort the figures of a step."""
    found = [step["outage"]["text"]] if step["outage"] else []
    generator, latency = step["generator"], step["latency_ms"]
    lag = generator["send_lag_ms"]
    tolerated_ms = max(_TOLERATED_LAG_MS, _TOLERATED_LAG_SHARE * latency["p99"] if latency else 0.0)
    if step["load"]["kind"] != "closed" and lag and lag["p99"] > tolerated_ms:
        found.append(
            f"the generator sent late: 99 % within {lag['p99']:.2f} ms; latencies include it. Use --processes, or a "
            "machine of its own"
        )
    if generator["cpu_share"] > _TOLERATED_CPU_SHARE:
        found.append(
            f"the generator used {generator['cpu_share']:.0%} of a core in a process: it may be the limit. Use more "
            "--processes"
        )
    if generator["held_back"]:
        found.append(
            f"{generator['held_back']} requests waited in the generator, because too many were unanswered; their "
            "latency includes it"
        )
    if not step["requests"]:
        found.append("no request was sent in the measured time")
    return found


def write(report: Report, path: Path) -> None:
    """Write a report as JSON. Raises `OSError`."""
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _curve(latency: Histogram) -> list[list[float]]:
    """Return the points of the latency curve for which there are enough requests."""
    told = [percentile for percentile in CURVE if latency.count * (100 - percentile) >= 100]
    return [[percentile, value] for percentile, value in latency.percentiles_ms(told).items()]


def _tally(tally: Tally, duration_s: float, objective_ms: float | None) -> Report:
    return {
        "requests": tally.requests,
        "requests_per_s": tally.requests / duration_s,
        "ok": tally.ok,
        "failed": tally.requests - tally.ok,
        "wrong": tally.wrong,
        "throughput_per_s": tally.completed / duration_s,
        "rows_per_s": tally.completed_rows / duration_s,
        "goodput": {
            "objective_ms": objective_ms,
            "share": tally.within_objective / tally.requests if tally.requests else None,
            "per_s": tally.within_objective / duration_s,
        },
        "latency_ms": summary(tally.latency),
        "latency_from_send_ms": summary(tally.latency_from_send),
        "failure_latency_ms": summary(tally.failure_latency),
        "statuses": _statuses(tally.statuses.counts, tally.statuses.messages),
        "retried": _statuses(tally.retried, {}),
    }


def _statuses(counts: Counter[Status], messages: Mapping[Status, str]) -> list[Report]:
    return [
        {"code": code, "reason": reason, "count": count, "message": messages.get((code, reason), "")}
        for (code, reason), count in counts.most_common()
    ]


def _series(recorder: Recorder) -> Report:
    interval_s, window = recorder.interval_s, recorder.window
    # Requests that end after the step are in no full interval.
    full = int((window.end_s - window.start_s) / interval_s + 1e-6)
    padded = recorder.intervals[:full] + [Interval() for _ in range(full - len(recorder.intervals))]
    return {"interval_s": interval_s, "points": [_point(each, interval_s) for each in padded]}


def _point(interval: Interval, interval_s: float) -> Report:
    percentiles = interval.latency.percentiles_ms((50.0, 99.0))
    return {
        "ok_per_s": interval.ok / interval_s,
        "failed_per_s": interval.failed / interval_s,
        "good_per_s": interval.within_objective / interval_s,
        "p50_ms": percentiles.get(50.0),
        "p99_ms": percentiles.get(99.0),
    }
