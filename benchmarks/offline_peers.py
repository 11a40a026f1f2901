"""The same jobs as people write them without inferd: a Ray Data pipeline, and a loop over padded batches.

``python -m benchmarks.offline_peers ray MODEL.onnx INPUT.parquet OUTPUT THREADS ACTORS BATCH`` and ``... padded
TOKENIZER_FOLDER INPUT.parquet OUTPUT.parquet BATCH`` print the seconds from the first row on. Each is a process of its
own.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scripts import build_minilm

#: Of MiniLM, the one that is wanted.
OUTPUT = "sentence_embedding"

Columns = dict[str, NDArray[Any]]


def session(path: str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session whose runs have ``threads`` threads, which do not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Model:
    """A model in an actor of Ray."""

    def __init__(self, path: str, threads: int) -> None:
        self._session = session(path, threads)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, batch: Columns) -> Columns:
        """Return the outputs of a batch."""
        # Ray gives lists as an array of arrays.
        rows = np.stack(list(batch[self._input]))
        return dict(zip(self._outputs, self._session.run(None, {self._input: rows}), strict=True))


def ray_pipeline(path: str, source: str, output: str, threads: int, actors: int, batch: int) -> float:
    """Read, run and write with Ray Data, and return the seconds without the start of Ray."""
    import ray  # noqa: PLC0415  (it takes seconds, which the other one need not wait for)

    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    began = time.perf_counter()
    rows = ray.data.read_parquet(source)
    answers = rows.map_batches(
        Model,
        fn_constructor_args=(path, threads),
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        # So that readers and the writer have a place beside them.
        num_cpus=0.5,
    )
    answers.write_parquet(output)
    seconds = time.perf_counter() - began
    ray.shutdown()
    return seconds


def padded(folder: str, source: str, output: str, batch: int) -> float:
    """Make tokens of batches of texts as they come, pad them to their longest, run and write them."""
    tokenizer = build_minilm.load_tokenizer(Path(folder))
    model = session(str(Path(folder) / "1" / "model.onnx"), len(os.sched_getaffinity(0)))
    began = time.perf_counter()
    writer = None
    for rows in pq.ParquetFile(source).iter_batches(batch):
        (vectors,) = model.run([OUTPUT], build_minilm.encode(tokenizer, rows.column("text").to_pylist()))
        width = vectors.shape[-1]
        answers = pa.record_batch(
            {OUTPUT: pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), width)}
        )
        writer = writer or pq.ParquetWriter(output, answers.schema)
        writer.write_batch(answers)
    if writer is not None:
        writer.close()
    return time.perf_counter() - began


def main() -> None:
    """Run the one that is asked for."""
    kind, first, source, output, *numbers = sys.argv[1:]
    run: dict[str, Callable[..., float]] = {"ray": ray_pipeline, "padded": padded}
    print(run[kind](first, source, output, *map(int, numbers)))


if __name__ == "__main__":
    main()
