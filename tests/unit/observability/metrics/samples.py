"""What a scrape of the metrics finds: a model, its predictions and two batches."""

from dataclasses import replace
from types import SimpleNamespace

import grpc

from inferd.observability.metrics.generation import FinishedGeneration, GenerationSample, GenerationStats
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import Histogram
from inferd.observability.metrics.loads import LoadCounts
from inferd.observability.metrics.models import BatchReport, RunOutcome
from inferd.observability.metrics.registry import Metrics, MetricSources, ModelSample
from inferd.observability.metrics.residency import MemorySample, ResidencyCounter, ResidencySample
from inferd.observability.metrics.routing import RoutedVersion
from inferd.observability.metrics.run_cost import PredictedRun, RunCost
from inferd.remote.counts import RemoteCount
from tests.unit.observability.fakes import FakeCall

REPORT = BatchReport(
    rows=3,
    decode_s=[0.001, 0.003],
    queue_s=[0.002, 0.2],
    stack_s=0.1,
    run_s=0.03,
    split_s=0.1,
    outcome=RunOutcome.COMPLETED,
    answered=2,
)
FAILED = replace(REPORT, stack_s=0.0, split_s=0.0, outcome=RunOutcome.FAILED, answered=0)

COST = RunCost(
    sizes=(PredictedRun(1, 0.001, 0.002), PredictedRun(2, 0.0015, 0.003), PredictedRun(4, 0.002, 0.004)),
    error=0.125,
    runs=100,
)

READY = ModelSample(
    model="digits",
    version="1",
    state="ready",
    queue_rows=7,
    queue_requests=5,
    queue_limit_rows=70,
    queue_bytes=800,
    instances=2,
    instances_under_load=3,
    instance_changes={"load": 1, "idle": 0},
    capacity_rows_per_s=450.5,
    memory_bytes=9000,
)

LANGUAGE_MODEL = ModelSample(
    model="lm",
    version="1",
    state="ready",
    instances=1,
    instances_under_load=1,
    generation=GenerationSample(
        running=6,
        max_running=8,
        waiting=2,
        waiting_tokens=500,
        cache_bytes=4000,
        cache_used_bytes=1000,
        capacity_tokens_per_s=250.5,
    ),
)

FINISHED = FinishedGeneration(
    reason="stop", prompt_tokens=10, generated_tokens=3, max_tokens=30, queue_s=0.5, prefill_s=0.25, duration_s=1.0
)


def generate(stats: GenerationStats) -> None:
    """Count `FINISHED`: a prompt in two runs, and two steps beside another sequence."""
    stats.offered(10, 30)
    stats.started(0.5)
    stats.prefill(8, 0.2)
    stats.prefill(2, 0.05)
    stats.first_token(0.75)
    for _ in range(2):
        stats.step(2, 0.1)
        stats.token_intervals(0.125, 2)
    stats.finished(FINISHED)


def sources(*models: ModelSample) -> MetricSources:
    durations = Histogram([1.0])
    durations.observe_all([0.5, 1.5])
    counter = ResidencyCounter()
    counter.load_begins("digits", "demand")
    counter.evicted("digits", in_use=False)
    gpu = GpuSample(index="0", uuid="GPU-1", utilization=0.25, used_bytes=10, total_bytes=40)
    return MetricSources(
        models=lambda: models,
        run_costs=lambda: {("digits", "1"): COST},
        loads=lambda: {"digits": LoadCounts({"ready": 2, "failed": 1, "cancelled": 0}, durations, unloads=1)},
        residency=lambda: ResidencySample(
            memory=(
                MemorySample(kind="host", used=300, reserved=100, budget=500),
                MemorySample(kind="device", used=0, reserved=0, budget=None),
            ),
            waiting_loads=2,
            counts=counter.read(),
            cold_requests={"digits": 7},
        ),
        routing=lambda: [
            RoutedVersion(model="digits", version="2", labels=("canary", "new"), share=0.1),
            RoutedVersion(model="digits", version="1", labels=(), share=0.9),
        ],
        shadows=lambda: {("digits", "2"): {"equal": 5, "different": 1}},
        inflight_requests=lambda: 4,
        server_usage=lambda: SimpleNamespace(
            held_bytes=100, taken_bytes=250, budget_bytes=1000, rejected={"MEMORY_BUDGET": 3, "NO_THREAD": 0}
        ),
        poll_lag_s=lambda: 0.5,
        log_lines_dropped=lambda: 6,
        certificate_expiry=lambda: {"certificate": 2e9, "client_ca": 3e9},
        certificate_lifetimes_s=lambda: {"certificate": 3600.0, "client_ca": 86400.0},
        file_reload_failures=lambda: {"tls": 1, "tokens": 0},
        spans_dropped=lambda: 7,
        quota_rejections=lambda: {"requests_per_s": 2, "rows_per_s": 0},
        jwks_age_s=lambda: 12.5,
        http_refused=lambda: {400: 2, 408: 0},
        remote=lambda: RemoteCount(
            downloaded_bytes=1000,
            pending_bytes=20,
            cache_bytes=3000,
            files={"cached": 2, "downloaded": 1},
            listings={("s3://models", "listed"): 4, ("s3://models", "failed"): 1},
        ),
        gpus=lambda: [gpu, replace(gpu, index="1", uuid="GPU-2", utilization=None)],
    )


def finish(metrics: Metrics, code: grpc.StatusCode = grpc.StatusCode.OK, **call: object) -> None:
    metrics.requests.count([FakeCall(ended_at=100.03, **call).ended(code)])
