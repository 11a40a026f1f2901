"""Configurations of the corpus, served as they are, and measured by Triton's own load generator."""

import os
import shutil
import subprocess

import grpc
import pytest

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.dtypes import BY_NAME
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import ROOT, serving

_TOOLS = ROOT / ".venv/perf_analyzer"

#: By configuration: the shape of its model's file, the rows of each request, and max_batch_size.
MODELS = {
    # dynamic_batching with a queue policy.
    "short_queue": (("batch", 4), 2, 64),
    # No scheduler: requests may have rows, and are not combined.
    "two_groups": (("batch", 4), 2, 2),
    # max_batch_size 0: dims are the whole shape.
    "sequential": ((2,), 1, 0),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A repository of Triton's, by its own flags."""
    repository = tmp_path_factory.mktemp("model_repository")
    for name, (shape, _, _) in MODELS.items():
        onnx_models.save(onnx_models.identity(BY_NAME["FP32"], shape), repository / name / "1/model.onnx")
        shutil.copy(ROOT / "tests/data/triton" / name / "config.pbtxt", repository / name)
    with serving("--model-repository", repository, "--strict-readiness", "true") as running:
        yield running


@pytest.mark.parametrize("name", MODELS)
def test_perf_analyzer_measures(server, name):
    """It finds the batching that the configuration says, and each run has whole requests, combined if it says so."""
    _, rows, max_batch_size = MODELS[name]
    command = [str(_TOOLS / "perf_analyzer"), "-m", name, "-u", server.grpc, "-i", "grpc", "-a", "--max-threads", "2"]
    command += ["-b", str(rows), "--concurrency-range", "4", "--request-count", "200"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(_TOOLS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Inference count" in done.stdout
    with grpc.insecure_channel(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        config = stub.ModelConfig(pb.ModelConfigRequest(name=name)).config
        (statistics,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name=name)).model_stats
    assert config.max_batch_size == max_batch_size
    sizes = {each.batch_size for each in statistics.batch_stats}
    if config.HasField("dynamic_batching"):
        assert all(size % rows == 0 for size in sizes)
    else:
        assert sizes == {rows}
    assert statistics.inference_count == rows * statistics.inference_stats.success.count > 0
