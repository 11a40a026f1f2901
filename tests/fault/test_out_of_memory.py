"""A server on a machine that is too small for its batches: requests are answered, and it remembers what fits."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inferd.client import Client, Overloaded
from tests import onnx_models
from tests.load import MIB, add_model, metric
from tests.patience import eventually
from tests.server import ServerProcess, serving

#: What a run needs for each row, and what the process may take beyond what it has when it is ready.
_ROW_MIB = 4
_ROOM = 160 * MIB
_ROWS = 64


class _Small:
    """A ready server that has just been left little memory."""

    def __init__(self, server: ServerProcess, arguments: list[str | Path]) -> None:
        self.server = server
        self.arguments = arguments
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
            if line.startswith("VmData:"):
                taken = int(line.split()[1]) * 1024
        resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (taken + _ROOM, taken + _ROOM))

    def max_batch_size(self, client: Client) -> int:
        return client.model("wide").batching.max_batch_size


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Small]:
    folder = tmp_path_factory.mktemp("small")
    settings = {"batching": {"max_batch_size": _ROWS}}
    add_model(folder, "wide", onnx_models.wide(_ROW_MIB), settings)
    add_model(folder, "zeros", onnx_models.zeros(), settings)
    # The queue admits all, however slow the runs are when they are retried.
    admits_all = ("--set", "queue.max_delay_ms=0")
    arguments = [folder, "--set", f"runtime.verdict_cache={folder / 'cache'}", *admits_all]
    with serving(*arguments) as running:
        yield _Small(running, arguments)


def _squares(count: int) -> np.ndarray:
    return np.square(np.arange(count, dtype=np.float32)).reshape(-1, 1)


def _out_of_memory(server: ServerProcess, model: str = "wide") -> float:
    return metric(server, "inferd_out_of_memory_runs_total", model=model)


def test_requests_are_answered_by_halves_and_the_size_is_remembered(small: _Small) -> None:
    """One request of many rows, then many of one; in GetModel, the metrics, and after a restart."""
    with Client(small.server.grpc) as client:
        assert small.max_batch_size(client) == _ROWS
        np.testing.assert_array_equal(
            client.infer("wide", {"x": _squares(_ROWS)})["y"], np.arange(_ROWS, dtype=np.float32).reshape(-1, 1)
        )
        assert _out_of_memory(small.server) >= 1
        # It is learned while the caller gets the last answer.
        eventually(lambda: small.max_batch_size(client) < _ROWS, "a limit")
        fits = small.max_batch_size(client)
        assert metric(small.server, "inferd_model_max_rows", model="wide") == fits
        with ThreadPoolExecutor(32) as callers:
            answers = list(callers.map(lambda x: client.infer("wide", {"x": x}), np.split(_squares(96), 96)))
        assert [answer["y"].item() for answer in answers] == list(range(96))
    assert small.server.process.poll() is None
    with serving(*small.arguments) as again, Client(again.grpc) as client:
        assert 1 <= small.max_batch_size(client) < _ROWS
        assert _out_of_memory(again) == 0


def test_request_that_never_fits_gets_a_clear_error(small: _Small) -> None:
    """It fails alone, without a hint to try again; the model answers others as before."""
    with Client(small.server.grpc) as client:
        with pytest.raises(Overloaded, match="not enough memory") as failed:
            client.infer("zeros", {"size": np.array([10**9])})
        assert failed.value.reason == "OUT_OF_MEMORY"
        assert len(client.infer("zeros", {"size": np.array([3])})["y"]) == 3
    assert _out_of_memory(small.server, "zeros") == 2
    assert metric(small.server, "inferd_model_broken", model="zeros") == 0
