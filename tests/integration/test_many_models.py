"""A server with many models, most of them idle."""

import gzip
import os
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np

from inferd.client import Client
from tests import onnx_models
from tests.server import serving

MODELS = 100


def test_idle_models_cost_few_threads_and_series(tmp_path: Path) -> None:
    """Workers start with the first request, and the number of ONNX Runtime's threads is limited."""
    for number in range(MODELS):
        folder = tmp_path / "models" / f"m{number}" / "1"
        folder.mkdir(parents=True)
        onnx_models.save(onnx_models.linear(), folder / "model.onnx")
    with serving(tmp_path / "models", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")}) as server:
        before = _threads(server.process.pid)
        cores = os.cpu_count() or 1
        assert before < 24 + 2 * cores + 64 + 8 * cores
        with Client(server.grpc) as client:
            assert client.infer("m7", {"x": np.zeros((1, 3), np.float32)})["y"].tolist() == [[1, 1, 1]]
        assert _threads(server.process.pid) <= before + 2
        request = urllib.request.Request(f"http://{server.http}/metrics", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request) as response:
            compressed = response.read()
        text = gzip.decompress(compressed)
        assert len(compressed) < len(text) / 5
        assert text.count(b'model="m6"') < text.count(b'model="m7"') / 2


def _threads(pid: int) -> int:
    """Return the number of threads without those of gRPC's core, which starts some more on a busy machine."""
    names = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            names.append((thread / "comm").read_text().strip())
    return len(names) - names.count("event_engine")
