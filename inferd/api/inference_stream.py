"""``StreamInfer``: requests in messages of one or several, results as they finish."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.frames import split
from inferd.api.streaming import RequestStream, StreamItem
from inferd.batching.request import Outcome
from inferd.errors import InvalidInputError, ServingError

#: Of the field of `StreamInferRequest` that holds requests.
_REQUESTS_TAG = 0x0A


class InferenceStream(RequestStream[pb.InferRequest, pb.InferResponse]):
    """One ``StreamInfer`` call."""

    _ready: pb.StreamInferResponse | None = None

    def _split(self, message: bytes) -> Sequence[bytes]:
        contents = split(message, _REQUESTS_TAG)
        if contents is None:
            contents = [request.SerializeToString() for request in _parsed(message).requests]
        if not contents:
            raise InvalidInputError("requests: expected at least one, got none")
        return contents

    def _opened(self, item: StreamItem[pb.InferRequest]) -> None:
        """Nothing to note: results go out in any order."""

    def _gather(self, item: StreamItem[pb.InferRequest], outcome: Outcome) -> ServingError | None:
        if self._ready is None:
            self._ready = pb.StreamInferResponse()
        result = self._ready.results.add(request_id=item.incoming.request_id)
        if isinstance(outcome, ServingError):
            result.error.CopyFrom(self._statuses.status_of(outcome).to_proto())
        else:
            self._encode_into(result.response, item, outcome)
        return None

    def _take_messages(self) -> Sequence[bytes]:
        ready, self._ready = self._ready, None
        return () if ready is None else (ready.SerializeToString(),)


def _parsed(message: bytes) -> pb.StreamInferRequest:
    try:
        return pb.StreamInferRequest.FromString(message)
    except DecodeError:
        raise InvalidInputError("the message is not an inferd.v1.StreamInferRequest") from None
