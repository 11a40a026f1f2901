"""``StreamInfer``: requests in messages of one or several, results as they finish."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.streaming import RequestStream, StreamItem
from inferd.batching.request import Outcome
from inferd.errors import InvalidInputError, ServingError


class InferenceStream(RequestStream[pb.InferRequest, pb.InferResponse]):
    """One ``StreamInfer`` call."""

    _ready: pb.StreamInferResponse | None = None

    def _parse(self, message: bytes) -> Sequence[pb.InferRequest]:
        try:
            requests = pb.StreamInferRequest.FromString(message).requests
        except DecodeError:
            raise InvalidInputError("the message is not an inferd.v1.StreamInferRequest") from None
        if not requests:
            raise InvalidInputError("requests: expected at least one, got none")
        return requests

    def _opened(self, item: StreamItem[pb.InferRequest]) -> None:
        """Nothing to note: results go out in any order."""

    def _gather(self, item: StreamItem[pb.InferRequest], outcome: Outcome) -> ServingError | None:
        if self._ready is None:
            self._ready = pb.StreamInferResponse()
        result = self._ready.results.add(request_id=item.wire.request_id)
        if isinstance(outcome, ServingError):
            result.error.CopyFrom(self._statuses.status_of(outcome).to_proto())
        else:
            assert item.model is not None, "a result comes from a model"
            self._codec.encode_into(result.response, item.wire, item.model, outcome)
        return None

    def _take_messages(self) -> Sequence[bytes]:
        ready, self._ready = self._ready, None
        return () if ready is None else (ready.SerializeToString(),)
