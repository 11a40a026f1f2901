"""Checks a server's answers before it is measured, because wrong answers can be fast ones."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

from benchmarks.models import Model, Row
from benchmarks.wires import Wire

#: Concurrent requests, enough for the server to batch requests of different callers.
_AT_ONCE = 16
#: The order of summation may depend on the batch size.
_RELATIVE = 1e-3


def check_one(wire: Wire, model: Model, port: int, session: onnxruntime.InferenceSession, row: Row) -> None:
    """Compare one answer with ONNX Runtime's. Raises `ValueError` if they differ."""
    names = [output.name for output in session.get_outputs()]
    results = session.run(names, {name: array[None] for name, array in row.items()})
    expected = dict(zip(names, results, strict=True))
    answer = wire.ask(model, port, row)
    if "" in answer:
        answer = {names[0]: answer[""]}
    elif missing := names - answer.keys():
        msg = f"no output {missing}"
        raise ValueError(msg)
    for name, array in answer.items():
        if array.size != expected[name].size or not np.allclose(
            array.ravel(), expected[name].ravel(), _RELATIVE, model.tolerance
        ):
            msg = f"wrong values in {name!r}: {array.ravel()[:4]}, expected {expected[name].ravel()[:4]}"
            raise ValueError(msg)


def check_many(wire: Wire, model: Model, port: int) -> None:
    """Compare the answers to different concurrent requests."""
    session = load(model)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda row: check_one(wire, model, port, session, row), model.rows()[:_AT_ONCE]))


def load(model: Model) -> onnxruntime.InferenceSession:
    """Load the model for comparison."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
