"""Reports for tests: 100 requests of two classes, the first ones refused."""

from inferd.bench.recorder import OK, Outcome, Recorder, Window
from inferd.bench.report import SCHEMA, step_report
from inferd.bench.traffic import TrafficClass
from inferd.bench.workers import StepResult

_CLASSES = (TrafficClass(name="<b>one</b>", model="m"), TrafficClass(name="two", model="m"))
_FULL = ("RESOURCE_EXHAUSTED", "QUEUE_FULL")


def a_step(load, latency_s=0.01, failures=3, lag_s=0.0, cpu_share=0.3):
    recorder = Recorder(window=Window(start_s=0.0, warm_s=1.0, end_s=11.0), classes=2, objective_s=0.05, interval_s=1.0)
    for number in range(100):
        intended_s = 1 + number / 10
        recorder.begun()
        failed = number < failures
        recorder.ended(
            Outcome(
                class_index=number % 2,
                rows=2,
                intended_s=intended_s,
                sent_s=intended_s + lag_s,
                ended_s=intended_s + latency_s,
                status=_FULL if failed else OK,
                message="<script>alert(1)</script>\x1b" if failed else "",
            )
        )
    step = step_report(load, StepResult(recorder=recorder, cpu_share=cpu_share), _CLASSES, 50.0, 1.0)
    statistics = {"rows": 10, "runs": 5, "mean_batch_rows": 2.0, "succeeded": 10, "failed": 0, "batches": {"2": 5}}
    step["server"] = {
        "m": {**statistics, "mean_ms": {"queue": 1.0, "compute_infer": None}},
        "n": {"unavailable": "UNIMPLEMENTED"},
    }
    return step


def a_report(*steps, **plan):
    return {
        "schema": SCHEMA,
        "created": "2026-01-01T00:00:00+00:00",
        "target": {"address": "127.0.0.1:1", "server": {"name": "<i>server", "version": "1"}},
        "generator": {"name": "inferd bench", "version": "0", "engine": "e", "processes": 1, "machine": {"cores": 2}},
        "plan": {
            "objective_ms": 50.0,
            "check": False,
            "classes": [{"name": each.name, "model": each.model} for each in _CLASSES],
            **plan,
        },
        "saturation": {"level": 8.0, "reached": True} if len(steps) > 1 else None,
        "interrupted": False,
        "steps": list(steps),
    }
