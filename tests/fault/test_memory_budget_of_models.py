"""Eight models on demand with memory for three: all are served, within the budget."""

import random
import re
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inferd.client import Client
from tests.onnx_models import save
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

_MIB = 2**20
_WIDTH = 1024
#: Sizes of the weights. The three largest fit beside each other.
_SIZES = (20, 20, 24, 24, 28, 28, 32, 60)
_BUDGET = 132 * _MIB
_CALLERS = 16
_REQUESTS = 4


def _weighted(mib: int) -> onnx.ModelProto:
    """A model that adds up what it multiplies with ``mib`` of weights, 4 MiB at a time, no two of them the same."""
    names = [f"w{number}" for number in range(mib // 4)]
    weights = [
        numpy_helper.from_array(np.full((_WIDTH, _WIDTH), (number + mib) / _WIDTH, np.float32), name)
        for number, name in enumerate(names)
    ]
    products = [helper.make_node("MatMul", ["x", name], [f"of_{name}"]) for name in names]
    total = helper.make_node("Sum", [f"of_{name}" for name in names], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph([*products, total], "weighted", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Sampler:
    """Reads the resident set of a process again and again."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.001):
            self.most = max(self.most, self._server.resident_bytes())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    for number, mib in enumerate(_SIZES):
        save(_weighted(mib), tmp_path / "models" / f"m{number}" / "1" / "model.onnx")
    environment = {
        "INFERD_REPOSITORY__MODE": "explicit",
        "INFERD_REPOSITORY__LOAD": '["*"]',
        "INFERD_REPOSITORY__ON_DEMAND": "true",
        "INFERD_REPOSITORY__MEMORY_BUDGET_BYTES": str(_BUDGET),
        "INFERD_REPOSITORY__MIN_RESIDENCE_S": "0.1",
        "INFERD_REPOSITORY__PROBE": "false",
        "INFERD_BATCHING__MAX_BATCH_SIZE": "8",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    with serving(tmp_path / "models", environment=environment) as server:
        yield server


def _ask(client: Client, number: int) -> None:
    answer = client.infer(f"m{number}", {"x": np.ones((1, _WIDTH), np.float32)})
    mib = _SIZES[number]
    np.testing.assert_allclose(answer["y"], sum(part + mib for part in range(mib // 4)), rtol=1e-4)


def _caller(address: str, seed: int) -> None:
    choose = random.Random(seed)
    with Client(address, timeout_s=PATIENCE_S) as client:
        for _ in range(_REQUESTS):
            _ask(client, choose.randrange(len(_SIZES)))


def test_random_requests_to_more_models_than_fit(server: ServerProcess) -> None:
    """None fails, no model is evicted while it is used, and the budget is kept once the sizes are known."""
    with Client(server.grpc, timeout_s=PATIENCE_S) as client:
        for number in range(len(_SIZES)):
            _ask(client, number)
        for number in range(len(_SIZES)):
            client.unload_model(f"m{number}")
        base = server.resident_bytes()
        with Sampler(server) as sampler:
            for number in range(len(_SIZES)):
                client.load_model(f"m{number}")
            with ThreadPoolExecutor(_CALLERS) as callers:
                list(callers.map(_caller, [server.grpc] * _CALLERS, range(_CALLERS)))
    taken = sampler.most - base
    assert taken <= 1.05 * _BUDGET
    evicted = server.events("model evicted")
    assert evicted
    assert not [each for each in evicted if each["in_use"]]
    with urllib.request.urlopen(f"http://{server.http}/metrics") as answer:
        samples = re.findall(
            r'^inferd_model_evictions_total\{in_use="false",model="m\d"} (\S+)', answer.read().decode(), re.MULTILINE
        )
    assert sum(map(float, samples)) == len(evicted)
