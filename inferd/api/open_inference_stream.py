"""``ModelStreamInfer``: one request a message, answered in the order they came, as Triton does for such models."""

from collections import deque
from collections.abc import Sequence

from inferd import wire
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.reader import RequestReader
from inferd.api.streaming import RequestStream, StreamItem, StreamParts
from inferd.errors import ServingError
from inferd.rpc import StreamCall

#: Call metadata that asks for the first error to end the stream with its status.
_ERROR_ENDS_STREAM = ("triton_grpc_error", "true")


#: Of `ModelStreamInferResponse`.
_INFER_RESPONSE = wire.tag(pb.ModelStreamInferResponse, "infer_response")

#: Tells that a response is the last one to its request, as every one of ours is.
_FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()


class OpenInferenceStream(RequestStream[pb.ModelInferRequest]):
    """One ``ModelStreamInfer`` call.

    ``_order`` holds the requests that are not yet answered on the wire, the oldest first; ``_answers`` the answers that
    may have to wait for older ones.
    """

    def __init__(self, call: StreamCall, reader: RequestReader[pb.ModelInferRequest], parts: StreamParts) -> None:
        super().__init__(call, reader, parts)
        self._order: deque[StreamItem[pb.ModelInferRequest]] = deque()
        self._answers: dict[StreamItem[pb.ModelInferRequest], bytes] = {}
        self._error_ends_stream = _ERROR_ENDS_STREAM in call.metadata

    def _split(self, message: bytes) -> Sequence[bytes]:
        return (message,)

    def _opened(self, item: StreamItem[pb.ModelInferRequest]) -> None:
        self._order.append(item)

    def _gather(self, item: StreamItem[pb.ModelInferRequest], outcome: bytes | ServingError) -> ServingError | None:
        if isinstance(outcome, ServingError):
            if self._error_ends_stream:
                return outcome
            self._answers[item] = _refusal(item, outcome)
        else:
            self._answers[item] = wire.field(_INFER_RESPONSE, outcome + _FINAL)
        return None

    def _take_messages(self) -> Sequence[bytes]:
        messages: list[bytes] = []
        while self._order and (answer := self._answers.pop(self._order[0], None)) is not None:
            self._order.popleft()
            messages.append(answer)
        return messages


def _refusal(item: StreamItem[pb.ModelInferRequest], error: ServingError) -> bytes:
    incoming = item.incoming
    response = pb.ModelInferResponse(model_name=incoming.name, model_version=incoming.version, id=incoming.request_id)
    return pb.ModelStreamInferResponse(error_message=error.message, infer_response=response).SerializeToString()
