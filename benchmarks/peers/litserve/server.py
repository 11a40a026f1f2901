"""LitServe with raw bodies, batches, and its fast queue, which is ZeroMQ, between its processes."""

from typing import Annotated

import litserve
from common import INSTANCES, MAX_BATCH_SIZE, PORT, RowModel
from fastapi import Body, Response

# Batching delay. 0 takes the requests that wait.
BATCH_TIMEOUT_S = 0.0


class Inference(litserve.LitAPI):
    """A model of one input."""

    def setup(self, _device: str) -> None:
        """Load the model in the worker."""
        self._model = RowModel()

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """Return the body unchanged."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leave the stacking to the model."""
        return inputs

    def predict(self, bodies: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self._model.run(bodies)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Split the rows by caller."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """Return the answer unchanged."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Inference(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=INSTANCES, fast_queue=True)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False, access_log=False)
