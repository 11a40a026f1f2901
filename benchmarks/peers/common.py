"""Shared by the peers' servers. The benchmark describes the model in environment variables."""

import os

import numpy as np
import onnxruntime

PORT = int(os.environ["BENCH_PORT"])
INSTANCES = int(os.environ["BENCH_INSTANCES"])
MAX_BATCH_SIZE = int(os.environ["BENCH_MAX_BATCH_SIZE"])


def session() -> onnxruntime.InferenceSession:
    """Load the model with the given number of threads, none of which spins when idle."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])


class RowModel:
    """A model of one FP32 input, whose rows arrive as raw bytes and whose first output leaves the same way."""

    def __init__(self) -> None:
        self._session = session()
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._row = [int(size) for size in os.environ["BENCH_ROW_SHAPE"].split(",")]

    def run(self, bodies: list[bytes]) -> list[bytes]:
        """Answer a batch of requests of one row each."""
        rows = np.frombuffer(b"".join(bodies), np.float32).reshape(len(bodies), *self._row)
        return [row.tobytes() for row in self.run_array(rows)]

    def run_array(self, rows: np.ndarray) -> np.ndarray:
        """Run rows that are stacked already."""
        return self._session.run([self._output], {self._input: rows})[0]
