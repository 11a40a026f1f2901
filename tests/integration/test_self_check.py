"""The self-check detects a model that was wrongly proven, in a real server."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import parser

from inferd.client import Client
from tests import onnx_models
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

#: Rows above 100 get the sum of the batch added to them.
_MODEL = """
<ir_version: 9, opset_import: ["": 20]>
g (float[batch,4] x) => (float[batch,4] y) <float limit = {100.0}, float none = {0.0}, int64[1] rows = {0},
    int64[1] columns = {1}> {
  size = Abs (x)
  largest = ReduceMax (size, columns)
  is_large = Greater (largest, limit)
  total = ReduceSum (x, rows)
  added = Where (is_large, total, none)
  y = Add (x, added)
}"""


@pytest.fixture
def server(tmp_path):
    """With a verdict in its cache that the model is proven."""
    model = onnx_models.save(parser.parse_model(_MODEL), tmp_path / "sums" / "1" / "model.onnx").parents[1]
    cache = tmp_path / "verdicts"
    arguments = (model, "--set", f"runtime.verdict_cache={cache}", "--set", "batching.max_wait_ms=0")
    with serving(*arguments):
        # Beside it is whether the file could be opened.
        (file,) = (each for each in cache.iterdir() if "standing" in each.read_text())
        verdict = json.loads(file.read_text())
        assert verdict["standing"] == "contradicted"
    verdict |= {"standing": "proven", "reason": "", "axes": {"inputs": {"x": 0}, "outputs": {"y": 0}}}
    file.write_text(json.dumps(verdict))
    with serving(*arguments) as running:
        yield running


def _mismatches(server):
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    return float(text.split('inferd_batch_mismatches_total{model="sums",version="1"} ')[1].split("\n")[0])


def test_detects_model_that_mixes_large_rows(server):
    """It is no longer batched, its verdict has the reason, and its answers are right from then on."""
    with Client(server.grpc) as client, ThreadPoolExecutor(16) as pool:

        def ask(value):
            (y,) = client.infer("sums", {"x": np.full((1, 4), value, np.float32)}).outputs.values()
            return y[0, 0] == (value if value <= 100 else 2 * value)

        assert all(pool.map(ask, range(100)))
        assert client.model("sums").batching.verdict == "proven"

        def is_caught():
            list(pool.map(ask, range(1000, 1032)))
            return client.model("sums").batching.verdict == "contradicted"

        eventually(is_caught, "it is caught")
        described = client.model("sums").batching
        assert (described.verdict, described.enabled, described.mismatches) == ("contradicted", False, 1)
        assert described.verdict_reason.startswith("found while serving: element [0, ")
        assert 'of output "y" differs by' in described.verdict_reason
        assert all(pool.map(ask, range(2000, 2200)))
    assert _mismatches(server) == 1
    line = server.wait_event(
        "a request to model sums gets another answer in a batch than alone; its version is no longer batched"
    )
    assert line["level"] == "error"
    assert len(line["request_ids"]) > 1
