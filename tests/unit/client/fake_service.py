"""A fake server on ``grpc.server`` that answers as a test says."""

# ruff: noqa: N802 - the methods of a servicer have the names of the contract

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import ArrayLike

from inferd._generated.inferd.v1 import generation_pb2, generation_pb2_grpc, inference_pb2_grpc
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import codec

DIGITS = pb.Model(
    name="digits",
    version="1",
    state=pb.Model.STATE_READY,
    inputs=[
        pb.TensorInfo(name="X", datatype=pb.DATA_TYPE_FP32, shape=[-1, 64], dimension_names=["batch", ""], batch_axis=0)
    ],
    outputs=[
        pb.TensorInfo(name="label", datatype=pb.DATA_TYPE_INT64, shape=[-1], dimension_names=["batch"], batch_axis=0)
    ],
    batching=pb.Batching(
        enabled=True,
        max_batch_size=64,
        max_wait=Duration(nanos=1_500_000),
        instances=1,
        max_queue_rows=1024,
        backpressure="reject",
        priority_levels=3,
        verdict=pb.Batching.VERDICT_PROVEN,
        checks=12,
    ),
    providers=["CPUExecutionProvider"],
    run_cost=pb.RunCost(
        sizes=[
            pb.PredictedRun(rows=1, duration=Duration(nanos=3_100_000), duration_p95=Duration(nanos=4_000_000)),
            pb.PredictedRun(rows=64, duration=Duration(nanos=12_300_000), duration_p95=Duration(nanos=15_000_000)),
        ],
        error=0.08,
        runs=250,
    ),
    residency=pb.Residency(on_demand=True, memory_bytes=12 * 2**20, load_duration=Duration(nanos=250_000_000)),
)
BROKEN = pb.Model(name="broken", version="3", state=pb.Model.STATE_FAILED, reason="not an ONNX file")


def encode(name: str, value: ArrayLike) -> pb.Tensor:
    """Turn an array into a tensor, as the client sends it."""
    return pb.InferRequest.FromString(b"".join(codec.encode(name, value))).inputs[0]


def echo(request: pb.InferRequest) -> pb.InferResponse:
    """Return the inputs as outputs."""
    wanted = [tensor for tensor in request.inputs if not request.outputs or tensor.name in request.outputs]
    return pb.InferResponse(
        model=request.model,
        version=request.version or "1",
        request_id=request.request_id,
        outputs=wanted,
        timing=pb.InferTiming(queue_us=1500, run_us=250, batch_rows=8),
    )


def echoed(request: pb.InferRequest) -> pb.InferResult:
    """Answer one request of a stream with its inputs."""
    return pb.InferResult(request_id=request.request_id, response=echo(request))


def overload_status(*, retry_s: float, message: str = "the queue is full") -> Status:
    """The status of a rejected request, with its details."""
    retry, info, delay = Any(), Any(), Duration()
    delay.FromMilliseconds(int(retry_s * 1000))
    retry.Pack(RetryInfo(retry_delay=delay))
    info.Pack(ErrorInfo(reason="QUEUE_FULL", domain="inferd"))
    return Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=message, details=[info, retry])


def refuse(context: grpc.ServicerContext, *, pushback_ms: str | None, details: bytes | None = None) -> NoReturn:
    """End a call as an overloaded server does."""
    trailing: list[tuple[str, str | bytes]] = []
    if pushback_ms is not None:
        trailing.append(("grpc-retry-pushback-ms", pushback_ms))
    if details is not None:
        trailing.append(("grpc-status-details-bin", details))
    context.set_trailing_metadata(tuple(trailing))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")


def refuse_control(context: grpc.ServicerContext, code: grpc.StatusCode, text: str, reason: str) -> NoReturn:
    """End a call to load or unload a model as a server does that may not, or cannot."""
    info = Any()
    info.Pack(ErrorInfo(reason=reason, domain="inferd"))
    status = Status(code=code.value[0], message=text, details=[info]).SerializeToString()
    context.set_trailing_metadata((("grpc-status-details-bin", status), ("grpc-retry-pushback-ms", "-1")))
    context.abort(code, text)


#: A model that generates text.
STORYTELLER = pb.Model(
    name="storyteller",
    version="2",
    state=pb.Model.STATE_READY,
    generation=pb.Generation(
        context_length=2048,
        vocabulary_size=49152,
        max_sequences=32,
        cache_bytes_per_token=46080,
        cache_bytes=2**30,
        has_tokenizer=True,
        has_chat_template=True,
        default_max_tokens=512,
    ),
)


