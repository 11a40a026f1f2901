"""The autoscaling signal of a replica at a fifth, once, twice and five times its capacity.

The replica is the server's own queue, executor and metrics with a fake clock: requests arrive at a fixed rate, whether
or not earlier ones are answered, and runs take a fixed time. So its capacity is known, and nothing depends on the
machine. promtool evaluates the chart's query, with the recording rules, over the scrapes of these metrics. The last
test verifies that a real server exposes the same metrics.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd.batching.batcher import Batcher
from inferd.config.settings import BatchingSettings, QueueSettings
from inferd.observability.metrics.registry import Metrics, ModelSample, new_registry
from inferd.observability.recorder import CallRecorder
from inferd.runtime.signature import Tensors
from tests import onnx_models
from tests.chart.rendering import PATIENCE_S, rendered
from tests.fakes import Array, Caller, FakeClock, FakeSession, ManualPollThread, scale
from tests.load import array, connect, metric, request
from tests.prometheus import PROMTOOL, RULES
from tests.server import serving
from tests.unit.observability.metrics.samples import sources

LOADS = (0.2, 1.0, 2.0, 5.0)
#: The self-check of batches takes a hundredth of the time.
TOLERANCE = 0.03

SCRAPE_S = 15.0
SCRAPES = 17

#: Duration of a run. A single row costs three times as much as a row in a batch of four.
FIXED_S, ROW_S = 0.8, 0.1

_SAMPLE = re.compile(r"^(inferd_\w+)\{(.*version=.*)\} (\S+)$", re.MULTILINE)


class _Replica:
    """A server without sockets and threads, with a fake clock."""

    def __init__(self, max_rows: int) -> None:
        self.capacity = max_rows / _run_s(max_rows)
        self._clock = FakeClock(0.0)
        self._registry = new_registry()
        metrics = Metrics(self._registry, CallRecorder(), methods=[])
        poll_thread = ManualPollThread(self._clock)
        self._batcher = Batcher(
            name="m",
            session=FakeSession(self._compute),
            queue=QueueSettings(),
            batching=BatchingSettings(max_batch_size=max_rows, max_wait_ms=0.0),
            max_run_s=60.0,
            clock=self._clock,
            poll_thread=poll_thread,
            alarm=poll_thread,
            stats=metrics.stats_for("m", "1"),
        )
        metrics.set_sources(sources(self._sample()))
        self._metrics = metrics
        self._every_s = self._next_request = self._next_scrape = 0.0
        self._scrapes: list[str] = []

    def scraped(self, rate_per_s: float) -> list[str]:
        """Submit requests at ``rate_per_s``; return the scrapes meanwhile."""
        self._every_s = 1 / rate_per_s
        self._next_request = self._clock.now
        self._next_scrape = self._clock.now + SCRAPE_S
        self._scrapes = []
        while len(self._scrapes) < SCRAPES:
            if not self._batcher.queue_rows:
                self._pass(min(self._next_request, self._next_scrape))
                continue
            batch = self._batcher.queue.take(None)
            assert batch is not None
            self._batcher.queue._run_here(batch)
            self._batcher.queue.retire(batch)
        return self._scrapes[:SCRAPES]

    def _compute(self, inputs: Tensors) -> Mapping[str, Array]:
        self._pass(self._clock.now + _run_s(len(inputs["x"])))
        return scale(inputs)

    def _pass(self, until: float) -> None:
        """Let requests and scrapes come until then."""
        while (now := min(self._next_request, self._next_scrape)) <= until:
            self._clock.now = now
            if now == self._next_scrape:
                self._next_scrape += SCRAPE_S
                self._metrics.set_sources(sources(self._sample()))
                self._scrapes.append(generate_latest(self._registry).decode())
            else:
                self._next_request += self._every_s
                self._batcher.queue.submit([Caller(received_at=now).request])
        self._clock.now = until

    def _sample(self) -> ModelSample:
        rate = self._batcher.most_rows_per_s
        return ModelSample(model="m", version="1", state="ready", instances=1, capacity_rows_per_s=rate)


def _run_s(rows: int) -> float:
    return FIXED_S + ROW_S * rows


def _series(scrapes: list[str]) -> list[dict[str, str]]:
    values: dict[str, list[str]] = {}
    for scrape in scrapes:
        for name, labels, value in _SAMPLE.findall(scrape):
            series = f'{name}{{namespace="ns", job="rel", instance="a", {labels}}}'
            values.setdefault(series, []).append(value)
    return [{"series": series, "values": " ".join(found)} for series, found in values.items()]


def trigger(**autoscaling: Any) -> tuple[str, float]:
    """Return the chart's query and its target per replica."""
    keda = {"mode": "keda", "keda": {"serverAddress": "http://prometheus"}, **autoscaling}
    trigger = rendered({"autoscaling": keda})["ScaledObject", "rel-inferd"]["spec"]["triggers"][0]
    return trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])


def check(folder: Path, scrapes: list[str], bounds: list[tuple[str, float, float]]) -> None:
    """Evaluate each query over the scrapes with promtool: its result must be within its bounds."""
    at = f"{round(SCRAPE_S * (len(scrapes) - 1))}s"
    cases = [
        {"expr": f"{query} {compared} bool {bound}", "eval_time": at, "exp_samples": [{"value": 1}]}
        for query, least, most in bounds
        for compared, bound in ((">=", least), ("<=", most))
    ]
    test = {"interval": f"{round(SCRAPE_S)}s", "input_series": _series(scrapes), "promql_expr_test": cases}
    file = folder / "scrapes.test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES / "recording.yaml")], "evaluation_interval": "15s", "tests": [test]})
    )
    command = [PROMTOOL, "test", "rules", file]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rows", [1, 4], ids=["one by one", "in batches"])
def test_signal_is_number_of_replicas_for_load(rows: int, tmp_path: Path) -> None:
    """It keeps growing while requests are rejected, with a given and with a measured capacity.

    At a fifth of the capacity, the replica runs single rows, but has run full batches before.
    """
    replica = _Replica(rows)
    replica.scraped(2 * replica.capacity)
    given, threshold = trigger(rowsPerSecondPerReplica=round(replica.capacity, 3))
    found, _ = trigger()
    for load in LOADS:
        scrapes = replica.scraped(load * replica.capacity)
        # Replicas, before rounding.
        wanted = load / threshold
        least, most = (wanted * (1 - TOLERANCE), wanted * (1 + TOLERANCE))
        served = "sum(inferd:served_rows:rate2m)"
        possible = min(load, 1.0) * replica.capacity
        queries = [(f"({query}) / {threshold}", least, most) for query in (given, found)]
        check(tmp_path, scrapes, [*queries, (served, possible * (1 - TOLERANCE), possible * (1 + TOLERANCE))])


def test_real_server_exposes_metrics_of_query(tmp_path: Path) -> None:
    """Offered rows, and the throughput of its runs, whatever their duration."""
    calls = 5
    model = onnx_models.save(onnx_models.slow(steps=2, width=4), tmp_path / "m.onnx")
    with serving(model) as server, connect(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        for _ in range(calls):
            stub.Infer(request("m", array(1, length=4)), timeout=PATIENCE_S)
        offered, rows, busy_s, capacity = (
            metric(server, name, model="m", version="1")
            for name in (
                "inferd_offered_rows_total",
                "inferd_batch_rows_sum",
                "inferd_inference_duration_seconds_sum",
                "inferd_model_capacity_rows_per_second",
            )
        )
    assert offered == rows == calls
    assert capacity == pytest.approx(rows / busy_s)
