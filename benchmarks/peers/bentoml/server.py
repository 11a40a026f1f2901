"""BentoML with adaptive batching, over JSON: its binary format is Python's pickle, meant for its own services."""

import bentoml
import numpy as np
from common import INSTANCES, MAX_BATCH_SIZE, RowModel

# A request that would take longer is rejected; the batcher's delay follows from it.
MAX_LATENCY_MS = 1000


@bentoml.service(workers=INSTANCES, traffic={"timeout": 30, "max_concurrency": 100_000})
class Inference:
    """A model of one input."""

    def __init__(self) -> None:
        self._model = RowModel()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=MAX_LATENCY_MS, route="/infer")
    def infer(self, rows: np.ndarray) -> np.ndarray:
        """Answer a batch."""
        return self._model.run_array(rows.astype(np.float32, copy=False))
