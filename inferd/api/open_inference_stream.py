"""``ModelStreamInfer``: one request a message, answered in the order they came, as Triton does for such models."""

from collections import deque
from collections.abc import Sequence

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.reader import RequestReader
from inferd.api.streaming import RequestStream, StreamItem, StreamParts
from inferd.batching.request import Outcome
from inferd.errors import ServingError
from inferd.rpc import StreamCall

#: Call metadata that asks for the first error to end the stream with its status.
_ERROR_ENDS_STREAM = ("triton_grpc_error", "true")


class OpenInferenceStream(RequestStream[pb.ModelInferRequest, pb.ModelInferResponse]):
    """One ``ModelStreamInfer`` call.

    ``_order`` holds the requests that are not yet answered on the wire, the oldest first; ``_answers`` the answers that
    may have to wait for older ones.
    """

    def __init__(
        self, call: StreamCall, reader: RequestReader[pb.ModelInferRequest, pb.ModelInferResponse], parts: StreamParts
    ) -> None:
        super().__init__(call, reader, parts)
        self._order: deque[StreamItem[pb.ModelInferRequest]] = deque()
        self._answers: dict[StreamItem[pb.ModelInferRequest], pb.ModelStreamInferResponse] = {}
        self._error_ends_stream = _ERROR_ENDS_STREAM in call.metadata

    def _split(self, message: bytes) -> Sequence[bytes]:
        return (message,)

    def _opened(self, item: StreamItem[pb.ModelInferRequest]) -> None:
        self._order.append(item)

    def _gather(self, item: StreamItem[pb.ModelInferRequest], outcome: Outcome) -> ServingError | None:
        answer = pb.ModelStreamInferResponse()
        response = answer.infer_response
        if isinstance(outcome, ServingError):
            if self._error_ends_stream:
                return outcome
            answer.error_message = outcome.message
            response.model_name = item.incoming.name
            response.model_version = item.incoming.version
            response.id = item.incoming.request_id
        else:
            self._encode_into(response, item, outcome)
            response.parameters["triton_final_response"].bool_param = True
        self._answers[item] = answer
        return None

    def _take_messages(self) -> Sequence[bytes]:
        messages: list[bytes] = []
        while self._order and (answer := self._answers.pop(self._order[0], None)) is not None:
            self._order.popleft()
            messages.append(answer.SerializeToString())
        return messages
