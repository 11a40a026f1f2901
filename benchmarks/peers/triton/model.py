"""Triton's Python backend over ONNX Runtime, for any model: stack the requests of a batch, run, split."""
# ruff: noqa: E402  # The packages are found once the path is set.

import os
import sys

# The stub process ignores PYTHONPATH.
sys.path[:0] = os.environ["BENCH_PATH"].split(":")

import numpy as np
import triton_python_backend_utils as triton
from common import session


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, _args: dict) -> None:
        """Load the model."""
        self._session = session()
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    def execute(self, requests: list) -> list:
        """Answer a batch. Triton batches only requests whose shapes are equal but for the rows."""
        columns = [
            [triton.get_input_tensor_by_name(request, name).as_numpy() for request in requests] for name in self._inputs
        ]
        feeds = {
            name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            for name, arrays in zip(self._inputs, columns, strict=True)
        }
        results = self._session.run(self._outputs, feeds)
        responses, start = [], 0
        for first in columns[0]:
            stop = start + len(first)
            tensors = [
                triton.Tensor(name, result[start:stop]) for name, result in zip(self._outputs, results, strict=True)
            ]
            responses.append(triton.InferenceResponse(output_tensors=tensors))
            start = stop
        return responses
