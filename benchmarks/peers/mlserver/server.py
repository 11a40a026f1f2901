"""MLServer with adaptive batching, in one process: for models that run for microseconds its workers only add hops."""

import asyncio
import os

from common import INSTANCES, MAX_BATCH_SIZE, PORT, session
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

# How long a batch may wait to become full. More only adds latency when callers wait for their answers.
MAX_BATCH_TIME_S = 0.001


class Inference(MLModel):
    """Any ONNX model."""

    async def load(self) -> bool:
        """Load the model."""
        self._session = session()
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch, which comes as one request."""
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        results = self._session.run(self._outputs, feeds)
        outputs = [NumpyCodec.encode_output(name, result) for name, result in zip(self._outputs, results, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def main() -> None:
    """Serve gRPC on the port and HTTP on the one after it."""
    settings = Settings(
        host="127.0.0.1",
        grpc_port=PORT,
        http_port=PORT + 1,
        metrics_endpoint=None,
        # 0 is in the server's own process.
        parallel_workers=INSTANCES if INSTANCES > 1 else 0,
        load_models_at_startup=False,
        debug=False,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name=os.environ["BENCH_MODEL_NAME"],
        implementation=Inference,
        max_batch_size=MAX_BATCH_SIZE,
        max_batch_time=MAX_BATCH_TIME_S,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
