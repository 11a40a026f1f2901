"""KServe's Python model server. It does not batch: KServe has an agent for that."""

import os

from common import PORT, session
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid

DTYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


class Inference(Model):
    """Any ONNX model."""

    def load(self) -> bool:
        """Load the model."""
        self._session = session()
        self._outputs = [(tensor.name, DTYPES[tensor.type]) for tensor in self._session.get_outputs()]
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, *_context: object) -> InferResponse:
        """Answer one request."""
        feeds = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        results = self._session.run([name for name, _ in self._outputs], feeds)
        outputs = []
        for (name, dtype), result in zip(self._outputs, results, strict=True):
            output = InferOutput(name=name, shape=list(result.shape), datatype=dtype)
            output.set_data_from_numpy(result, binary_data=True)
            outputs.append(output)
        return InferResponse(model_name=self.name, infer_outputs=outputs, response_id=generate_uuid())


if __name__ == "__main__":
    model = Inference(os.environ["BENCH_MODEL_NAME"])
    model.load()
    ModelServer(grpc_port=PORT, http_port=PORT + 1, workers=1, enable_latency_logging=False).start([model])
