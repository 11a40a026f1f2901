"""Logs, metrics, load reports and traces of one server."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import CollectorRegistry

from inferd.api.services import method_names
from inferd.batching.batcher import Batcher
from inferd.config.logging import LogSettings
from inferd.config.settings import Settings
from inferd.generation.engine import GenerationEngine
from inferd.models.registry import ModelRegistry
from inferd.observability.logging import setup as logs
from inferd.observability.logging.access_log import AccessLog
from inferd.observability.logging.setup import renderer
from inferd.observability.logging.writer import LineWriter, write_to
from inferd.observability.metrics.gpu import GpuSampler
from inferd.observability.metrics.load_report import LoadReporter, LoadSources
from inferd.observability.metrics.loads import ModelLoads
from inferd.observability.metrics.registry import Metrics, ModelSample, new_registry
from inferd.observability.metrics.run_cost import RunCost
from inferd.observability.recorder import CallRecorder
from inferd.observability.tracing.setup import Tracing
from inferd.page.routes import OPERATIONS
from inferd.runtime.resources import resident_bytes, usable_bytes, usable_cores
from inferd.security.authorization.methods import MethodKind, methods_of

_STDOUT = 1


class LogOutput:
    """The log: the thread that writes lines to stdout, their format and, once started, the levels."""

    def __init__(self, settings: LogSettings) -> None:
        self.writer = LineWriter(write_to(_STDOUT))
        self.render = renderer(settings.format, colors=os.isatty(_STDOUT))
        self._settings = settings
        self._control: logs.LogControl | None = None

    def start(self) -> None:
        """Start writing, and configure Python's loggers."""
        self.writer.start()
        self._control = logs.configure(self._settings, self.writer, self.render)

    def change(self, settings: LogSettings) -> bool:
        """Apply other levels. Returns False, without effect, before `start`."""
        if self._control is None:
            return False
        self._control.change(settings)
        return True

    def stop(self) -> None:
        """Write all lines, and stop."""
        if self._control is not None:
            self._control.flush()
        self.writer.stop()


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """Log, metrics, access log, load reports and traces."""

    log: LogOutput
    registry: CollectorRegistry
    recorder: CallRecorder
    metrics: Metrics
    access_log: AccessLog
    load: LoadReporter
    tracing: Tracing
    gpus: GpuSampler
    model_loads: ModelLoads
    model_samples: Callable[[], Iterable[ModelSample]]
    run_costs: Callable[[], Mapping[tuple[str, str], RunCost]]


def build_telemetry(settings: Settings, models: ModelRegistry) -> Telemetry:
    """Build the components; nothing is started."""
    log = LogOutput(settings.log)
    registry, recorder = new_registry(), CallRecorder()
    metrics = Metrics(
        registry, recorder, methods=method_names().union(OPERATIONS), triton_names=settings.server.triton_metrics
    )
    load_sources = LoadSources(
        models=partial(_model_samples, models),
        busy_s=metrics.busy_s,
        calls=metrics.requests.read,
        cpu_s=time.process_time,
        memory_bytes=resident_bytes,
        cores=usable_cores(),
        memory_limit_bytes=usable_bytes(),
    )
    return Telemetry(
        log=log,
        registry=registry,
        recorder=recorder,
        metrics=metrics,
        access_log=AccessLog(settings.log, recorder, log.writer, log.render),
        load=LoadReporter(load_sources),
        tracing=Tracing(settings.tracing, untraced=methods_of(MethodKind.HEALTH)),
        gpus=GpuSampler(),
        model_loads=ModelLoads(),
        model_samples=load_sources.models,
        run_costs=partial(_run_costs, models),
    )


def _model_samples(models: ModelRegistry) -> Iterable[ModelSample]:
    """Yield the current values of each model version, for metrics and load reports."""
    for version in models.all():
        batcher, generator = version.batcher, version.generator
        state = ModelSample(
            model=version.name,
            version=version.version,
            state=version.state.value,
            memory_bytes=version.memory_bytes,
            device_memory_bytes=version.device_memory_bytes,
        )
        if batcher is not None:
            yield _loaded(state, batcher)
        elif generator is not None:
            yield _loaded_language_model(state, generator)
        else:
            yield state


def _loaded(state: ModelSample, batcher: Batcher) -> ModelSample:
    instances = batcher.instances
    return replace(
        state,
        queue_rows=batcher.queue_rows,
        queue_requests=batcher.waiting.count,
        queue_limit_rows=batcher.queue_limit_rows,
        queue_bytes=batcher.queue_bytes,
        instances=instances.count,
        instances_under_load=instances.may_be,
        instance_changes=instances.changes if instances.may_change else {},
        capacity_rows_per_s=instances.may_be * batcher.most_rows_per_s,
        stuck_threads=batcher.stuck_threads,
        max_rows=batcher.max_rows,
        one_core_batches=batcher.one_core_batches,
        is_broken=bool(batcher.why_broken),
    )


def _loaded_language_model(state: ModelSample, generator: GenerationEngine) -> ModelSample:
    sample = generator.sample()
    return replace(
        state,
        queue_requests=sample.waiting,
        instances=1,
        instances_under_load=1,
        stuck_threads=generator.stuck_threads,
        is_broken=bool(generator.why_broken),
        generation=sample,
    )


def _run_costs(models: ModelRegistry) -> Mapping[tuple[str, str], RunCost]:
    """Return what runs of each model version are predicted to take, by name and version."""
    costs = {}
    for version in models.all():
        cost = None if version.batcher is None else version.batcher.run_cost()
        if cost is not None:
            costs[version.name, version.version] = cost
    return costs
