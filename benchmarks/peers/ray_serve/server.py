"""Ray Serve with raw bodies and its own batching decorator.

RAY_SERVE_THROUGHPUT_OPTIMIZED made no difference to its throughput here.
"""

import signal

import ray
from common import INSTANCES, MAX_BATCH_SIZE, PORT, RowModel
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

# Batching delay. 0 takes the requests that wait.
WAIT_S = 0.0


@serve.deployment(num_replicas=INSTANCES, max_ongoing_requests=4 * MAX_BATCH_SIZE, ray_actor_options={"num_cpus": 0.1})
class Inference:
    """A model of one input."""

    def __init__(self) -> None:
        self._model = RowModel()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=WAIT_S)
    async def run(self, bodies: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self._model.run(bodies)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        return Response(await self.run(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT, "access_log": False})
    serve.run(Inference.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