def spelled(request: generation_pb2.GenerateRequest) -> Iterator[generation_pb2.GenerateResponse]:
    """Answer with the text of the prompt, or of the last message, character by character."""
    text = request.prompt.text or request.prompt.chat.messages[-1].content
    yield generation_pb2.GenerateResponse(
        model=request.model, version="2", request_id=request.request_id, token_ids=[ord(text[0])], text=text[0]
    )
    for letter in text[1:]:
        yield generation_pb2.GenerateResponse(token_ids=[ord(letter)], text=letter)
    usage = generation_pb2.GenerationUsage(
        prompt_tokens=3,
        generated_tokens=len(text),
        queue_time=Duration(nanos=2_000_000),
        first_token_time=Duration(nanos=30_000_000),
    )
    yield generation_pb2.GenerateResponse(finish_reason=generation_pb2.FINISH_REASON_STOP, usage=usage)


class FakeService(inference_pb2_grpc.InferenceServiceServicer, generation_pb2_grpc.GenerationServiceServicer):
    """Echoes, unless the test sets ``on_infer``, ``on_stream`` and ``on_generate``.

    ``requests`` and ``metadata`` are those received, in order; gRPC's worker threads append to them.
    """

    def __init__(self, *models: pb.Model) -> None:
        self.models = list(models) or [DIGITS]
        self.requests: list[pb.InferRequest] = []
        self.generate_requests: list[generation_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        #: Requests to load, unload and index models; calls to load and unload end with ``refusal``, if there is one.
        self.commands: list[pb.LoadModelRequest | pb.UnloadModelRequest | pb.IndexModelsRequest] = []
        self.refusal: tuple[grpc.StatusCode, str, str] | None = None
        self.never_loaded = ["new"]
        self.on_infer: Callable[[pb.InferRequest, grpc.ServicerContext], pb.InferResponse] = lambda request, _: echo(
            request
        )
        self.on_stream: Callable[
            [Iterable[pb.StreamInferRequest], grpc.ServicerContext], Iterator[pb.StreamInferResponse]
        ] = self._echo_stream
        self.on_generate: Callable[
            [generation_pb2.GenerateRequest, grpc.ServicerContext], Iterable[generation_pb2.GenerateResponse]
        ] = lambda request, _: spelled(request)

    def Infer(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return self.on_infer(request, context)

    def StreamInfer(self, request_iterator, context):
        self.metadata.append(dict(context.invocation_metadata()))
        yield from self.on_stream(request_iterator, context)

    def Generate(self, request, context):
        self.generate_requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        yield from self.on_generate(request, context)

    def ListModels(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        return pb.ListModelsResponse(models=self.models)

    def GetModel(self, request, context):
        self.metadata.append(dict(context.invocation_metadata()))
        known = [m for m in self.models if m.name == request.model and request.version in {"", m.version}]
        if not known:
            context.abort(grpc.StatusCode.NOT_FOUND, f'model "{request.model}" is not known')
        model = known[0]
        if model.state == pb.Model.STATE_ON_DEMAND:
            loaded = pb.Model(name=model.name, version=model.version, state=pb.Model.STATE_READY, inputs=DIGITS.inputs)
            model = loaded if request.load else model
        return pb.GetModelResponse(model=model)

    def LoadModel(self, request, context):
        self.commands.append(request)
        if self.refusal is not None:
            refuse_control(context, *self.refusal)
        return pb.LoadModelResponse(models=[model for model in self.models if model.name == request.model])

    def UnloadModel(self, request, context):
        self.commands.append(request)
        if self.refusal is not None:
            refuse_control(context, *self.refusal)
        return pb.UnloadModelResponse()

    def IndexModels(self, request, context):
        self.commands.append(request)
        loaded = [
            pb.ModelIndex(name=model.name, version=model.version, state=model.state, reason=model.reason)
            for model in self.models
        ]
        never = [pb.ModelIndex(name=name, state=pb.Model.STATE_UNAVAILABLE) for name in self.never_loaded]
        lines = [line for line in (*loaded, *never) if line.state == pb.Model.STATE_READY or not request.ready]
        return pb.IndexModelsResponse(models=lines)

    def _echo_stream(self, messages, context):
        for message in messages:
            self.requests.extend(message.requests)
            yield pb.StreamInferResponse(results=[echoed(request) for request in message.requests])


class Serving:
    """A running server: its address and its health."""

    def __init__(self, address: str, health_servicer: health.HealthServicer) -> None:
        self.address = address
        self._health = health_servicer

    def drain(self) -> None:
        """Report NOT_SERVING from now on."""
        self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)


@contextmanager
def serving(
    service: FakeService, credentials: grpc.ServerCredentials | None = None, address: str = "127.0.0.1:0"
) -> Iterator[Serving]:
    """Serve until the block ends, by default on a free loopback port."""
    pool = ThreadPoolExecutor(max_workers=8)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)])
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(service, server)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(service, server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    try:
        yield Serving(address if address.startswith("unix:") else f"localhost:{port}", health_servicer)
    finally:
        server.stop(grace=None).wait()
        pool.shutdown()
