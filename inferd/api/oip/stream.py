"""``ModelStreamInfer``: one request per message, responses in the order of the requests, as in Triton."""

from collections import deque
from collections.abc import Sequence

from inferd import wire
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.handler_resources import HandlerResources
from inferd.api.request_decoder import RequestDecoder
from inferd.api.stream import RequestStream
from inferd.api.stream_request import StreamRequest
from inferd.errors import ServingError
from inferd.rpc import StreamCall

#: Call metadata that makes the first error end the stream with its status.
_ERROR_ENDS_STREAM = ("triton_grpc_error", "true")

_INFER_RESPONSE = wire.tag(pb.ModelStreamInferResponse, "infer_response")

#: Marks a response as the last one to its request, which each of ours is.
_FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()


class OpenInferenceStream(RequestStream[pb.ModelInferRequest]):
    """One ``ModelStreamInfer`` call.

    ``_order`` holds the requests whose responses have not been sent, oldest first; ``_responses`` those that are ready
    and may have to wait for older ones.
    """

    def __init__(
        self, call: StreamCall, decoder: RequestDecoder[pb.ModelInferRequest], resources: HandlerResources
    ) -> None:
        super().__init__(call, decoder, resources)
        self._order: deque[StreamRequest[pb.ModelInferRequest]] = deque()
        self._responses: dict[StreamRequest[pb.ModelInferRequest], bytes] = {}
        self._error_ends_stream = _ERROR_ENDS_STREAM in call.metadata

    def _split(self, message: bytes) -> Sequence[bytes]:
        return (message,)

    def _opened(self, request: StreamRequest[pb.ModelInferRequest]) -> None:
        self._order.append(request)

    def _collect(
        self, request: StreamRequest[pb.ModelInferRequest], outcome: bytes | ServingError
    ) -> ServingError | None:
        if isinstance(outcome, ServingError):
            if self._error_ends_stream:
                return outcome
            self._responses[request] = _error_response(request, outcome)
        else:
            self._responses[request] = wire.field(_INFER_RESPONSE, outcome + _FINAL)
        return None

    def _take_messages(self) -> Sequence[bytes]:
        messages: list[bytes] = []
        while self._order and (response := self._responses.pop(self._order[0], None)) is not None:
            self._order.popleft()
            messages.append(response)
        return messages


def _error_response(request: StreamRequest[pb.ModelInferRequest], error: ServingError) -> bytes:
    incoming = request.incoming
    response = pb.ModelInferResponse(model_name=incoming.name, model_version=incoming.version, id=incoming.request_id)
    return pb.ModelStreamInferResponse(error_message=error.message, infer_response=response).SerializeToString()
