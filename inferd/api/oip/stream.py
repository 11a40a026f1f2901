"""``ModelStreamInfer``: one request per message, with the order of the responses that Triton has.

Those of ordinary models come in the order of the requests. Language models give several responses to a request, which
come as they are generated, between those of other requests; the last one is marked.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial

from inferd import wire
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.generation.delta_sender import DeltaSender, append_delta
from inferd.api.generation.generations import Generations
from inferd.api.generation.triton import TritonRequest
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import Waited
from inferd.api.oip.generation import Responses, read
from inferd.api.request_decoder import RequestDecoder
from inferd.api.stream import RequestStream
from inferd.api.stream_request import StreamRequest
from inferd.batching.request import InferenceRequest, Reply
from inferd.call_context import Generated
from inferd.errors import ServingError
from inferd.generation.request import Delta, GenerationRequest
from inferd.models.version import ModelVersion
from inferd.rpc import StreamCall

#: Call metadata that makes the first error end the stream with its status.
_ERROR_ENDS_STREAM = ("triton_grpc_error", "true")

_INFER_RESPONSE = wire.tag(pb.ModelStreamInferResponse, "infer_response")


def _marked(*, final: bool) -> bytes:
    """Return what marks a response as the last one to its request, or as none."""
    parameters = {"triton_final_response": pb.InferParameter(bool_param=final)}
    return pb.ModelInferResponse(parameters=parameters).SerializeToString()


_FINAL, _NOT_FINAL = _marked(final=True), _marked(final=False)

_Request = StreamRequest[pb.ModelInferRequest]


class OpenInferenceStream(RequestStream[pb.ModelInferRequest]):
    """One ``ModelStreamInfer`` call.

    ``_order`` holds the requests to ordinary models whose responses have not been sent, oldest first; ``_responses``
    those that are ready and may have to wait for older ones. ``_last`` are the last responses of language models.
    """

    def __init__(
        self, call: StreamCall, decoder: RequestDecoder[pb.ModelInferRequest], resources: HandlerResources
    ) -> None:
        super().__init__(call, decoder, resources)
        self._order: deque[_Request] = deque()
        self._responses: dict[_Request, bytes] = {}
        self._last: list[bytes] = []
        self._error_ends_stream = _ERROR_ENDS_STREAM in call.metadata
        self._sender: DeltaSender | None = None

    def _split(self, message: bytes) -> Sequence[bytes]:
        return (message,)

    def _opened(self, request: _Request) -> None:
        self._order.append(request)

    def _build(
        self, request: _Request, model: ModelVersion, reply: Reply, received_at: float
    ) -> InferenceRequest | None:
        parsed = request.incoming.parsed
        if model.language is None or parsed is None:
            return super()._build(request, model, reply, received_at)
        triton = read(parsed, self._resources.limits)
        with self._lock:
            if request in self._order:
                self._order.remove(request)
        request.generated = Generated()
        request.begin = partial(self._generate, request, triton, reply, Waited(received_at))
        return None

    def _generate(self, request: _Request, triton: TritonRequest, reply: Reply, waited: Waited) -> None:
        """Begin to generate; on the poll thread, like what follows."""
        if self._sender is None:
            self._sender = DeltaSender(self._call, self._send_now)
        # What refers back to the request is forgotten here and at its end, as streams may live long.
        request.begin = None
        cancel = Generations(self._resources).begin(
            self._call,
            triton.params,
            _Answer(self, request, triton, self._sender),
            on_settled=reply.release,
            generated=request.generated,
            waited=waited,
        )
        with self._lock:
            is_open = request in self._open
            if is_open:
                request.withdraw = cancel
        if not is_open:
            # The stream has ended meanwhile, or the request has, and then this has no effect.
            cancel()

    def _send_now(self, message: bytes) -> None:
        with self._lock:
            self._count("messages_out", 1)
            self._call.send(message)

    def conclude(self, request: _Request, last: bytes | ServingError) -> None:
        """Send the last response to a request to a language model; others may follow it in the same step."""
        request.withdraw = None
        self._conclude(request, last, last if isinstance(last, ServingError) else None)

    def _collect(self, request: _Request, outcome: bytes | ServingError) -> ServingError | None:
        if isinstance(outcome, ServingError):
            if self._error_ends_stream:
                return outcome
            response = _error_response(request, outcome)
        else:
            response = wire.field(_INFER_RESPONSE, outcome + _FINAL)
        if request.generated is None:
            self._responses[request] = response
        else:
            self._last.append(response)
        return None

    def _take_messages(self) -> Sequence[bytes]:
        messages, self._last = self._last, []
        while self._order and (response := self._responses.pop(self._order[0], None)) is not None:
            self._order.popleft()
            messages.append(response)
        return messages


class _Answer:
    """Gives a stream what is generated for one of its requests: as it comes, or together."""

    def __init__(
        self, stream: OpenInferenceStream, request: _Request, triton: TritonRequest, sender: DeltaSender
    ) -> None:
        self._stream = stream
        self._request = request
        self._sender = sender
        self._responses = Responses(triton)
        self._streams = triton.streams
        self._whole = Delta(token_ids=[])

    def on_started(self, version: ModelVersion, request: GenerationRequest) -> None:
        """See `GenerationReceiver`."""
        self._responses.started(version, request)

    def on_delta(self, delta: Delta) -> None:
        """See `Receiver`."""
        if not self._streams:
            append_delta(self._whole, delta)
            delta = self._whole
        if delta.finish_reason is not None:
            self._stream.conclude(self._request, self._responses.encode(self._sender.take(self, delta)))
        elif self._streams:
            self._sender.send(self, delta)

    def on_error(self, error: ServingError) -> None:
        """See `Receiver`. What was generated before is sent first."""
        self._sender.flush(self)
        self._stream.conclude(self._request, error)

    def encode(self, delta: Delta) -> bytes:
        """See `Encoder`."""
        return wire.field(_INFER_RESPONSE, self._responses.encode(delta) + _NOT_FINAL)


def _error_response(request: _Request, error: ServingError) -> bytes:
    incoming = request.incoming
    response = pb.ModelInferResponse(model_name=incoming.name, model_version=incoming.version, id=incoming.request_id)
    return pb.ModelStreamInferResponse(error_message=error.message, infer_response=response).SerializeToString()
