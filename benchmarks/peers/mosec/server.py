"""mosec with raw bodies: one stage, batches of whatever has arrived."""

import sys

from common import INSTANCES, MAX_BATCH_SIZE, PORT, RowModel
from mosec import Server, Worker

# Batching delay in ms. 1 is the minimum of mosec; its default of 10 only adds latency.
MAX_WAIT_MS = 1


class Inference(Worker):
    """Takes raw bytes, the fastest form for mosec."""

    def __init__(self) -> None:
        super().__init__()
        self._model = RowModel()

    def deserialize(self, data: bytes) -> bytes:
        """Return the body unchanged."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Return the answer unchanged."""
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self._model.run(data)


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    server.append_worker(Inference, num=INSTANCES, max_batch_size=MAX_BATCH_SIZE, max_wait_time=MAX_WAIT_MS)
    server.run()
