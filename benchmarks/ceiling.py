"""Throughput of a model without a server: ONNX Runtime called in a loop, at the best batch size.

``python -m benchmarks.ceiling MODEL THREADS [cuda]`` prints rows per second. It is a process of its own, so that it can
be pinned to the server's cores.
"""

import os
import sys
import time

import numpy as np
import onnxruntime

from benchmarks.models import MODELS, ROOT, Model, Row
from benchmarks.process import Placement, run_load
from inferd.runtime import providers

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = 0.4
#: Number of requests of different lengths that represent all of them.
_LENGTHS = 6


def ceiling_rows_per_s(model: Model, placement: Placement, *, cuda: bool = False) -> float:
    """Measure in a separate process on the server's cores, or on its GPU, including copies to and from it."""
    command = [*placement.server, sys.executable, "-m", "benchmarks.ceiling", model.name, str(placement.server_cores)]
    command += ["cuda"] if cuda else []
    # Without the command prefix of the load generator.
    return float(run_load(command, Placement.UNPINNED, {**os.environ, "PYTHONPATH": str(ROOT)}).split()[-1])


def _measure(model: Model, threads: int, *, cuda: bool) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(model.path), options, providers=_providers(cuda=cuda))
    if cuda and session.get_providers()[0] != providers.CUDA:
        msg = "the session does not run on CUDA"
        raise RuntimeError(msg)
    rows = sorted(model.rows(), key=lambda row: max(array.size for array in row.values()))
    same = len({tuple(array.shape for array in row.values()) for row in rows}) == 1
    chosen = rows[:1] if same else rows[len(rows) // _LENGTHS // 2 :: len(rows) // _LENGTHS]
    return len(chosen) / sum(1 / _best(session, row) for row in chosen)


def _providers(*, cuda: bool) -> list[tuple[str, dict[str, str]]]:
    if not cuda:
        return [(providers.CPU, {})]
    providers.preload_cuda()
    # As the server sets it: an exhaustive search would run again for each new shape.
    return [(providers.CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}), (providers.CPU, {})]


def _best(session: onnxruntime.InferenceSession, row: Row) -> float:
    best = 0.0
    for size in _BATCH_SIZES:
        inputs = {name: np.stack([array] * size) for name, array in row.items()}
        session.run(None, inputs)
        runs, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _SECONDS:
            session.run(None, inputs)
            runs += 1
        best = max(best, size * runs / elapsed)
        if elapsed / runs > _SECONDS:
            break
    return best


if __name__ == "__main__":
    print(_measure(MODELS[sys.argv[1]], int(sys.argv[2]), cuda=sys.argv[3:] == ["cuda"]))
