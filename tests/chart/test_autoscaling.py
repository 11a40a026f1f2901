"""What an autoscaler is told of a real server under a fifth, once, twice and five times the load that it can take.

The server is scraped while requests come at a fixed rate, whether or not earlier ones were answered. promtool then
evaluates the chart's own query by the recording rules. The scrapes count as `STRETCH` times further apart than they
were, so that seconds fill the rules' windows of minutes: all rates are that much lower, and ratios as they were.
"""

import re
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.chart.rendering import rendered
from tests.load import connect, metric
from tests.prometheus import PROMTOOL, RULES
from tests.server import ServerProcess, serving

LOADS = (0.2, 1.0, 2.0, 5.0)
TOLERANCE = 0.15

SCRAPES = 14
SCRAPED_EVERY_S = 0.25
STRETCH = 60
WIDTH = 256
TOO_MANY = 16

_SAMPLE = re.compile(r'^(inferd_\w+)\{(.*model="slow".*)\} (\S+)$', re.MULTILINE)


def _request() -> v1.InferRequest:
    x = np.ones((1, WIDTH), np.float32)
    return v1.InferRequest(inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())])


def _capacity(server: ServerProcess, channel: grpc.Channel) -> float:
    """Return how many rows a second are answered while there are always some that wait."""
    stub = InferenceServiceStub(channel)
    ends_at = time.monotonic() + SCRAPES * SCRAPED_EVERY_S

    def call() -> None:
        while time.monotonic() < ends_at:
            stub.Infer(_request(), timeout=10)

    threads = [threading.Thread(target=call) for _ in range(TOO_MANY)]
    before, started = metric(server, "inferd_batch_rows_sum"), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (metric(server, "inferd_batch_rows_sum") - before) / (time.monotonic() - started)


def _scrapes(server: ServerProcess, channel: grpc.Channel, rate_per_s: float) -> list[str]:
    """Send requests at ``rate_per_s``; return what ``/metrics`` says meanwhile."""
    stub = InferenceServiceStub(channel)
    done = threading.Event()

    def send() -> None:
        started = time.monotonic()
        calls = []
        while not done.is_set():
            calls.append(stub.Infer.future(_request(), timeout=10))
            done.wait(max(0.0, started + len(calls) / rate_per_s - time.monotonic()))
        for call in calls:
            call.exception()

    sender = threading.Thread(target=send)
    sender.start()
    scrapes = []
    started = time.monotonic()
    for number in range(SCRAPES):
        done.wait(max(0.0, started + (number + 1) * SCRAPED_EVERY_S - time.monotonic()))
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as response:
            scrapes.append(response.read().decode())
    done.set()
    sender.join()
    return scrapes


def _series(scrapes: list[str]) -> list[dict[str, str]]:
    values: dict[str, list[str]] = {}
    for scrape in scrapes:
        for name, labels, value in _SAMPLE.findall(scrape):
            series = f'{name}{{namespace="ns", job="rel", instance="a", {labels}}}'
            values.setdefault(series, []).append(value)
    return [{"series": series, "values": " ".join(found)} for series, found in values.items()]


def _trigger(**autoscaling: Any) -> tuple[str, float]:
    """Return the chart's query and how much of it each replica is to have."""
    keda = {"mode": "keda", "keda": {"serverAddress": "http://prometheus"}, **autoscaling}
    trigger = rendered({"autoscaling": keda})["ScaledObject", "rel-inferd"]["spec"]["triggers"][0]
    return trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])


def _check(folder: Path, scrapes: list[str], bounds: list[tuple[str, float, float]]) -> None:
    """Have promtool evaluate each query over the scrapes: it must be between its bounds."""
    interval_s = round(SCRAPED_EVERY_S * STRETCH)
    at = f"{interval_s * (len(scrapes) - 1)}s"
    cases = [
        {"expr": f"({query}) * {STRETCH} {compared} bool {bound}", "eval_time": at, "exp_samples": [{"value": 1}]}
        for query, least, most in bounds
        for compared, bound in ((">=", least), ("<=", most))
    ]
    test = {"interval": f"{interval_s}s", "input_series": _series(scrapes), "promql_expr_test": cases}
    file = folder / "scrapes.test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES / "recording.yaml")], "evaluation_interval": "15s", "tests": [test]})
    )
    done = subprocess.run([PROMTOOL, "test", "rules", file], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rows", [1, 4], ids=["one by one", "in batches"])
def test_the_autoscaler_is_told_how_many_replicas_it_takes(rows: int, tmp_path: Path) -> None:
    """Within 15 % of what the measured capacity says, and ever more while no more is served and the rest is refused.

    The same by the capacity that the server has found itself.
    """
    model = onnx_models.save(onnx_models.slow(steps=3000, width=WIDTH), tmp_path / "slow.onnx")
    settings = [f"batching.max_batch_size={rows}", "runtime.intra_op_threads=1"]
    flags = [part for setting in settings for part in ("--set", setting)]
    with serving(model, *flags) as server, connect(server.grpc) as channel:
        capacity = _capacity(server, channel)
        scrapes = {load: _scrapes(server, channel, load * capacity) for load in LOADS}
        refused = metric(server, "inferd_rejected_total")
    assert refused > capacity, "five times the capacity is not served"
    measured, threshold = _trigger(rowsPerSecondPerReplica=round(capacity, 3))
    found, _ = _trigger()
    for load in LOADS:
        # Replicas, before they are rounded up.
        wanted = load / threshold
        least, most = (wanted * (1 - TOLERANCE), wanted * (1 + TOLERANCE))
        queries = (f"{measured} / {threshold}", f"{found} / {threshold}")
        _check(tmp_path, scrapes[load], [(query, least, most) for query in queries])
