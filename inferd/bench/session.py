"""Run a plan on a server, and return the report."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc

import inferd
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.bench.loads import ClosedLoop, Load, OpenLoop, Process, Trace
from inferd.bench.outages import find_outage
from inferd.bench.plan import Plan
from inferd.bench.preparation import prepare
from inferd.bench.recorder import Window
from inferd.bench.report import SCHEMA, Report, describe_load, step_report
from inferd.bench.server import Server
from inferd.bench.statistics import difference
from inferd.bench.sweep import Saturation, StepOutcome, saturating_concurrency, saturating_rate, saturation_of
from inferd.bench.traffic import TrafficClass
from inferd.bench.workers import Progress, Workers

# The length and number of the intervals of the time series.
_SHORTEST_INTERVAL_S = 0.5
_MOST_INTERVALS = 120


@dataclass(frozen=True, slots=True)
class Live:
    """The progress of a step, for the display."""

    load: Mapping[str, Any]
    elapsed_s: float
    total_s: float
    progress: Sequence[Progress]


class _OutageError(Exception):
    """Ends a run: what it measured last was not load."""


class Session:
    """One run of a plan; ``watch`` is called while steps run."""

    def __init__(self, plan: Plan, watch: Callable[[Live], None]) -> None:
        self._plan = plan
        self._watch = watch
        self._steps: list[Report] = []

    def run(self) -> Report:
        """Run all steps. Raises `InferdError`, `InputsError` or `WorkerError`."""
        plan = self._plan
        self._server = Server(plan.principals[""])
        try:
            described = self._server.describe()
            models = {each.model: self._server.model(each.model, each.version) for each in plan.classes}
            job = prepare(plan, self._server, models)
            began = datetime.now(UTC)
            with Workers(job, plan.processes) as self._workers:
                saturation, interrupted = self._run_until_interrupted()
        finally:
            self._server.close()
        return {
            "schema": SCHEMA,
            "created": began.isoformat(timespec="seconds"),
            "target": {"address": plan.principals[""].address, "server": dict(described)},
            "generator": self._generator(),
            "plan": plan.describe(),
            "saturation": None if saturation is None else {"level": saturation.level, "reached": saturation.reached},
            "interrupted": interrupted,
            "steps": self._steps,
        }

    def _run_until_interrupted(self) -> tuple[Saturation | None, bool]:
        """Run all steps, or up to an outage. After Ctrl-C return with the complete ones, if there are any."""
        try:
            return self._run_steps(), False
        except _OutageError:
            return None, False
        except KeyboardInterrupt:
            if not self._steps:
                raise
            return None, True

    def _run_steps(self) -> Saturation | None:
        plan = self._plan
        first = plan.loads[0]
        if plan.to_saturation and isinstance(first, ClosedLoop):
            return saturating_concurrency(first.concurrency, lambda n: self._step(ClosedLoop(concurrency=n)))
        if plan.to_saturation and isinstance(first, OpenLoop):
            process: Process = first.process
            return saturating_rate(
                first.rate_per_s, lambda rate: self._step(OpenLoop(rate_per_s=rate, process=process))
            )
        outcomes = [self._step(load) for load in plan.loads]
        if len(outcomes) == 1:
            return None
        levels = [(_level(load), outcome) for load, outcome in zip(plan.loads, outcomes, strict=True)]
        return saturation_of(levels, closed=isinstance(first, ClosedLoop))

    def _step(self, load: Load) -> StepOutcome:
        plan = self._plan
        # A trace is replayed as a whole.
        warmup_s = 0.0 if isinstance(load, Trace) else plan.warmup_s
        interval_s = max(_SHORTEST_INTERVAL_S, (warmup_s + plan.duration_s) / _MOST_INTERVALS)
        counted = _MeasuredStatistics(self._server, plan.classes)

        def watch(now_s: float, window: Window, progress: Sequence[Progress]) -> None:
            counted.at(now_s, window)
            total_s = window.end_s - window.start_s
            self._watch(Live(describe_load(load), min(max(0.0, now_s - window.start_s), total_s), total_s, progress))

        result = self._workers.run(load, warmup_s, plan.duration_s, interval_s, number=len(self._steps), watch=watch)
        outage = find_outage(result.recorder, self._server.away())
        step = step_report(load, result, plan.classes, plan.objective_ms, warmup_s, outage)
        step["server"] = counted.differences()
        self._steps.append(step)
        if outage is not None:
            raise _OutageError
        return StepOutcome(good_per_s=step["goodput"]["per_s"], good_share=step["goodput"]["share"] or 0.0)

    def _generator(self) -> Report:
        return {
            "name": "inferd bench",
            "version": inferd.__version__,
            "engine": "Python, grpc.aio",
            "grpcio": grpc.__version__,
            "python": platform.python_version(),
            "processes": self._plan.processes,
            "connections": self._plan.connections * self._plan.processes,
            "machine": {"cores": os.cpu_count(), "system": platform.platform()},
        }


class _MeasuredStatistics:
    """The server's statistics at the beginning and end of the measured time."""

    def __init__(self, server: Server, classes: Sequence[TrafficClass]) -> None:
        self._server = server
        self._versions = {each.model: each.version for each in classes}
        self._before: dict[str, list[oip.ModelStatistics] | str] | None = None
        self._after: dict[str, list[oip.ModelStatistics] | str] | None = None

    def at(self, now_s: float, window: Window) -> None:
        """Request the statistics if the measured time has begun or ended."""
        if self._before is None and now_s >= window.warm_s:
            self._before = self._ask()
        if self._after is None and now_s >= window.end_s:
            self._after = self._ask()

    def differences(self) -> Report:
        """Return the increase of each model's statistics."""
        before, after = self._before or self._ask(), self._after or self._ask()
        return {name: difference(before[name], after[name]) for name in self._versions}

    def _ask(self) -> dict[str, list[oip.ModelStatistics] | str]:
        return {name: self._server.statistics(name, version) for name, version in self._versions.items()}


def _level(load: Load) -> float:
    if isinstance(load, ClosedLoop):
        return load.concurrency
    return load.rate_per_s if isinstance(load, OpenLoop) else 0.0
